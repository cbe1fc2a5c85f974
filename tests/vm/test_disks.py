"""Disks of a booted node: seen, claimed, pooled, found again, and left alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, MachineSpec
from ci.qemu.tpm import software_tpm
from core0.client.client import NodeClient, RefusedError
from core0.wire.storage import Claim, Encryption, EraseRequest, Pool, PoolSpec, Replacement, Selector
from core0.wire.volumes import VolumeSpec
from tests.disk_images import blank, digest, holds, with_ext4
from tests.vm.shelf import disk_in, pool_in, settled

Connect = Callable[[Machine], Awaitable[NodeClient]]
Plug = Callable[..., Awaitable[None]]
READY_SECONDS = 10.0


@pytest_asyncio.fixture(loop_scope="session")
async def plug(machine: Machine) -> AsyncIterator[Plug]:
    """Plugs disks into the shared machine; those that are still there at the end of the test are pulled."""
    plugged = []

    async def do(*disks: Disk) -> None:
        for disk in disks:
            await machine.plug_disk(disk)
            plugged.append(disk.name)

    yield do
    for name in plugged:
        await machine.pull(name, READY_SECONDS)


async def test_a_node_makes_a_pool_of_its_disks_and_leaves_the_others_alone(
    plug: Plug, node: NodeClient, tmp_path: Path
) -> None:
    disks = (blank(tmp_path, "one"), blank(tmp_path, "two"), with_ext4(blank(tmp_path, "photos"), "Y"))
    before = digest(disks[2].path)
    await plug(*disks)
    await settled(node, 3)
    photos = await node.disk("photos")
    assert (photos.id, photos.state) == ("virtio-photos", "unclaimed")
    assert photos.why.startswith("it is not touched: it holds an ext4 signature labelled 'Y' on vd")
    with pytest.raises(RefusedError, match="it holds an ext4"):
        await node.claim_disk("photos", Claim())
    pool = await node.put_pool("fast", PoolSpec(Selector(), "raid1", format_blank=True), wait=60)
    assert (pool.state, [one.disk for one in pool.members]) == ("online", ["virtio-one", "virtio-two"])
    assert digest(disks[2].path) == before


async def test_disks_come_and_go_while_the_node_runs(
    machine: Machine, node: NodeClient, tmp_path: Path
) -> None:
    assert await node.disks() == ()
    await machine.plug_disk(blank(tmp_path, "one"))
    await settled(node, 1)
    pool = await node.put_pool("fast", PoolSpec(Selector(), format_blank=True), wait=60)
    assert pool.state == "online", pool.why
    await machine.pull("one", READY_SECONDS)
    await settled(node, 0)
    lost = await pool_in(node, "fast", "offline")
    assert lost.why == "disk virtio-one is missing, and single needs all its disks; plug what is missing"


async def test_an_encrypted_pool_waits_for_its_passphrase(
    machine: Machine, plug: Plug, node: NodeClient, tmp_path: Path
) -> None:
    one, begun = blank(tmp_path, "one"), len(machine.console.lines)
    spec = PoolSpec(Selector(serials=("one",)), format_blank=True, encryption=Encryption("operator"))
    await plug(one)
    async with asyncio.timeout(READY_SECONDS):
        while not await node.disks():  # it is known as soon as the kernel has it, and looked at after that
            pass
    await node.put_pool("vault", spec)
    await settled(node, 1)
    pool = await node.pool("vault")
    assert (pool.state, pool.why) == (
        "waiting",
        "its disks will be encrypted; 'zn pool unlock vault' takes the passphrase",
    )
    made = await node.unlock_pool("vault", "correct horse", wait=60)
    assert made.state == "online", made.why
    assert "correct horse" not in "\n".join(machine.console.lines[begun:])
    assert not holds(one.path, b"correct horse")
    assert holds(one.path, b"LUKS\xba\xbe")


async def test_an_encrypted_pool_comes_back_after_a_cut_before_a_replacement_had_begun(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    """It is written down, and the new disk is encrypted and empty; the old one hangs, so the kernel cannot begin."""
    disks = tuple(blank(tmp_path, name) for name in ("one", "two", "spare"))
    # a passphrase would be made dear to guess for each disk, which a translated machine takes 10 s for
    spec = PoolSpec(Selector(("one", "two")), "raid1", format_blank=True, encryption=Encryption("tpm2"))
    async with software_tpm(tmp_path / "tpm") as tpm:
        machine = await machines.start(MachineSpec("rebuilt", direct_boot, disks=disks, tpm=tpm))
        await machine.wait_for_phase("ready", READY_SECONDS)
        async with await connect(machine) as client:
            old = (await settled(client, 3))["two"].device
            assert (await client.put_pool("vault", spec, wait=60)).state == "online"
            await client.claim_disk("spare", Claim())
            await machine.hang_disk("two")
            await client.replace_disk("vault", Replacement("two", "spare"))
            await machine.wait_for_line(f"Lost: /dev/{old}1 does not hold the node's state any more", 60)
        async with await boot_with(machine, tpm, connect) as client:
            await settled(client, 3)
            pool = await client.pool("vault", wait=60)
            assert pool.state == "online", pool.why
            spare = await disk_in(client, "spare", "free")
            assert spare.why == "the node has it, and no pool uses it yet"
            members = (await client.pool("vault")).members
            assert [one.disk for one in members] == ["virtio-one", "virtio-two"]
            (begun,) = await client.operations()
            ended = await client.operation(begun.id, wait=30)
            assert (ended.kind, ended.detail) == ("replace", "it had not begun; start it again")
    assert holds(disks[2].path, b"LUKS\xba\xbe")


async def test_a_disk_is_erased_by_the_first_method_that_it_has(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    """QEMU's NVMe disks have the format command and no sanitize; its others have neither, nor ATA security."""
    how = {"nvme": "format", "ahci": "discard", "virtio": "discard"}
    disks = tuple(with_ext4(blank(tmp_path, f"old-{bus}", bus=bus), "photos") for bus in how)
    machine = await machines.start(MachineSpec("eraser", direct_boot, disks=disks))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        for shown in (await settled(client, len(disks))).values():
            with pytest.raises(RefusedError, match="it does not hold what the request names"):
                await client.erase_disk(shown.id, EraseRequest("0" * 16))
        for bus, method in how.items():
            shown = await client.disk(f"old-{bus}")
            done = await client.operation(
                (await client.erase_disk(shown.id, EraseRequest(shown.content))).id, 60
            )
            assert (done.state, done.detail) == ("done", f"erased by {method}; it reads as zeros")
        assert all(one.holds == () for one in (await settled(client, len(disks))).values())
    zeros = digest(blank(tmp_path, "zeros").path)
    assert [digest(one.path) for one in disks] == [zeros] * len(disks)


