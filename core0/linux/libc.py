"""The one door to libc: typed calls that raise OSError with the failing operation in the message."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter's lock: a raw clone must not let another thread run between its two halves.
_libc_locked = ctypes.PyDLL(None, use_errno=True)
# Six arguments always: what ctypes converts by itself needs no object for each, and a system call ignores the rest.
_MOST = 6
for _library in (_libc, _libc_locked):
    _library.syscall.restype = ctypes.c_long
    _library.syscall.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * _MOST)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)

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
        "inotify_add_watch": 254,
        "inotify_rm_watch": 255,
        "inotify_init1": 294,
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
        "inotify_add_watch": 27,
        "inotify_rm_watch": 28,
        "inotify_init1": 26,
    },
}
_SHARED = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_NUMBERS = _PER_ARCHITECTURE.get(os.uname().machine, {}) | _SHARED


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
    if name not in _NUMBERS:
        raise OSError(f"no number known for system call {name} on {os.uname().machine}")
    library = _libc_locked if locked else _libc
    given = [os.fsencode(value) if isinstance(value, str) else value for value in arguments]
    result: int = library.syscall(_NUMBERS[name], *given, *(None,) * (_MOST - len(given)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing or name}: {os.strerror(number)}")
    return result


def in_words(error: BaseException) -> str:
    """What went wrong, with the file if one is to blame, without the number that the kernel has for it."""
    words = getattr(error, "strerror", None) or str(error)
    file = getattr(error, "filename", None)
    return f"{file}: {words}" if file else words


def prctl(option: int, *arguments: int, doing: str) -> int:
    """Read or change an attribute of this process; an OSError starts with `doing`."""
    result: int = _libc.prctl(option, *arguments, *(0,) * (4 - len(arguments)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
    return result
