"""Disks of a booted node: seen, claimed, pooled, found again, and left alone."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, MachineSpec
from core0.client.client import NodeClient, RefusedError
from core0.wire.storage import Claim, PoolSpec, Selector

Connect = Callable[[Machine], Awaitable[NodeClient]]
READY_SECONDS = 10.0
GIB = 1 << 30


def disk(folder: Path, name: str, size: int = GIB) -> Disk:
    """A blank disk."""
    file = folder / f"{name}.img"
    with file.open("wb") as new:
        new.truncate(size)
    return Disk(name, file)


def ext4(folder: Path, name: str, label: str) -> Disk:
    """A disk that somebody has used."""
    made = disk(folder, name)
    subprocess.run(["mkfs.ext4", "-q", "-L", label, made.path], check=True)
    return made


async def settled(client: NodeClient, count: int) -> None:
    """Wait until so many disks were looked at."""
    async with asyncio.timeout(120):
        while True:
            disks = await client.disks()
            if len(disks) == count and all(one.state != "probing" for one in disks):
                return
            await client.events((await client.events()).cursor, 2.0)


async def test_a_node_makes_a_pool_of_its_disks_and_leaves_the_others_alone(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    disks = (disk(tmp_path, "one"), disk(tmp_path, "two"), ext4(tmp_path, "photos", "Y"))
    before = disks[2].path.read_bytes()
    machine = await machines.start(MachineSpec("pooled", direct_boot, disks=disks))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await settled(client, 3)
        photos = await client.disk("photos")
        assert (photos.id, photos.state) == ("virtio-photos", "unclaimed")
        assert photos.why.startswith("it is not touched: it holds an ext4 signature labelled 'Y' on vd")
        with pytest.raises(RefusedError, match="it holds an ext4"):
            await client.claim_disk("photos", Claim())
        pool = await client.put_pool("fast", PoolSpec(Selector(), "raid1", format_blank=True), wait=60)
        assert (pool.state, [one.disk for one in pool.members]) == ("online", ["virtio-one", "virtio-two"])
    assert disks[2].path.read_bytes() == before
