"""The initramfs: segments, each a cpio archive compressed by itself, one behind the other.

The kernel unpacks them in order onto one file system (init/initramfs.c), so a part that changes often can
be compressed alone. A later segment may replace a file of an earlier one.

The compression is LZ4 in its legacy frame, the one that the kernel reads (lib/decompress_unlz4.c): a magic number,
then blocks of 8 MiB, each behind its compressed length, then a length of zero, after which the kernel looks for the
next archive. docs/decisions/0001-carrying-the-root.md says why LZ4, and 0016-chrony-within-32-mb.md why a
few large files are in a segment of Zstandard instead.
"""

import struct
from collections.abc import Iterable, Iterator

import lz4.block  # type: ignore[import-untyped]  # it has no annotations
import zstandard

from image import cpio
from image.tree import Entry

_MAGIC = 0x184C2102
_BLOCK = 8 << 20
_DENSE_MAGIC = b"\x28\xb5\x2f\xfd"
_DENSE_LEVEL = 19
_WORD = struct.Struct("<I")
# Where the numbers of files begin that are in the segment of Zstandard, and of those that are put before an image.
# All others count from 1.
_DENSE_INODES, _FRONT_INODES = 1 << 20, 2 << 20


def segment(entries: Iterable[Entry], epoch: int, level: int, first_inode: int = 1) -> bytes:
    """One compressed archive; inode numbers must not repeat between segments of an initramfs.

    Args:
        entries: its files, in order.
        epoch: their time.
        level: LZ4's, 3 (quick) to 12 (small).
        first_inode: the number of its first file.
    """
    archive = memoryview(cpio.pack(entries, epoch, first_inode))
    blocks = (_compress(archive[at : at + _BLOCK], level) for at in range(0, len(archive), _BLOCK))
    return _WORD.pack(_MAGIC) + b"".join(blocks) + _WORD.pack(0)


def dense_segment(entries: Iterable[Entry], epoch: int) -> bytes:
    """One archive compressed by Zstandard: a quarter smaller, and unpacked in four times the time."""
    return zstandard.ZstdCompressor(level=_DENSE_LEVEL).compress(cpio.pack(entries, epoch, _DENSE_INODES))


def put_before(image: bytes, entries: Iterable[Entry], epoch: int = 0) -> bytes:
    """An image's initramfs with more files in it, for a test or a measurement: the image's own win."""
    return segment(entries, epoch, level=3, first_inode=_FRONT_INODES) + image


def _compress(block: memoryview, level: int) -> bytes:
    packed: bytes = lz4.block.compress(block, mode="high_compression", compression=level, store_size=False)
    return _WORD.pack(len(packed)) + packed


def entries(initramfs: bytes) -> Iterator[Entry]:
    """All entries of all segments in the kernel's order. Raises CpioError if the end is missing."""
    if initramfs and not initramfs.startswith((_WORD.pack(_MAGIC), _DENSE_MAGIC)):
        raise cpio.CpioError("the initramfs begins with neither LZ4 nor Zstandard")
    segments: list[list[bytes]] = []
    at = 0
    while at < len(initramfs):
        if initramfs.startswith(_DENSE_MAGIC, at):
            unpacked, at = _unpack_dense(initramfs, at)
            segments.append([unpacked])
            continue
        length = _word(initramfs, at)
        at += _WORD.size
        if length == _MAGIC:
            segments.append([])
        if length in (0, _MAGIC):
            continue
        segments[-1].append(_decompress(initramfs[at : at + length], length))
        at += length
    for blocks in segments:
        yield from cpio.unpack(b"".join(blocks))


def _unpack_dense(data: bytes, at: int) -> tuple[bytes, int]:
    """An archive of Zstandard, and where what follows it begins."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    try:
        unpacked = unpacker.decompress(data[at:])
    except zstandard.ZstdError as error:
        raise cpio.CpioError(f"a segment is not Zstandard: {error}") from error
    if not unpacker.eof:
        raise cpio.CpioError("the last segment is cut")
    return unpacked, len(data) - len(unpacker.unused_data)


def _word(data: bytes, at: int) -> int:
    if at + _WORD.size > len(data):
        raise cpio.CpioError("the last segment is cut")
    value: int = _WORD.unpack_from(data, at)[0]
    return value


def _decompress(block: bytes, length: int) -> bytes:
    if len(block) < length:
        raise cpio.CpioError("the last segment is cut")
    try:
        unpacked: bytes = lz4.block.decompress(block, uncompressed_size=_BLOCK)
    except lz4.block.LZ4BlockError as error:
        raise cpio.CpioError(f"a segment is not LZ4: {error}") from error
    return unpacked
