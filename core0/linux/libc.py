"""The one door to libc: typed calls that raise OSError with the failing operation in the message."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter's lock: a raw clone must not let another thread run between its two halves.
_libc_locked = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc_locked.syscall.restype = ctypes.c_long

# Numbers below 424 differ between architectures, those from 424 on are shared (asm-generic/unistd.h).
_PER_ARCHITECTURE = {
    "x86_64": {
        "pivot_root": 155,
        "mount": 165,
        "umount2": 166,
        "reboot": 169,
        "keyctl": 250,
        "finit_module": 313,
        "capset": 126,
        "renameat2": 316,
        "seccomp": 317,
        "setns": 308,
        "unshare": 272,
    },
    "aarch64": {
        "pivot_root": 41,
        "mount": 40,
        "umount2": 39,
        "reboot": 142,
        "keyctl": 219,
        "finit_module": 273,
        "capset": 91,
        "renameat2": 276,
        "seccomp": 277,
        "setns": 268,
        "unshare": 97,
    },
}
_SHARED = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}


def _number(name: str) -> int:
    try:
        return _SHARED.get(name) or _PER_ARCHITECTURE[os.uname().machine][name]
    except KeyError:
        raise OSError(f"no number known for system call {name} on {os.uname().machine}") from None


def _argument(value: object) -> object:
    if isinstance(value, int):
        return ctypes.c_long(value)
    if isinstance(value, str):
        return os.fsencode(value)
    return value


def syscall(name: str, *arguments: object, doing: str = "", locked: bool = False) -> int:
    """Call the kernel by system call name; arguments are ints, strings, bytes, ctypes references or None.

    Args:
        name: the system call, as in syscalls(2).
        arguments: what it takes, in its order.
        doing: what the call is for; it starts the error message.
        locked: hold the interpreter's lock during the call.

    Raises:
        OSError: with the kernel's errno and a message that starts with `doing` or the call's name.
    """
    library = _libc_locked if locked else _libc
    result: int = library.syscall(ctypes.c_long(_number(name)), *map(_argument, arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing or name}: {os.strerror(number)}")
    return result


def prctl(option: int, *arguments: int, doing: str) -> int:
    """Read or change an attribute of this process; an OSError starts with `doing`."""
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _libc.prctl(ctypes.c_int(option), *padded)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
    return result
