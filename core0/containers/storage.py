"""The file system that a container's files lie in, changed while it runs.

It is mounted nowhere: only the overlay of the container's root uses it. So the container's first process keeps a
descriptor of a folder of it that it may not enter (`rootfs.Root.work`), for as long as it lives and whoever is the
node daemon. That process is not trusted: what is taken for the folder is known by its device and number.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from core0.containers.model import Record
from core0.linux import mounts

Place = tuple[int, int]
_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def place_of(work: int) -> Place:
    """How to know a folder again."""
    status = os.fstat(work)
    return status.st_dev, status.st_ino


def used(record: Record) -> int:
    """Bytes of files that a container has. Raises OSError: its first process has closed the way to them."""
    with _opened(record) as root:
        figures = os.fstatvfs(root)
        return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def resize(record: Record, size_mib: int) -> None:
    """Let a container have so many files from now on. Raises OSError: as `used`, or it has more than that."""
    with _opened(record) as root:
        mounts.reconfigure(root, "tmpfs", {"size": f"{size_mib}m"})


@contextlib.contextmanager
def _opened(record: Record) -> Iterator[int]:
    """The file system's root."""
    work = _open_held(record)
    try:
        root = os.open("..", _FLAGS, dir_fd=work)
    finally:
        os.close(work)
    try:
        yield root
    finally:
        os.close(root)


def _open_held(record: Record) -> int:
    """The folder, by the descriptors of the first process. Opening them by O_PATH has no effect on what they are.

    What is none of it is closed at once: that process may hold more folders than the node daemon may have open.
    """
    for held in Path(f"/proc/{record.pid}/fd").iterdir():
        with contextlib.suppress(
            FileNotFoundError, NotADirectoryError
        ):  # closed meanwhile, or something else
            folder = os.open(held, _FLAGS)
            if place_of(folder) == record.storage:
                return folder
            os.close(folder)
    raise OSError("its first process does not hold them any more")
