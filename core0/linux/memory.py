"""Memory that is free within this process, and might be free for all."""

import ctypes

_libc = ctypes.CDLL(None)


def release() -> None:
    """Give the kernel back what libc keeps for later (malloc_trim(3)): for after large work that comes once."""
    _libc.malloc_trim(ctypes.c_size_t(0))
