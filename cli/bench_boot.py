"""How long a boot takes on the guest's own clock, which starts at the kernel's entry.

Core-0's time is the uptime that it states in an authenticated answer. The yardstick is Debian's static busybox as
the only program of an initramfs: its time is the uptime that its first line of shell prints. Both boot the same
kernel with the same command line on the same machine, one after the other, in each run. The machines' memory is there
before they start: how fast this host hands out pages is not what is measured.
"""

import asyncio
import subprocess
import tempfile
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from ci.qemu.accel import Acceleration
from ci.qemu.disk_files import make_blank
from ci.qemu.disks import Bus
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, MachineSpec
from cli import machines, operator
from cli.connect import client_of
from cli.context import Context
from cli.image import cache_folder
from cli.measure import Measure, ratios
from cli.outcome import Failure
from core0.client.client import NodeClient, UnreachableError
from core0.wire.types import Node
from image import contents, deb, initramfs
from image.tree import file, folder

_SECONDS = 15.0
_AGAIN = 0.02
_MIB = 1 << 20
_MANY = 24
_BUSES: tuple[Bus, ...] = ("virtio", "ahci", "nvme")
_INIT = b"""#!/busybox sh
/busybox mount -t proc proc /proc
read up idle < /proc/uptime
echo "busybox: up $up"
/busybox poweroff -f
"""


class _Answer(NamedTuple):
    """A node's first answer: when it came and when PID 1 began, in seconds since the kernel's entry; its memory."""

    at: float
    begun: float
    memory: int


async def measure_boot(
    contexts: Path, image: Path, runs: int, memory: int, *, counted: bool
) -> list[Measure]:
    """Boot both `runs` times in turn."""
    acceleration = await machines.measured_by(image, counted=counted)
    argument = operator.kernel_argument(contexts)
    node_boot = machines.direct_boot(image, (argument,))
    ours, yardstick, used = [], [], []
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        archive = Path(scratch) / "busybox.cpio.zst"
        archive.write_bytes(_busybox_initramfs(contents.load(image).epoch))
        busybox_boot = DirectBoot(node_boot.kernel, archive, node_boot.arguments)
        for run in range(runs):
            place = Path(scratch) / str(run)
            yardstick.append(
                await _time_busybox(
                    MachineSpec("busybox", busybox_boot, memory, preallocated=True),
                    acceleration,
                    place / "busybox",
                )
            )
            answer = await _ask_node(
                MachineSpec("node", node_boot, memory, preallocated=True),
                acceleration,
                place / "node",
                contexts,
            )
            ours.append(answer.at)
            used.append(answer.memory / _MIB)
    core0 = Measure(f"Core-0 answers ({acceleration.name})", "s", tuple(ours))
    busybox = Measure(f"busybox's first line ({acceleration.name})", "s", tuple(yardstick))
    return [
        core0,
        busybox,
        ratios("Core-0 / busybox", core0, busybox, goal=2.2),
        Measure("memory of the node's own processes", "MiB", tuple(used), goal=60),
    ]


async def measure_disks_boot(
    contexts: Path, image: Path, runs: int, memory: int, *, counted: bool
) -> list[Measure]:
    """Boot a node with one disk and a node with many, `runs` times in turn: all of it, and what PID 1 begins.

    Before that the kernel looks for devices, and asks each NVMe drive by a driver that it has built in.
    """
    acceleration = await machines.measured_by(image, counted=counted)
    boot = machines.direct_boot(image, (operator.kernel_argument(contexts),))
    found: dict[int, list[_Answer]] = {1: [], _MANY: []}
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        disks = _blank_disks(Path(scratch), _MANY)
        for run in range(runs):
            for count, samples in found.items():
                spec = MachineSpec(f"disks-{count}", boot, memory, disks=disks[:count], preallocated=True)
                place = Path(scratch) / f"{run}-{count}"
                samples.append(await _ask_node(spec, acceleration, place, contexts))
    whole = [
        Measure(f"{count} disks: it answers", "s", tuple(one.at for one in found[count])) for count in found
    ]
    own = [
        Measure(f"{count} disks: since PID 1 began", "s", tuple(one.at - one.begun for one in found[count]))
        for count in found
    ]
    name = f"{_MANY} disks / one disk ({acceleration.name})"
    return [
        *whole,
        *own,
        ratios(name, whole[1], whole[0], goal=1.1),
        ratios(f"{name}, since PID 1 began", own[1], own[0], goal=1.1),
    ]


def _blank_disks(folder: Path, count: int) -> tuple[Disk, ...]:
    """Blank disks on all buses in turn."""
    found = []
    for number, bus in zip(range(count), cycle(_BUSES), strict=False):
        path = make_blank(folder / f"disk{number}.img", 1 << 30)
        found.append(Disk(f"disk{number}", path, bus=bus))
    return tuple(found)


async def _time_busybox(spec: MachineSpec, acceleration: Acceleration, place: Path) -> float:
    async with Machine(spec, acceleration, place) as machine:
        line = await machine.wait_for_line("busybox: up ", _SECONDS)
    return float(line.split()[-1])


async def _ask_node(spec: MachineSpec, acceleration: Acceleration, place: Path, contexts: Path) -> _Answer:
    """The node's first answer: the client is there before the node can answer."""
    async with Machine(spec, acceleration, place) as machine:
        fingerprint, address = await machines.api_of(machine)
        async with client_of(contexts, Context(address, fingerprint, operator.KEY_FILE)) as client:
            await machine.wait_for_phase("network", _SECONDS)
            node, health, boot = await _first_answer(client), await client.health(), await client.boot()
            memory = sum(process.proportional_bytes for process in health.processes)
            return _Answer(node.uptime_seconds, boot.phases[0].at_seconds, memory)


async def _first_answer(client: NodeClient) -> Node:
    async with asyncio.timeout(_SECONDS):
        while True:
            try:
                return await client.node()
            except UnreachableError:  # nobody listens yet
                await asyncio.sleep(_AGAIN)


def _busybox_initramfs(epoch: int) -> bytes:
    package = _busybox_package()
    program = next(
        entry
        for entry in deb.read(package, "busybox-static")
        if entry.path.removeprefix("usr/") == "bin/busybox"
    )
    entries = [
        folder("dev", "bench"),
        folder("proc", "bench"),
        file("busybox", program.content, "bench", 0o755),
        file("init", _INIT, "bench", 0o755),
    ]
    return initramfs.segment(entries, epoch, level=9)


def _busybox_package() -> bytes:
    """Debian's busybox-static as apt on this machine downloads and verifies it; kept in the cache."""
    place = cache_folder() / "bench"
    place.mkdir(parents=True, exist_ok=True)
    if not list(place.glob("busybox-static_*.deb")):
        done = subprocess.run(
            ["apt-get", "download", "-q", "busybox-static"],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failure(
                f"cannot fetch the yardstick busybox-static: {done.stderr.strip()}; run apt-get update"
            )
    return next(place.glob("busybox-static_*.deb")).read_bytes()