async def test_a_disk_that_takes_long_to_be_erased_is_not_taken_for_one_that_hangs(
    machine: Machine, plug: Plug, node: NodeClient, tmp_path: Path
) -> None:
    """Both answer nothing from some moment on; who was asked last is told to hang, and the other one is not."""
    slow, other = with_ext4(blank(tmp_path, "slow"), "photos"), blank(tmp_path, "other")
    await plug(slow, other)
    shown = (await settled(node, 2))["slow"]
    pool = await node.put_pool("fast", PoolSpec(Selector(("other",)), format_blank=True), wait=60)
    assert pool.state == "online", pool.why
    await node.put_volume("data", VolumeSpec(64 << 20, "fast"))
    await machine.hang_disk("slow")
    erasing = await node.erase_disk("slow", EraseRequest(shown.content))
    await machine.hang_disk("other")
    creating = asyncio.create_task(node.put_volume("more", VolumeSpec(64 << 20, "fast")))
    await disk_in(node, "other", "hung")
    shown = await node.disk("slow")
    assert (shown.state, shown.why, shown.content) == ("probing", "it is being erased", "")
    with pytest.raises(RefusedError, match="cannot claim virtio-slow: it has not been looked at yet"):
        await node.claim_disk("slow", Claim())
    for disk in (slow, other):
        await machine.mend_disk(disk.name)
    done = await node.operation(erasing.id, 60)
    assert (done.state, done.detail) == ("done", "erased by discard; it reads as zeros")
    assert (await disk_in(node, "slow", "unclaimed")).why.startswith("it is blank")
    assert (await creating).state == "ready"


async def opened(client: NodeClient) -> Pool:
    """The pool once it serves, or has failed for good."""
    await settled(client, 1)
    return await client.pool("vault", wait=60)


async def test_the_machines_tpm_opens_a_pool_and_another_one_only_after_the_recovery_key(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    spec = PoolSpec(Selector(), format_blank=True, encryption=Encryption("tpm2"))
    async with software_tpm(tmp_path / "own") as own, software_tpm(tmp_path / "other") as other:
        drive = blank(tmp_path, "one")
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
    assert not holds(drive.path, key.encode())


async def boot_with(machine: Machine, tpm: Path, connect: Connect) -> NodeClient:
    """Cut the power, and start the machine with this TPM."""
    await machine.cut_power()
    machine.spec = replace(machine.spec, tpm=tpm)
    await machine.power_on()
    await machine.wait_for_phase("ready", READY_SECONDS)
    return await connect(machine)
