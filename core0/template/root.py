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
from core0.wire.types import SecretFile, TmpfsMount

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
# Where a container sees its secrets.
_SECRETS = "run/secrets"
_PAGE = 4096
_SAFE = mounts.ATTR_NOSUID | mounts.ATTR_NODEV | mounts.ATTR_NOEXEC


def build_root(root: int, go: Go, volumes: Sequence[int] = (), secrets: Sequence[int] = ()) -> None:
    """Build the container's world on the detached mount `root` and make it the root of this mount namespace.

    Args:
        root: the detached mount.
        go: what the node says.
        volumes: detached mounts for `go.targets`.
        secrets: files to read for `go.secrets`.

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
    _show_kernel(base)
    for target, volume in zip(go.targets, volumes, strict=True):
        _give_to_image(base, target.removeprefix("/"), volume)
        _place_volume(base, target.removeprefix("/"), volume)
    for one in go.tmpfs:
        _place_volume(base, one.target.removeprefix("/"), _make_tmpfs(one))
    if go.secrets:
        _place_volume(base, _SECRETS, _make_secrets(go.secrets, secrets))
    if go.read_only:
        mounts.set_attributes(root, mounts.ATTR_RDONLY)
    mounts.pivot_into(base)
    os.close(base)
    os.close(root)


def open_cgroup() -> int:
    """The container's cgroup as a mount that is attached nowhere: for Core-X alone, which may divide it.

    What is above it is out of reach: the cgroup namespace ends there. The container's processes see another mount of
    it, which cannot be written to, and what it allows the container is the node's to change.
    """
    return mounts.create("cgroup2", {}, _SAFE)


def _show_kernel(base: int) -> None:
    """The container's own /proc, /sys and /dev. Nobody else has been in them: no path there leads astray."""
    with contextlib.ExitStack() as opened:

        def show(name: str, mount: int) -> int:
            opened.callback(os.close, mount)
            _show(base, name, mount)
            return mount

        proc = show("proc", mounts.create("proc", {}, _SAFE))
        sys = show("sys", mounts.create("sysfs", {}, _SAFE | mounts.ATTR_RDONLY))
        dev = show("dev", mounts.create("tmpfs", {"mode": "0755", "size": "64k"}, mounts.ATTR_NOSUID))
        _attach(mounts.create("cgroup2", {}, _SAFE | mounts.ATTR_RDONLY), sys, "fs/cgroup")
        _build_dev(dev)
        _restrict(proc, sys, dev)


def _place(base: int, name: str, mount: int) -> None:
    """Attach a detached mount at a place inside the root; closes the mount's descriptor."""
    try:
        _show(base, name, mount)
    finally:
        os.close(mount)


def _show(base: int, name: str, mount: int) -> None:
    target = mounts.open_in_root(base, name)
    try:
        mounts.attach_at(mount, target, f"/{name}")
    finally:
        os.close(target)


def _attach(mount: int, directory: int, name: str) -> None:
    """Attach a detached mount in a file system of the kernel's; closes the mount's descriptor."""
    try:
        mounts.attach_below(mount, directory, name)
    finally:
        os.close(mount)


