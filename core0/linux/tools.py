"""The storage part of the image: drivers, programs and libraries of disks, containers and time.

One EROFS file of the image, mounted at its first use, because most of a boot and many nodes need nothing of it
(docs/image.md, "The storage part").
"""

import ctypes
import errno
import fcntl
import os

from core0.linux import mounts
from core0.linux.modules import ROOT, Modules
from core0.wire import paths

_FOLDERS = ("usr/sbin", "usr/bin")
_loaded: set[str] = set()
# By a module's name what it is to be told: bonding makes a bond0 of its own else.
_PARAMETERS = {"bonding": "max_bonds=0"}
_ATTRIBUTES = mounts.MS_RDONLY | mounts.MS_NOSUID | mounts.MS_NODEV


def mount_tools(modules: Modules | None = None) -> None:
    """Have the storage part mounted. Processes may call it at the same time and as often as they like.

    Args:
        modules: whose indexes to load the file system's driver by; the image's if there is none.

    Raises:
        OSError: the image has no storage part, or the kernel refuses it.
    """
    try:
        descriptor = os.open(paths.STORAGE_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot mount the storage part: {paths.STORAGE_FILE}: {error.strerror}"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # of two at once, the second finds it mounted
        if not os.path.ismount(paths.STORAGE):
            (modules or Modules.of_running_kernel()).load("erofs")
            mounts.mount(paths.STORAGE_FILE, paths.STORAGE, "erofs", _ATTRIBUTES)
    finally:
        os.close(descriptor)


def all_modules() -> Modules:
    """The image's kernel modules and those of the storage part, which must be mounted."""
    return Modules.of_running_kernel(ROOT, paths.STORAGE + ROOT)


def load_modules(names: tuple[str, ...]) -> None:
    """Load modules of the image, the storage part's included, each after the ones it needs.

    What this process loaded already is not looked for again. A machine without that part, which is none of ours, has
    its modules in its root.

    Raises:
        OSError: naming the one that is not there, or that the kernel refused.
    """
    missing = [name for name in names if name not in _loaded]
    if not missing:
        return
    if os.path.exists(paths.STORAGE_FILE):
        mount_tools()
    modules = all_modules()
    modules.parameters.update(_PARAMETERS)
    for name in missing:
        modules.load(name)
        _loaded.add(name)


def library(name: str, *needed: str) -> ctypes.CDLL:
    """Open a library of the storage part, or of this machine where that is not mounted.

    Args:
        name: its file name.
        needed: those that it needs and the root does not have, each after its own: no path of the loader leads there.
    """
    folder = f"{paths.STORAGE}/{_libraries()}"
    *_, opened = (
        ctypes.CDLL(path if os.path.exists(path := f"{folder}/{one}") else one, use_errno=True)
        for one in (*needed, name)
    )
    return opened


def _libraries() -> str:
    return f"usr/lib/{os.uname().machine}-linux-gnu"


def tool(name: str) -> str:
    """The path of a program of the storage part.

    Raises:
        FileNotFoundError: it has none of this name, or is not mounted.
    """
    for folder in _FOLDERS:
        path = f"{paths.STORAGE}/{folder}/{name}"
        if os.path.exists(path):
            return path
    what = f"cannot find the program {name}: {paths.STORAGE} has none; mount_tools mounts it"
    raise FileNotFoundError(errno.ENOENT, what)


def environment() -> dict[str, str]:
    """The whole environment for programs of the storage part: where their libraries are, and plain English."""
    return {
        "PATH": ":".join(f"{paths.STORAGE}/{folder}" for folder in _FOLDERS),
        "LD_LIBRARY_PATH": f"{paths.STORAGE}/{_libraries()}",
        "LC_ALL": "C.UTF-8",
        "DM_DISABLE_UDEV": "1",  # the device mapper makes its nodes itself
    }
