"""A container's root: its own /proc, /sys, /dev and masks on top of its image, then pivot_root.

Done by the container's first process inside its user namespace, so a mistake here costs no more than the
container. Every place inside the image is opened without following links (a stranger wrote them), and mounts go
onto the descriptors.
"""

import contextlib
import os
import stat
from collections.abc import Sequence

from core0.linux import mounts
from core0.template.messages import Go

_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# Hidden: what leaks facts of the node or is a way to it (podman's and Docker's lists).
_MASKED = (
    "acpi",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
_MASKED_SYS = ("firmware", "dev/block", "devices/virtual/powercap")
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_SAFE = mounts.ATTR_NOSUID | mounts.ATTR_NODEV | mounts.ATTR_NOEXEC


def build_root(root: int, go: Go, volumes: Sequence[int] = ()) -> None:
    """Build the container's world on the detached mount `root` and make it the root of this mount namespace.

    Args:
        root: the detached mount.
        go: what the node says.
        volumes: detached mounts for `go.targets`.

    Raises:
        OSError: naming the mount or file that failed.
    """
    mounts.set_propagation_private()
    # A detached mount cannot be mounted upon: it gets a place first. The folder is the node's own, read-only.
    mounts.attach(root, "/newroot")
    base = os.open("/newroot", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name, mode in (("proc", 0o555), ("sys", 0o555), ("dev", 0o755), ("etc", 0o755)):
        _make_folder(base, name, mode)
    _write_files(base, go)
    _place(base, "proc", mounts.create("proc", {}, _SAFE))
    _place(base, "sys", mounts.create("sysfs", {}, _SAFE | mounts.ATTR_RDONLY))
    _place(base, "sys/fs/cgroup", mounts.create("cgroup2", {}, _SAFE | mounts.ATTR_RDONLY))
    _build_dev(base)
    _restrict_proc(base)
    for target, volume in zip(go.targets, volumes, strict=True):
        _place_volume(base, target.removeprefix("/"), volume)
    mounts.pivot_into(base)
    os.close(base)
    os.close(root)


def _place(base: int, name: str, mount: int) -> None:
    """Attach a detached mount at a place inside the root; closes the mount's descriptor."""
    target = mounts.open_in_root(base, name)
    try:
        mounts.attach_at(mount, target, f"/{name}")
    finally:
        os.close(target)
        os.close(mount)


def _place_volume(base: int, target: str, volume: int) -> None:
    """Show a volume at a folder, which is made if the image has none. A link on the way is refused."""
    made = ""
    for part in target.split("/"):
        made = f"{made}/{part}".removeprefix("/")
        try:
            os.close(mounts.open_in_root(base, made, os.O_PATH | os.O_DIRECTORY))
        except FileNotFoundError:
            above = mounts.open_in_root(base, os.path.dirname(made) or ".", os.O_PATH | os.O_DIRECTORY)
            try:
                os.mkdir(part, 0o755, dir_fd=above)
            finally:
                os.close(above)
    _place(base, target, volume)


def _make_folder(base: int, name: str, mode: int) -> None:
    """Make sure of a top-level folder; anything else in its place is refused."""
    try:
        os.mkdir(name, mode, dir_fd=base)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=base, follow_symlinks=False).st_mode):
            raise OSError(f"cannot use the image: its /{name} is no folder") from None


def _write_files(base: int, go: Go) -> None:
    """Host name, hosts and resolver: the image's own copies, if any, are replaced."""
    etc = mounts.open_in_root(base, "etc", os.O_PATH | os.O_DIRECTORY)
    try:
        resolver = f"search {go.search}\nnameserver {go.nameserver}\n"
        _write(etc, "hostname", f"{go.hostname}\n")
        own = f"{go.address} {go.hostname}\n{go.address6} {go.hostname}\n"
        _write(etc, "hosts", f"127.0.0.1 localhost\n::1 localhost\n{own}")
        _write(etc, "resolv.conf", resolver)
    finally:
        os.close(etc)


def _write(folder: int, name: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=folder)
    with open(descriptor, "w") as file:
        file.write(text)


def _build_dev(base: int) -> None:
    """A fresh /dev: six harmless devices of the node, terminals and shared memory of its own."""
    # One copy of each device before anything of the node is out of sight.
    devices = {name: mounts.clone_tree(f"/dev/{name}") for name in _DEVICES}
    options: dict[str, str | None] = {"mode": "0755", "size": "64k"}
    _place(base, "dev", mounts.create("tmpfs", options, mounts.ATTR_NOSUID))
    dev = mounts.open_in_root(base, "dev", os.O_PATH | os.O_DIRECTORY)
    try:
        for name, mount in devices.items():
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=dev))
            _place(base, f"dev/{name}", mount)
        for name, target in _LINKS.items():
            os.symlink(target, name, dir_fd=dev)
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(name, 0o755, dir_fd=dev)
    finally:
        os.close(dev)
    terminals: dict[str, str | None] = {"newinstance": None, "ptmxmode": "0666", "mode": "0620", "gid": "5"}
    _place(base, "dev/pts", mounts.create("devpts", terminals, mounts.ATTR_NOSUID | mounts.ATTR_NOEXEC))
    memory: dict[str, str | None] = {"mode": "1777", "size": "16m"}
    _place(base, "dev/shm", mounts.create("tmpfs", memory, _SAFE))
    _place(base, "dev/mqueue", mounts.create("mqueue", {}, _SAFE))


def _restrict_proc(base: int) -> None:
    """Hide what leaks, make read-only what configures; the kernel may lack some of the names."""
    for name in _READ_ONLY:
        _cover(base, f"proc/{name}", None)
    for name in (*(f"proc/{one}" for one in _MASKED), *(f"sys/{one}" for one in _MASKED_SYS)):
        _cover(base, name, "dev/null")


def _cover(base: int, name: str, by: str | None) -> None:
    """Make `name` read-only in place, or hide it: a folder behind an empty one, a file behind /dev/null."""
    try:
        target = mounts.open_in_root(base, name)
    except FileNotFoundError:
        return
    folder = stat.S_ISDIR(os.fstat(target).st_mode)
    os.close(target)
    if by is None:
        cover = mounts.clone_tree(f"/newroot/{name}")
        mounts.set_attributes(cover, _SAFE | mounts.ATTR_RDONLY)
    elif folder:
        cover = mounts.create("tmpfs", {"size": "4k", "mode": "0000"}, _SAFE | mounts.ATTR_RDONLY)
    else:
        cover = mounts.clone_tree(f"/newroot/{by}")
    _place(base, name, cover)
