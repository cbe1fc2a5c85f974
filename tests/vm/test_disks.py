"""Disks of a booted node: seen, claimed, pooled, found again, and left alone."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, MachineSpec
from ci.qemu.tpm import software_tpm
from core0.client.client import NodeClient, RefusedError
from core0.wire.storage import Claim, Encryption, Pool, PoolSpec, Selector

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


async def test_disks_come_and_go_while_the_node_runs(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    machine = await machines.start(MachineSpec("plugged", direct_boot))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        assert await client.disks() == ()
        await machine.plug_disk(disk(tmp_path, "one"))
        await settled(client, 1)
        pool = await client.put_pool("fast", PoolSpec(Selector(), format_blank=True), wait=60)
        assert pool.state == "online", pool.why
        await machine.pull("one", READY_SECONDS)
        await settled(client, 0)
        lost = await client.pool("fast")
        assert lost.state == "offline"
        assert lost.why == "disk virtio-one is missing, and single needs all its disks; plug what is missing"


async def test_an_encrypted_pool_waits_for_its_passphrase(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    one = disk(tmp_path, "one")
    spec = PoolSpec(Selector(), format_blank=True, encryption=Encryption("operator"))
    machine = await machines.start(MachineSpec("vault", direct_boot, disks=(one,)))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await settled(client, 1)
        pool = await client.put_pool("vault", spec)
        assert (pool.state, pool.why) == (
            "waiting",
            "its disks will be encrypted; 'zn pool unlock vault' takes the passphrase",
        )
        made = await client.unlock_pool("vault", "correct horse", wait=60)
        assert made.state == "online", made.why
        console = "\n".join(machine.console.lines)
    assert "correct horse" not in console
    assert b"correct horse" not in one.path.read_bytes()
    assert b"LUKS\xba\xbe" in one.path.read_bytes()


async def opened(client: NodeClient) -> Pool:
    """The pool once it serves, or has failed for good."""
    await settled(client, 1)
    return await client.pool("vault", wait=60)


async def test_the_machines_tpm_opens_a_pool_and_another_one_only_after_the_recovery_key(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    spec = PoolSpec(Selector(), format_blank=True, encryption=Encryption("tpm2"))
    async with software_tpm(tmp_path / "own") as own, software_tpm(tmp_path / "other") as other:
        drive = disk(tmp_path, "one")
        machine = await machines.start(MachineSpec("sealed", direct_boot, disks=(drive,), tpm=own))
        await machine.wait_for_phase("ready", READY_SECONDS)
        async with await connect(machine) as client:
            await settled(client, 1)
            pool = await client.put_pool("vault", spec, wait=60)
            assert pool.state == "online", pool.why
            key = (await client.recovery_key("vault")).key
        async with await boot_with(machine, own, connect) as client:
            assert (await opened(client)).state == "online"
        async with await boot_with(machine, other, connect) as client:
            pool = await opened(client)
            assert (pool.state, "another TPM sealed it" in pool.why) == ("failed", True), pool.why
            with pytest.raises(RefusedError, match="the TPM does not give it"):
                await client.recovery_key("vault")
            pool = await client.unlock_pool("vault", key, wait=60)
            assert pool.state == "online", pool.why
        async with await boot_with(machine, other, connect) as client:
            assert (await opened(client)).state == "online"  # it was sealed anew
    assert key not in "\n".join(machine.console.lines)
    assert key.encode() not in drive.path.read_bytes()


async def boot_with(machine: Machine, tpm: Path, connect: Connect) -> NodeClient:
    """Cut the power, and start the machine with this TPM."""
    await machine.cut_power()
    machine.spec = replace(machine.spec, tpm=tpm)
    await machine.power_on()
    await machine.wait_for_phase("ready", READY_SECONDS)
    return await connect(machine)
