"""Machines that `zn` keeps running: their folders, their specifications, their start and end."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.qemu import detached, process, trial
from ci.qemu.accel import ICOUNT, Acceleration
from ci.qemu.detached import Record
from ci.qemu.disk_files import make_blank
from ci.qemu.disks import Disk
from ci.qemu.machine import CONSOLE_LOG, Machine
from ci.qemu.monitor import MonitorError
from ci.qemu.spec import Boot, DirectBoot, MachineSpec, NetBoot
from cli.outcome import ExitCode, Failure
from cli.tasks import ROOT
from core0.wire.ports import API

if TYPE_CHECKING:
    from image.tree import Entry

# Where machines and the server keep their sockets, records and logs.
RUN = Path(os.environ.get("ZN_RUN") or ROOT / "build" / "run")
# Their disks, which outlive them.
DISKS = RUN / "disks"
# QEMU's NAT network shows the host's loopback under this address.
HOST = "10.0.2.2"
_END_SECONDS = 10.0
# From power-on under KVM, firmware and network boot included.
_READY_SECONDS = 15.0


def folder_of(name: str) -> Path:
    """Where a machine keeps its sockets, record and console log."""
    return RUN / "machines" / name


def running() -> Iterator[tuple[Path, Record]]:
    """The machines that run, by name."""
    for folder in sorted((RUN / "machines").glob("*")):
        if record := detached.find(folder):
            yield folder, record


def find(name: str) -> Path:
    """The folder of a machine that runs.

    Raises:
        Failure: it does not run.
    """
    if detached.find(folder_of(name)) is None:
        known = ", ".join(record.spec.name for _, record in running()) or "none"
        raise Failure(f"cannot find machine {name!r}: running: {known}; see zn vm ls", ExitCode.REFUSED)
    return folder_of(name)


async def measured_by(image: Path, *, counted: bool) -> Acceleration:
    """How the machines of a measurement run: by the host's clock, or with one that counts instructions."""
    return ICOUNT if counted else await trial.choose(image / "vmlinuz")


def direct_boot(image: Path, arguments: tuple[str, ...]) -> DirectBoot:
    """Kernel and initramfs of a build, loaded by QEMU itself."""
    try:
        own = (image / "cmdline").read_text().strip()
    except FileNotFoundError:
        raise Failure(f"cannot boot {image}: there is no image; build it first: zn image build") from None
    return DirectBoot(image / "vmlinuz", image / "initramfs", " ".join((own, *arguments)))


def guest_boot(
    image: Path, folder: Path, added: Iterable["Entry"], arguments: tuple[str, ...] = ()
) -> DirectBoot:
    """A build with a benchmark's own program, `bench` among the files that are added, before PID 1.

    Args:
        image: the build.
        folder: for the longer initramfs.
        added: what comes before the image's own files.
        arguments: of the kernel.
    """
    from image import contents, initramfs

    own = direct_boot(image, (*arguments, "rdinit=/bench"))
    assert own.initramfs  # noqa: S101 — a build has one
    whole = folder / "initramfs"
    whole.write_bytes(initramfs.put_before(own.initramfs.read_bytes(), added, contents.load(image).epoch))
    return DirectBoot(own.kernel, whole, own.arguments)


def network_boot(port: int) -> NetBoot:
    """The script of a netboot server on the host's loopback."""
    return NetBoot(f"http://{HOST}:{port}/boot.ipxe")


def disks_of(name: str, sizes: Sequence[int]) -> tuple[Disk, ...]:
    """A machine's disks, of so many bytes each. They outlive it: one that is there is taken with what it holds."""
    DISKS.mkdir(parents=True, exist_ok=True)
    found = []
    for number, size in enumerate(sizes, 1):
        path = DISKS / f"{name}-{number}"
        if not path.exists():
            make_blank(path, size)
        found.append(Disk(f"disk{number}", path))
    return tuple(found)


def drop_disks(*, used: bool) -> list[Path]:
    """Delete the disks of machines that do not run: those that nobody wrote to, and the `used` ones only then.

    Returns:
        Those that are left.
    """
    for path in sorted(DISKS.glob("*")):
        if used or path.stat().st_blocks == 0:
            path.unlink()
    return sorted(DISKS.glob("*"))


async def start(
    name: str, boot: Boot, image: Path, *, memory: int, cpus: int, disks: Sequence[int] = ()
) -> Path:
    """Start a machine that lives on after this command; returns its folder.

    Args:
        name: its name.
        boot: where it boots from.
        image: the build whose kernel tries the acceleration.
        memory: RAM in MiB.
        cpus: virtual CPUs.
        disks: bytes of each of its disks.

    Raises:
        Failure: one of this name runs.
        StartError: QEMU did not start.
    """
    folder = folder_of(name)
    if detached.find(folder):
        raise Failure(
            f"cannot start machine {name}: it runs; stop it first: zn vm stop {name}", ExitCode.REFUSED
        )
    acceleration = await trial.choose(image / "vmlinuz")
    spec = MachineSpec(name, boot, memory=memory, cpus=cpus, disks=disks_of(name, disks))
    await detached.launch(spec, acceleration, folder)
    async with detached.attach(folder) as machine:
        await machine.monitor.execute("cont")
    return folder


async def stop(folder: Path) -> bool:
    """End a machine, in order if QEMU listens, by SIGKILL if not; False if it does not run."""
    record = detached.find(folder)
    if record is None:
        return False
    try:
        async with detached.attach(folder) as machine:
            await machine.quit()
    except (MonitorError, process.StartError, OSError):
        process.Detached(record.identity).kill()
    if not await process.wait_ended(record.identity, _END_SECONDS):
        raise Failure(f"cannot stop machine {record.spec.name}: process {record.identity.pid} does not end")
    return True


async def wait_ready(machine: Machine) -> tuple[str, str]:
    """Wait until a node answers; returns its certificate's fingerprint and its API's address on this host."""
    await machine.wait_for_phase("ready", _READY_SECONDS)
    return await api_of(machine)


async def api_of(machine: Machine) -> tuple[str, str]:
    """The fingerprint and the address as soon as the node has its identity, which is before it answers."""
    identity = await machine.wait_for_phase("identity", _READY_SECONDS)
    host_port = await machine.forward(API)
    return identity.detail.removeprefix("sha256:"), f"127.0.0.1:{host_port}"


def console_log(folder: Path) -> Path:
    """The file with everything that a machine has printed."""
    return folder / CONSOLE_LOG


async def ask_guest(machine: Machine, deadline: float, *words: object) -> Any:
    """Type a line at the program that a benchmark put into a machine; returns its answer. Raises Failure."""
    seen = len(machine.console.lines)
    await machine.type(json.dumps(words) + "\n")
    line = await machine.wait_for_line("^bench: |^Traceback", deadline, start=seen)
    if line.startswith("Traceback"):
        await machine.wait_for_line(
            r"^[\w.]+(: |$)", deadline, start=machine.console.lines.index(line, seen) + 1
        )
        said = "\n".join(machine.console.lines[seen:])
        raise Failure(f"cannot measure: {words[0]} failed in the machine: {said}")
    return json.loads(line.removeprefix("bench: "))
