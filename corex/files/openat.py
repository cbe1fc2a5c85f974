"""openat2(2): opening a path with a say in how the kernel resolves it. Python has no such call."""

import ctypes
import errno
import os
import struct

# struct open_how: flags, mode, resolve; the number is the same on all architectures.
_OPENAT2, _HOW = 437, struct.Struct("=QQQ")
# linux/openat2.h, RESOLVE_*
NO_XDEV, NO_MAGIC_LINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 1, 2, 4, 8, 0x10
# Paths from the thread's own working directory and root on.
AT_FDCWD = -100
# A '..' during a rename: the kernel does not know, and asks for another try.
_TRIES = 32

_libc = ctypes.CDLL(None, use_errno=True)


def openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    """Open a path; the descriptor.

    Args:
        folder: a descriptor of the folder where the path begins, or `AT_FDCWD`.
        path: absolute ones begin there, too, with `IN_ROOT`.
        flags: as in open(2); O_PATH goes with few others.
        resolve: what must not be on the way.

    Raises:
        OSError: ELOOP for a link that is not followed, EXDEV for what leads outside.
    """
    how = _HOW.pack(flags, 0, resolve)
    number, place, size = ctypes.c_long(_OPENAT2), ctypes.c_long(folder), ctypes.c_size_t(len(how))
    for _ in range(_TRIES):
        descriptor: int = _libc.syscall(number, place, path, how, size)
        if descriptor >= 0:
            return descriptor
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
