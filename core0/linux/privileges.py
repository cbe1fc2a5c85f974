"""Giving up privileges for good: capabilities, no_new_privs, seccomp, keyring, Landlock.

Sources: capabilities(7), prctl(2), seccomp(2), keyctl(2), landlock(7).
"""

import ctypes
import os
from collections.abc import Collection, Iterable

from core0.linux.libc import prctl, syscall

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_SECCOMP_SET_MODE_FILTER = 1
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 40

CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "SYS_CHROOT": 18,
    "SYS_ADMIN": 21,
    "MKNOD": 27,
    "SETFCAP": 31,
}


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_new_privileges() -> None:
    """No exec from here on gives more privileges (PR_SET_NO_NEW_PRIVS)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1, doing="cannot set no_new_privs")


def hide_process() -> None:
    """Close this process's /proc entries and ptrace to others (PR_SET_DUMPABLE 0)."""
    prctl(_PR_SET_DUMPABLE, 0, doing="cannot clear dumpable")


def bound_capabilities(names: Collection[str]) -> None:
    """Let no exec of this thread or its children ever give other capabilities than the named ones."""
    kept = {CAPABILITIES[name] for name in names}
    for number in range(_LAST_CAPABILITY + 1):
        if number not in kept:
            prctl(_PR_CAPBSET_DROP, number, doing="cannot drop a capability from the bounding set")


def keep_capabilities(names: Collection[str], bound: Collection[str] | None = None) -> None:
    """Reduce the bounding, permitted, effective, inheritable and ambient sets of this thread.

    Args:
        names: stay permitted and effective in a thread that has them; none stays inheritable or ambient.
        bound: what an exec may give; the same if it is not said.
    """
    bound_capabilities(names if bound is None else bound)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, doing="cannot clear ambient capabilities")
    mask = sum(1 << CAPABILITIES[name] for name in names)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    syscall("capset", ctypes.byref(header), ctypes.byref(data), doing="cannot reduce capabilities")


def become_user(uid: int, gid: int) -> None:
    """Change to a user without supplementary groups, for good."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def join_new_keyring() -> None:
    """A session keyring of one's own, so that the parent's keys are out of reach."""
    syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None, doing="cannot join a new session keyring")


def install_seccomp(program: bytes) -> None:
    """Install a ready filter: an array of struct sock_filter in the machine's byte order.

    Raises:
        ValueError: if the bytes are no whole number of instructions, or none.
        OSError: if the kernel refuses the filter.
    """
    length, rest = divmod(len(program), 8)
    if rest or not 0 < length <= 4096:
        raise ValueError(f"cannot install seccomp filter: {len(program)} bytes are no BPF program")
    fprog = _SockFprog(length, program)
    syscall(
        "seccomp", _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(fprog), doing="cannot install seccomp filter"
    )


class _LandlockRuleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _LandlockPath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


_LANDLOCK_ALL_ABI1 = (1 << 13) - 1
_LANDLOCK_READ = (1 << 0) | (1 << 2) | (1 << 3)  # execute, read file, read directory
# Everything but making device nodes; of these what can be said of a single file, which is not executed.
_LANDLOCK_WRITE = _LANDLOCK_ALL_ABI1 & ~(1 << 6 | 1 << 11)
_LANDLOCK_OF_FILES = (1 << 1) | (1 << 2)
_LANDLOCK_RULE_PATH_BENEATH = 1


def confine_files(readable: Iterable[str], writable: Iterable[str] = ()) -> None:
    """Let this process open only what lies below the named folders (Landlock, ABI 1).

    Needs no_new_privs. Descriptors that are open already are not affected.

    Args:
        readable: folders whose files may be read and executed.
        writable: folders, and single files, that may be changed as well.
    """
    ruleset = _LandlockRuleset(_LANDLOCK_ALL_ABI1)
    size = ctypes.sizeof(ruleset)
    what = "cannot confine files by Landlock"
    handle = syscall("landlock_create_ruleset", ctypes.byref(ruleset), size, 0, doing=what)
    try:
        rules = [(folder, _LANDLOCK_READ) for folder in readable]
        rules += [(path, _LANDLOCK_WRITE if os.path.isdir(path) else _LANDLOCK_OF_FILES) for path in writable]
        for path, access in rules:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = _LandlockPath(access, parent)
            syscall(
                "landlock_add_rule", handle, _LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0, doing=what
            )
            os.close(parent)
        syscall("landlock_restrict_self", handle, 0, doing=what)
    finally:
        os.close(handle)
