"""The initramfs: segments, each a cpio archive in a Zstandard frame of its own, one behind the other.

The kernel unpacks them in order onto one file system (init/initramfs.c), so a part that changes often can
be compressed alone. A later segment may replace a file of an earlier one.
"""

from collections.abc import Iterable, Iterator

import zstandard

from image import cpio
from image.tree import Entry

# The size of the jobs that threads share, in bytes, decides the output, not their number. An own size keeps both
# threads busy: the default for high levels is 32 MiB, most of an image.
_THREADS = 2
_JOB = 10 << 20


def segment(entries: Iterable[Entry], epoch: int, level: int, first_inode: int = 1) -> bytes:
    """One compressed archive; inode numbers must not repeat between segments of an initramfs."""
    archive = cpio.pack(entries, epoch, first_inode)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(archive), threads=_THREADS, job_size=_JOB
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(archive)


def entries(initramfs: bytes) -> Iterator[Entry]:
    """All entries of all segments in the kernel's order. Raises CpioError if the end is missing."""
    rest = initramfs
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            archive = frame.decompress(rest)
        except zstandard.ZstdError as error:
            raise cpio.CpioError(f"a segment is not a Zstandard frame: {error}") from error
        if not frame.eof:
            raise cpio.CpioError("the last segment is cut")
        yield from cpio.unpack(archive)
        rest = frame.unused_data
