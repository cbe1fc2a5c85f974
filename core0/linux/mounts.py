"""Mounts, by the classic calls for PID 1 and by the descriptor-based ones for everything with a tenant in it.

Sources: mount(2), pivot_root(2), mount_setattr(2), open_tree(2), move_mount(2), fsopen(2), fsconfig(2),
fsmount(2), fspick(2), openat2(2) and include/uapi/linux/mount.h.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping

from core0.linux.libc import syscall

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 32, 1024, 4096, 8192, 16384, 1 << 18

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_IDMAP = 1, 2, 4, 8, 0x100000

_MNT_DETACH = 2
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_AT_RECURSIVE, _AT_EMPTY_PATH = 0x8000, 0x1000
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 4, 0x40
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC, _FSPICK_CLOEXEC, _FSPICK_EMPTY_PATH = 1, 1, 1, 8
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE, _FSCONFIG_CMD_RECONFIGURE = 0, 1, 6, 7
_AT_FDCWD = -100
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_IN_ROOT = 1, 2, 4, 0x10


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Attach a file system by paths that only the node controls (mount(2))."""
    what = f"cannot mount {source} on {target}"
    syscall("mount", source, target, kind, flags, data, doing=what)


def unmount(target: str) -> None:
    """Detach the mount at `target` and everything below it, now or when its last user is gone."""
    syscall("umount2", target, _MNT_DETACH, doing=f"cannot unmount {target}")


def unmount_now(target: str) -> None:
    """Detach the mount at `target` if nobody uses it.

    Raises:
        OSError: EBUSY if somebody does.
    """
    syscall("umount2", target, 0, doing=f"cannot unmount {target}")


def set_propagation_private(target: str = "/") -> None:
    """Make every mount below `target` private, so that nothing done here is seen elsewhere."""
    syscall("mount", None, target, None, MS_REC | MS_PRIVATE, None, doing=f"cannot make {target} private")


def create(kind: str, options: Mapping[str, str | None], attributes: int = 0) -> int:
    """A new file system that is attached nowhere yet; returns its mount descriptor.

    Args:
        kind: the file system's name, as in /proc/filesystems.
        options: its mount options; None as a value makes a flag.
        attributes: ATTR_* of the mount.

    Raises:
        OSError: with the kernel's own words from the context's log, where it left any.
    """
    context = syscall("fsopen", kind, _FSOPEN_CLOEXEC, doing=f"cannot open file system type {kind}")
    with _explained(context):
        _set_options(context, kind, options)
        syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0, doing=f"cannot create {kind}")
        return syscall("fsmount", context, _FSMOUNT_CLOEXEC, attributes, doing=f"cannot mount {kind}")


def reconfigure(root: int, kind: str, options: Mapping[str, str | None]) -> None:
    """Change options of a file system that is there; those that are not given stay.

    Args:
        root: a descriptor of the root of one of its mounts, which may be attached nowhere.
        kind: the file system's name, for messages.
        options: as of `create`.

    Raises:
        OSError: with the kernel's own words, where there are any.
    """
    flags = _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH
    context = syscall("fspick", root, "", flags, doing=f"cannot pick {kind}")
    with _explained(context):
        _set_options(context, kind, options)
        syscall("fsconfig", context, _FSCONFIG_CMD_RECONFIGURE, None, None, 0, doing=f"cannot change {kind}")


def _set_options(context: int, kind: str, options: Mapping[str, str | None]) -> None:
    for name, value in options.items():
        command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
        syscall("fsconfig", context, command, name, value, 0, doing=f"cannot set {kind} option {name}")


@contextlib.contextmanager
def _explained(context: int) -> Iterator[None]:
    """Close a file system context in the end; an error gets what the kernel wrote into its log."""
    try:
        yield
    except OSError as error:
        said = _kernel_log(context)
        raise OSError(error.errno, f"{error.strerror}{': ' + said if said else ''}") from None
    finally:
        os.close(context)


def _kernel_log(context: int) -> str:
    """What the kernel wrote into a file system context's log (fsopen(2)), as one line."""
    lines: list[str] = []
    while len(lines) < 8:
        try:
            lines.append(os.read(context, 4096).decode(errors="replace").strip())
        except OSError:
            break
    return "; ".join(lines)


def clone_tree(path: str, *, recursive: bool = False, directory: int = _AT_FDCWD) -> int:
    """A detached copy of the mount at `path` (a bind mount without a place); returns its descriptor."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= _AT_EMPTY_PATH
    return syscall(
        "open_tree", directory, path, flags, doing=f"cannot clone the mount at {path or 'descriptor'}"
    )


def set_attributes(mount: int, attributes: int, *, user_namespace: int = 0, recursive: bool = False) -> None:
    """Set ATTR_* on a mount given by descriptor; with ATTR_IDMAP, map ids by `user_namespace`."""
    attr = _MountAttr(attributes, 0, 0, user_namespace)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attr)
    syscall("mount_setattr", mount, "", flags, ctypes.byref(attr), size, doing="cannot set mount attributes")


def attach(mount: int, target: str) -> None:
    """Attach a detached mount at a path that only the node controls."""
    syscall(
        "move_mount",
        mount,
        "",
        _AT_FDCWD,
        target,
        _MOVE_MOUNT_F_EMPTY_PATH,
        doing=f"cannot attach a mount at {target}",
    )


def attach_at(mount: int, target: int, name: str) -> None:
    """Attach a detached mount onto the file or directory that a descriptor stands for."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", mount, "", target, "", flags, doing=f"cannot attach a mount at {name}")


def attach_below(mount: int, directory: int, name: str) -> None:
    """Attach a detached mount at a path below a directory in which nobody else can have made links."""
    doing = f"cannot attach a mount at {name}"
    syscall("move_mount", mount, "", directory, name, _MOVE_MOUNT_F_EMPTY_PATH, doing=doing)


def open_in_root(
    root: int, path: str, flags: int = os.O_PATH, mode: int = 0, *, same_mount: bool = False
) -> int:
    """Open `path` as if the directory `root` were /, following no link: for trees that a tenant wrote.

    Raises:
        OSError: ELOOP if the path has a symbolic link in it, EXDEV if it leads to another mount and must not, besides
            the usual ones.
    """
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS
    if same_mount:
        resolve |= _RESOLVE_NO_XDEV
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    what = f"cannot open {path} in the container's root"
    return syscall("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how), doing=what)


def pivot_into(root: int) -> None:
    """Make the mount `root` this mount namespace's root and detach the old one (pivot_root(2))."""
    os.fchdir(root)
    syscall("pivot_root", ".", ".", doing="cannot pivot into the new root")
    unmount(".")
    os.chdir("/")
