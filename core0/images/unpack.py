"""From a layer's blob to its tar: gzip, Zstandard or plain, within limits.

Whoever made the blob chose how large it becomes: what comes out is counted while it does, and never held whole.
"""

import zlib
from collections.abc import Iterator

from core0.images.model import Descriptor, PullError
from core0.linux.zstd import Stream, ZstdError

_PIECE = 256 << 10
# Real layers unpack to 2 to 20 times their size; gzip can do 1,000, zstd far more. Small ones may be mostly zeros.
MOST_RATIO, RATIO_FROM = 200, 64 << 20
# 32 MiB: what the compressors of image builders ask for at their best level. Three layers are unpacked at a time.
WINDOW_LOG = 25


def unpack(descriptor: Descriptor, pieces: Iterator[bytes], largest: int) -> Iterator[bytes]:
    """The tar of a layer, in pieces of at most 256 KiB.

    Args:
        descriptor: of the blob; its type says how it is packed.
        pieces: the blob.
        largest: bytes of the tar at most.

    Raises:
        PullError: the data is damaged, ends early, or unpacks to too much.
    """
    doing, size = f"cannot unpack layer {descriptor.digest}", 0
    most = min(largest, max(RATIO_FROM, MOST_RATIO * descriptor.size))
    try:
        for piece in _unpacked(descriptor, pieces):
            size += len(piece)
            if size > most:
                limit = f"{most} bytes" if most == largest else f"{MOST_RATIO} times its size"
                raise PullError(f"{doing}: unpacked it is over {limit}; split it, or build it smaller")
            yield piece
    except (zlib.error, ZstdError) as error:
        raise PullError(f"{doing}: {error}; build and push the image anew") from None


def _unpacked(descriptor: Descriptor, pieces: Iterator[bytes]) -> Iterator[bytes]:
    packed = descriptor.media_type.rpartition(".")[2]
    if packed.endswith("gzip"):
        return _gzip(pieces)
    if packed.endswith("zstd"):
        return _zstd(pieces)
    if packed.endswith("tar"):
        return pieces
    raise PullError(
        f"cannot use layer {descriptor.digest}: its type {descriptor.media_type[:100]!a} is not known; "
        "build it with gzip or zstd layers"
    )


def _gzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """One gzip member or several, one behind the other: layers that can be read in part have one for each file."""
    inflate = zlib.decompressobj(wbits=31)
    begun = False
    for piece in pieces:
        left = piece
        while left:
            if inflate.eof:
                inflate = zlib.decompressobj(wbits=31)
            if data := inflate.decompress(left, _PIECE):
                yield data
            begun = True
            left = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    while not inflate.eof and (data := inflate.decompress(b"", _PIECE)):
        yield data
    if not (begun and inflate.eof):
        raise zlib.error("its gzip data ends early")


def _zstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    stream = Stream(WINDOW_LOG, _PIECE)
    for piece in pieces:
        yield from stream.feed(piece)
    if not stream.whole:
        raise ZstdError("its zstd data ends early")
