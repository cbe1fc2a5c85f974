"""Unpacks Zstandard data piece by piece, by the image's libzstd.

Python has a module for it from 3.14 on. The library is in the root already; by ctypes it costs nothing more.

Source: zstd.h of libzstd 1.5, "Streaming decompression"; RFC 8878.
"""

import ctypes
from collections.abc import Iterator
from functools import cache

# ZSTD_d_windowLogMax (zstd.h): the largest window whose memory is given to a frame, as a power of two.
_WINDOW_LOG_MAX = 100


class ZstdError(Exception):
    """The data cannot be unpacked; the message is libzstd's."""


class _In(ctypes.Structure):
    _fields_ = (("src", ctypes.c_char_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


class _Out(ctypes.Structure):
    _fields_ = (("dst", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t))


class Stream:
    """One stream of frames, one behind the other.

    Args:
        window_log: the largest window of a frame, as a power of two; this much memory may be taken.
        largest: most bytes of a piece that comes out.

    Attributes:
        whole: whether what was fed ends with the end of a frame.
    """

    def __init__(self, window_log: int, largest: int) -> None:
        self._library = _load()
        self._context = ctypes.c_void_p(self._library.ZSTD_createDStream())
        if not self._context:
            raise MemoryError("cannot unpack zstd: no memory for its state")
        self._room = ctypes.create_string_buffer(largest)
        self.whole = False
        self._checked(self._library.ZSTD_DCtx_setParameter(self._context, _WINDOW_LOG_MAX, window_log))

    def __del__(self) -> None:
        if context := getattr(self, "_context", None):
            self._library.ZSTD_freeDStream(context)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack more. Raises ZstdError."""
        given = _In(data, len(data), 0)
        while True:
            out = _Out(ctypes.addressof(self._room), len(self._room), 0)
            left = self._library.ZSTD_decompressStream(self._context, ctypes.byref(out), ctypes.byref(given))
            self.whole = self._checked(left) == 0
            if out.pos:
                yield ctypes.string_at(self._room, out.pos)
            if given.pos == given.size and (self.whole or out.pos < out.size):
                return

    def _checked(self, answer: int) -> int:
        if self._library.ZSTD_isError(answer):
            raise ZstdError(self._library.ZSTD_getErrorName(answer).decode())
        return answer


@cache
def _load() -> ctypes.CDLL:
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
    library.ZSTD_DCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Out), ctypes.POINTER(_In)]
    library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    for name in ("ZSTD_DCtx_setParameter", "ZSTD_decompressStream"):
        getattr(library, name).restype = ctypes.c_size_t
    return library
