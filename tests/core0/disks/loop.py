"""Real block devices on the test machine: files as loop devices, and the facts that sysfs would tell of disks."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from core0.disks.model import Facts
from tests.core0.disks.landscape import facts


class LoopDisks:
    """Disks that come and go as a test says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._devices: dict[str, str] = {}
        self._buses: dict[str, str] = {}
        self.read_only: set[str] = set()

    def plug(self, name: str, size: int = 1 << 30, sector: int = 512, bus: str = "virtio") -> Path:
        """Plug a disk; what an earlier one of that name held is still on it."""
        self._buses[name] = bus
        file = self._folder / name
        if not file.exists():
            with file.open("wb") as new:
                new.truncate(size)
        options = ("--show", "--find", "--partscan", "--sector-size", str(sector))
        done = subprocess.run(["losetup", *options, file], check=True, capture_output=True, text=True)
        device = done.stdout.strip()
        subprocess.run(["partx", "--update", device], capture_output=True)  # this kernel may read no tables
        self._devices[name] = device.removeprefix("/dev/")
        # the kernel announced it before it was listed here
        Path("/sys/block", self._devices[name], "uevent").write_text("change")
        return file

    def pull(self, name: str) -> None:
        """Take a disk out."""
        device = f"/dev/{self._devices.pop(name)}"
        subprocess.run(["partx", "--delete", device], capture_output=True)
        subprocess.run(["losetup", "--detach", device], check=True)

    def device(self, name: str) -> str:
        """Where it is."""
        return f"/dev/{self._devices[name]}"

    def __call__(self) -> tuple[Facts, ...]:
        """As `core0.disks.sysfs.observe`, for these disks."""
        return tuple(self._facts(name, device) for name, device in self._devices.items())

    def _facts(self, name: str, device: str) -> Facts:
        block = Path("/sys/block", device)
        partitions = {
            int((entry / "partition").read_text()): entry.name for entry in block.glob(f"{device}p*")
        }
        size = int((block / "size").read_text()) * 512
        return facts(
            device,
            size,
            serial=name,
            bus=self._buses[name],
            rotational=self._buses[name] == "ata",
            partitions=partitions,
            read_only=name in self.read_only,
        )

    def end(self) -> None:
        """Take all disks out, and what is mounted of them."""
        own = tuple(f"/dev/{device}p" for device in self._devices.values())
        for line in Path("/proc/self/mounts").read_text().splitlines():
            source, target = line.split()[:2]
            if target.startswith(str(self._folder)) or source.startswith(own):
                subprocess.run(["umount", "--lazy", target], check=True)
        for entry in Path("/dev/mapper").glob("zn-*"):
            subprocess.run(["cryptsetup", "close", entry.name], check=False)
        for name in list(self._devices):
            self.pull(name)


@contextlib.contextmanager
def loop_disks(folder: Path) -> Iterator[LoopDisks]:
    """Loop devices below a folder, which end with the block."""
    folder.mkdir()
    made = LoopDisks(folder)
    try:
        yield made
    finally:
        made.end()


def can_loop() -> bool:
    """Whether this machine lets us."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


def can_encrypt() -> bool:
    """Whether its kernel has the device mapper."""
    return Path("/sys/class/misc/device-mapper").exists()