def _give_to_image(base: int, target: str, volume: int) -> None:
    """An empty volume takes owner and mode of the folder that it covers: an image's own user shall write to it.

    One that has files, or that somebody else than the container's root has already, stays as it is.
    """
    try:
        folder = mounts.open_in_root(base, target, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    wanted = os.fstat(folder)
    os.close(folder)
    if not os.fstatvfs(volume).f_flag & os.ST_RDONLY and _is_new(volume):
        os.chown(".", wanted.st_uid, wanted.st_gid, dir_fd=volume)
        os.chmod(".", stat.S_IMODE(wanted.st_mode), dir_fd=volume)


def _is_new(volume: int) -> bool:
    """Whether a volume is as it was made: without a file, the container's root's."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=volume)
    try:
        there = os.fstat(folder)
        return (there.st_uid, there.st_gid) == (0, 0) and not os.listdir(folder)
    finally:
        os.close(folder)


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


def _make_tmpfs(wanted: TmpfsMount) -> int:
    """Files in memory: the container's own, as it makes them, so they are counted as its memory."""
    options: dict[str, str | None] = {"size": f"{wanted.size_mib}m", "mode": f"{wanted.mode:04o}"}
    return mounts.create("tmpfs", options, _SAFE & ~mounts.ATTR_NOEXEC if wanted.executable else _SAFE)


def _make_secrets(wanted: Sequence[SecretFile], contents: Sequence[int]) -> int:
    """A read-only file system in memory with the secrets. Core-X never has them: the kernel copies them."""
    sizes = [os.fstat(content).st_size for content in contents]
    pages = 1 + len(sizes) + sum(-(-size // _PAGE) for size in sizes)
    mount = mounts.create("tmpfs", {"size": str(pages * _PAGE), "mode": "0755"}, _SAFE)
    for one, content, size in zip(wanted, contents, sizes, strict=True):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(one.file or one.secret, flags, 0o600, dir_fd=mount)
        done = 0
        while done < size:
            done += os.sendfile(file, content, done, size - done)
        os.fchown(file, one.uid, one.gid)
        os.fchmod(file, one.mode)
        os.close(file)
        os.close(content)
    mounts.set_attributes(mount, _SAFE | mounts.ATTR_RDONLY)
    return mount


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
        names = " ".join(dict.fromkeys((go.hostname, go.hostname.partition(".")[0])))
        own = f"{go.address} {names}\n{go.address6} {names}\n"
        _write(etc, "hosts", f"127.0.0.1 localhost\n::1 localhost\n{own}")
        _write(etc, "resolv.conf", resolver)
    finally:
        os.close(etc)


def _write(folder: int, name: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o644, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _build_dev(dev: int) -> None:
    """A fresh /dev: six harmless devices of the node, terminals and shared memory of its own."""
    for name in _DEVICES:
        os.mknod(name, stat.S_IFREG | 0o666, dir_fd=dev)
        _attach(mounts.clone_tree(f"/dev/{name}"), dev, name)
    for name, target in _LINKS.items():
        os.symlink(target, name, dir_fd=dev)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, 0o755, dir_fd=dev)
    terminals: dict[str, str | None] = {"newinstance": None, "ptmxmode": "0666", "mode": "0620", "gid": "5"}
    _attach(mounts.create("devpts", terminals, mounts.ATTR_NOSUID | mounts.ATTR_NOEXEC), dev, "pts")
    _attach(mounts.create("tmpfs", {"mode": "1777", "size": "16m"}, _SAFE), dev, "shm")
    _attach(mounts.create("mqueue", {}, _SAFE), dev, "mqueue")


def _restrict(proc: int, sys: int, dev: int) -> None:
    """Make read-only what configures, hide what leaks; the kernel may lack some of the names."""
    for name in _READ_ONLY:
        with contextlib.suppress(FileNotFoundError):
            cover = mounts.clone_tree(name, directory=proc)
            mounts.set_attributes(cover, _SAFE | mounts.ATTR_RDONLY)
            _attach(cover, proc, name)
    made: dict[bool, tuple[int, str]] = {}
    for folder, name in (*((proc, one) for one in _MASKED), *((sys, one) for one in _MASKED_SYS)):
        with contextlib.suppress(FileNotFoundError):
            is_folder = stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            _attach(_make_cover(is_folder, made, dev), folder, name)
            made.setdefault(is_folder, (folder, name))


def _make_cover(is_folder: bool, made: dict[bool, tuple[int, str]], dev: int) -> int:
    """What hides a folder, an empty one, or a file, /dev/null: a copy of the one that is in its place already."""
    if is_folder in made:
        folder, name = made[is_folder]
        return mounts.clone_tree(name, directory=folder)
    if is_folder:
        return mounts.create("tmpfs", {"size": "4k", "mode": "0000"}, _SAFE | mounts.ATTR_RDONLY)
    cover = mounts.clone_tree("null", directory=dev)
    # not nodev: the device that hides the file shall open, and be empty
    mounts.set_attributes(cover, mounts.ATTR_NOSUID | mounts.ATTR_NOEXEC | mounts.ATTR_RDONLY)
    return cover
