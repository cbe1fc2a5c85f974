"""Pieces of this machine for a test alone: a fresh network namespace, file systems in files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_IN_NAMESPACE = "import ctypes\nassert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0\n"


@pytest.fixture
def in_fresh_network() -> Callable[[str], None]:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", _IN_NAMESPACE + code], check=True, timeout=60)

    return run


class Loop:
    """A file system of its own in a file, mounted; more of them may live side by side.

    Attributes:
        file: where its bytes are.
        place: where it is mounted.
    """

    def __init__(self, folder: Path, name: str = "disk", size: int = 4 << 30) -> None:
        self.file, self.place = folder / f"{name}.img", folder / name
        self.place.mkdir()
        with self.file.open("wb") as new:
            new.truncate(size)
        subprocess.run(["mkfs.btrfs", "--quiet", self.file], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        """Mount it, as at the beginning."""
        subprocess.run(["mount", "-o", "loop", self.file, self.place], check=True)

    def unmount(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", self.place], check=True)

    def end(self) -> None:
        """Unmount it whatever happened; its file stays for pytest to remove."""
        while self.place.is_mount():
            subprocess.run(["umount", "--lazy", self.place], check=True)


@pytest.fixture
def make_btrfs(tmp_path: Path) -> Iterator[Callable[..., Loop]]:
    """Makes mounted file systems that end with the test."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or not shutil.which("mkfs.btrfs"):
        pytest.skip("needs root, loop devices and Debian's btrfs-progs")
    made: list[Loop] = []

    def make(name: str = "disk", size: int = 4 << 30) -> Loop:
        made.append(Loop(tmp_path, name, size))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def btrfs_disk(make_btrfs: Callable[..., Loop]) -> Loop:
    """One mounted file system."""
    return make_btrfs()
