"""What libc keeps of this process's memory (mallopt(3), malloc_trim(3))."""

import ctypes

_libc = ctypes.CDLL(None)
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def share_heap() -> None:
    """Have threads take memory from the heap that is there: one of their own is more to make, and more memory.

    The interpreter lets one thread run at a time, so none waits for another's.
    """
    _libc.mallopt(_ARENA_MAX, 1)


def release() -> None:
    """Give the kernel back what libc keeps for later (malloc_trim(3)): a connection's 100 KiB, for one."""
    _libc.malloc_trim(ctypes.c_size_t(0))
