"""Snapshots of a running machine, in a qcow2 file that the guest never sees (QMP snapshot-save and -load)."""

import asyncio
from pathlib import Path

from ci.qemu import process
from ci.qemu.monitor import Monitor
from ci.qemu.spec import SCRATCH, MachineSpec

# The file grows only with what is saved; its virtual size is never used.
_VIRTUAL_SIZE = "64M"
# Writing a few hundred MiB of RAM to a slow disk.
_SAVE_SECONDS = 120.0


async def create(folder: Path) -> Path:
    """Make the empty file for a machine's snapshots. Raises NoProgramError without qemu-img."""
    process.require("qemu-img")
    path = folder / "scratch.qcow2"
    made = await asyncio.create_subprocess_exec(
        "qemu-img", "create", "-q", "-f", "qcow2", str(path), _VIRTUAL_SIZE
    )
    if await made.wait() != 0:
        raise OSError(f"cannot create {path}: qemu-img failed; is the disk full?")
    return path


async def save(monitor: Monitor, spec: MachineSpec, name: str) -> None:
    """Save RAM, devices and writable disks under a name; the machine pauses meanwhile.

    Raises:
        MonitorError: a disk of the machine cannot hold snapshots (raw files cannot), or the disk is full.
    """
    await monitor.run_job(
        "snapshot-save", f"save-{name}", _SAVE_SECONDS, tag=name, vmstate=SCRATCH, devices=_devices(spec)
    )


async def load(monitor: Monitor, spec: MachineSpec, name: str) -> None:
    """Go back to what `save` kept.

    Raises:
        MonitorError: there is no such snapshot.
    """
    await monitor.run_job(
        "snapshot-load", f"load-{name}", _SAVE_SECONDS, tag=name, vmstate=SCRATCH, devices=_devices(spec)
    )


def _devices(spec: MachineSpec) -> list[str]:
    return [SCRATCH, *(disk.name for disk in spec.disks if not disk.read_only)]
