"""Device nodes of disks: taken away from a disk that hangs, so that no program opens it by chance.

Programs that look for their file systems open every disk that has a node (mkfs.btrfs does), and whoever opens one
that does not answer waits for it and cannot be killed. The kernel makes each node once, on devtmpfs.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from core0.linux import files

_MODE = stat.S_IFBLK | 0o600


def hide(disk: str, dev: str = "/dev", sys: str = "/sys") -> None:
    """Take away the nodes of a disk and of its partitions."""
    for name, _ in _devices(disk, sys):
        with suppress(FileNotFoundError):
            os.unlink(f"{dev}/{name}")


def show(disk: str, dev: str = "/dev", sys: str = "/sys") -> None:
    """Give a disk and its partitions their nodes back, if they have none."""
    for name, number in _devices(disk, sys):
        with suppress(FileExistsError):
            os.mknod(f"{dev}/{name}", _MODE, number)


def _devices(disk: str, sys: str) -> Iterator[tuple[str, int]]:
    """The disk and its partitions with their device numbers; nothing of a disk that has gone."""
    block = f"{sys}/block/{disk}"
    with suppress(FileNotFoundError):
        for name, folder in (
            (disk, block),
            *((name, f"{block}/{name}") for name in sorted(os.listdir(block))),
        ):
            if name.startswith(disk):
                major, _, minor = files.read_text(f"{folder}/dev").strip().partition(":")
                yield name, os.makedev(int(major), int(minor))
