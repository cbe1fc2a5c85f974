"""Volumes in the node's memory: a tmpfs each, of limited size, which ends with the boot.

Nothing here waits for a disk, so it is called where it is wanted. What is noted of each lies beside its mount, for
the node daemon that comes after this one.
"""

import os
import time

import msgspec

from core0.linux import files, mounts
from core0.wire.volumes import VolumeSpec

_FLAGS = mounts.MS_NOSUID | mounts.MS_NODEV
_PAGE = 4096


class Kept(msgspec.Struct, frozen=True):
    """What is noted of a volume: its spec, and when it was made (seconds since 1970)."""

    spec: VolumeSpec
    created: float


class Memory:
    """The volumes in a folder that only root reaches."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def path(self, name: str) -> str:
        """Where a volume is mounted."""
        return f"{self._folder}/{name}"

    def settle(self) -> None:
        """Take away what an earlier node daemon had half made, or half deleted."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        for entry in os.listdir(self._folder):
            name = entry.removesuffix(".json")
            if os.path.ismount(self.path(name)) and os.path.exists(f"{self.path(name)}.json"):
                continue
            if entry != name:
                os.unlink(f"{self._folder}/{entry}")
                continue
            if os.path.ismount(self.path(name)):
                mounts.unmount(self.path(name))
            os.rmdir(self.path(name))

    def list(self) -> dict[str, Kept]:
        """All of them, by name."""
        names = (entry.removesuffix(".json") for entry in os.listdir(self._folder) if entry.endswith(".json"))
        return {name: self._kept(name) for name in sorted(names)}

    def used(self, name: str) -> int:
        """Bytes that a volume takes."""
        space = os.statvfs(self.path(name))
        return (space.f_blocks - space.f_bfree) * space.f_frsize

    def create(self, name: str, spec: VolumeSpec) -> None:
        """Make a volume."""
        os.makedirs(self.path(name), 0o700, exist_ok=True)
        mounts.mount("tmpfs", self.path(name), "tmpfs", _FLAGS, f"{_sizes(spec.size)},mode=0755")
        self._keep(name, Kept(spec, time.time()))

    def resize(self, name: str, spec: VolumeSpec) -> None:
        """Give a volume another size. Raises OSError EINVAL if its files take more."""
        mounts.mount("tmpfs", self.path(name), "tmpfs", _FLAGS | mounts.MS_REMOUNT, _sizes(spec.size))
        self._keep(name, Kept(spec, self._kept(name).created))

    def delete(self, name: str) -> None:
        """Take a volume away; a container that has it keeps it until it ends."""
        os.unlink(f"{self.path(name)}.json")
        mounts.unmount(self.path(name))
        os.rmdir(self.path(name))

    def _kept(self, name: str) -> Kept:
        return msgspec.json.decode(files.read(f"{self.path(name)}.json"), type=Kept)

    def _keep(self, name: str, kept: Kept) -> None:
        files.replace(f"{self.path(name)}.json", msgspec.json.encode(kept), 0o600)


def _sizes(size: int) -> str:
    """A file takes a page at least, and an empty one memory that the size does not count: as many as pages."""
    return f"size={size},nr_inodes={size // _PAGE}"
