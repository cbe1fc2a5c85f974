"""A container's files, without the container."""

import os
from collections.abc import Iterator

import pytest

from core0.linux import mounts


class Files:
    """A tmpfs that is mounted nowhere, as that of a container's files.

    Attributes:
        work: the folder by which it is reached.
    """

    def __init__(self, size_mib: int) -> None:
        self._mount = mounts.create("tmpfs", {"size": f"{size_mib}m", "mode": "0755"})
        os.mkdir("work", 0o700, dir_fd=self._mount)
        self.work = os.open("work", os.O_PATH | os.O_DIRECTORY, dir_fd=self._mount)

    @property
    def size(self) -> int:
        """Bytes that files in it may have."""
        figures = os.fstatvfs(self._mount)
        return figures.f_blocks * figures.f_frsize

    def write(self, mib: int) -> None:
        """Have a file in it."""
        file = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=self._mount)
        os.write(file, bytes(mib << 20))
        os.close(file)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._mount)
        os.close(self.work)


@pytest.fixture
def files() -> Iterator[Files]:
    """Files of a container that may have 64 MiB of them."""
    made = Files(64)
    yield made
    made.close()
