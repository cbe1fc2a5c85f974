"""Namespaces and processes in them: clone3(2), setns(2), unshare(2), user id maps (user_namespaces(7))."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

from core0.linux import files
from core0.linux.libc import syscall

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
_CLONE_PARENT, _CLONE_PIDFD = 0x00008000, 0x00001000
_CLONE_INTO_CGROUP = 0x200000000

CONTAINER = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


def fork_into(cgroup: int, namespaces: int = 0, *, sibling: bool = False) -> int:
    """Fork a single-threaded process into a cgroup and new namespaces.

    Moving a process later, by cgroup.procs, makes it wait for an RCU grace period: tens of milliseconds.

    Args:
        cgroup: descriptor of the cgroup's folder (CLONE_INTO_CGROUP).
        namespaces: NEW* flags.
        sibling: as a child of this process's parent. CLONE_PARENT takes the parent's exit signal (clone(2)).

    Returns:
        0 in the child; in the caller the child's pid.
    """
    arguments = _CloneArgs(
        flags=namespaces | _CLONE_INTO_CGROUP | (_CLONE_PARENT if sibling else 0),
        exit_signal=0 if sibling else signal.SIGCHLD,
        cgroup=cgroup,
    )
    size = ctypes.sizeof(arguments)
    before, child, parent = (
        ctypes.pythonapi.PyOS_BeforeFork,
        ctypes.pythonapi.PyOS_AfterFork_Child,
        ctypes.pythonapi.PyOS_AfterFork_Parent,
    )
    before()
    try:
        pid = syscall("clone3", ctypes.byref(arguments), size, doing="cannot fork", locked=True)
    except OSError:
        parent()
        raise
    if pid == 0:
        child()
    else:
        parent()
    return pid


def write_id_maps(pid: int, first: int, count: int) -> None:
    """Map ids 0 … count-1 of the process's user namespace to first … first+count-1 outside."""
    for name in ("uid_map", "gid_map"):
        files.write(f"/proc/{pid}/{name}", f"0 {first} {count}\n")


def open_namespace(pid: int, kind: str) -> int:
    """A descriptor of one of a process's namespaces (`user`, `net`, … as in /proc/<pid>/ns)."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def leave(kinds: int) -> None:
    """Give this process namespaces of its own (unshare(2)); kinds are NEW* flags."""
    syscall("unshare", kinds, doing="cannot leave the namespaces")


def enter(namespace: int, kind: int) -> None:
    """Move the calling thread into a namespace (setns(2)); kind is its NEW* flag."""
    syscall("setns", namespace, kind, doing="cannot enter the namespace")


@contextlib.contextmanager
def inside_network(namespace: int) -> Iterator[None]:
    """The calling thread in another network namespace for a moment: what it opens there stays there.

    A process that could not come back would go on in somebody else's network: it ends instead.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(namespace, NEWNET)
        try:
            yield
        finally:
            _return(own)
    finally:
        os.close(own)


def _return(own: int) -> None:
    try:
        enter(own, NEWNET)
    except OSError as error:
        os.write(2, f"cannot go on in another network namespace: {error.strerror}\n".encode())
        os._exit(1)
