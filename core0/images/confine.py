"""The puller's own container: what a stranger's bytes could take over has nothing but its work folder.

All of it is done without privilege, by the rights of a user namespace of the puller's own: what the node has in
memory and below /proc, /sys and /dev is covered, other processes are in other namespaces, and what could undo it is
given up (capabilities, new privileges), forbidden (a filter of system calls) or refused (Landlock) before the first
byte comes. The network is the node's: registries are there. Memory and processes are limited by the cgroup that it is
started in.

Sources: user_namespaces(7), pid_namespaces(7), mount_setattr(2), landlock(7), seccomp(2).
"""

import os
import resource
import signal

from core0.linux import files, mounts, namespaces, privileges
from core0.linux.libc import prctl
from core0.wire import paths

# Where it has its work folder.
WORK = "/run/pull"
_COVERED = ("/dev", "/proc", "/run", "/sys", "/tmp")  # noqa: S108 — they are what is hidden
# What it needs of them: name servers, how much memory is left, and where its programs' words go.
_KEPT = (paths.RESOLVER, "/proc/meminfo", "/dev/null")
_READABLE = ("/etc", "/usr", "/run", "/proc")
_NAMESPACES = (
    namespaces.NEWUSER
    | namespaces.NEWNS
    | namespaces.NEWPID
    | namespaces.NEWIPC
    | namespaces.NEWUTS
    | namespaces.NEWCGROUP
)
_SAFE = mounts.ATTR_NODEV | mounts.ATTR_NOSUID | mounts.ATTR_NOEXEC
_DESCRIPTORS = 256
_PR_SET_PDEATHSIG = 1


def confine(folder: str) -> None:
    """Go on as the first process of a container of its own, whose work folder is the current one.

    The process that called waits for it, and ends as it does. There must be one thread.

    Args:
        folder: the work folder.

    Raises:
        OSError: a step of it failed, which leaves the process unfit for anything but to end.
    """
    system_calls = files.read(paths.PULL_SECCOMP)
    user, group = os.geteuid(), os.getegid()
    namespaces.leave(_NAMESPACES)
    files.write("/proc/self/setgroups", "deny")
    files.write("/proc/self/uid_map", f"{user} {user} 1")
    files.write("/proc/self/gid_map", f"{group} {group} 1")
    mounts.set_propagation_private()
    _cover(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    child = os.fork()  # a process enters a namespace of processes by its birth
    if child:
        _end_with(child)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, doing="cannot end with the process before")
    privileges.join_new_keyring()
    privileges.keep_capabilities(())
    privileges.forbid_new_privileges()
    privileges.confine_files(_READABLE, (WORK, "/dev/null"))
    privileges.install_seccomp(system_calls)


def _end_with(child: int) -> None:
    """Wait for the container, with nothing open that it could wait for."""
    privileges.keep_capabilities(())
    privileges.forbid_new_privileges()
    os.closerange(0, 1 << 20)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _cover(folder: str) -> None:
    """Hide what the node keeps in memory, but for the work folder and what pulling needs."""
    work = mounts.clone_tree(folder)
    kept = {path: mounts.clone_tree(path) for path in _KEPT if os.path.exists(path)}  # noqa: PTH110 — this is it
    for place in _COVERED:
        cover = mounts.create("tmpfs", {"size": "64k", "mode": "0755"}, _SAFE)
        mounts.attach(cover, place)
        os.close(cover)
    for path, mount in kept.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        mounts.attach(mount, path)
        os.close(mount)
    os.mkdir(WORK)  # noqa: PTH102
    mounts.set_attributes(work, _SAFE)
    mounts.attach(work, WORK)
    os.close(work)
    os.chdir(WORK)
