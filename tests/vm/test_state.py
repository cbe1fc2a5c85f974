"""What a booted node remembers over reboots, power cuts, and the ways of its disks; and what it refuses to take."""

import datetime
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from ci.pytest_machines import Machines
from ci.qemu.disks import Disk
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient, RefusedError, UnreachableError, WrongNodeError
from core0.client.credentials import client_context, issue_certificate
from core0.wire.config import NodeConfig
from core0.wire.ports import API
from core0.wire.secrets import SecretValue
from core0.wire.state import NEWER_IMAGE
from core0.wire.storage import PoolSpec, Selector, StorageConfig
from core0.wire.types import ContainerSpec, Node, SecretFile
from tests.disk_images import blank, digest, with_newer_state
from tests.vm import shelf
from tests.vm.inside import gone, inside, running, settled, until
from tests.vm.shelf import pool_in

Connect = Callable[[Machine], Awaitable[NodeClient]]
SECONDS = 10.0
HERE, ELSEWHERE = "11111111-2222-4333-8444-555555555555", "99999999-8888-4777-8666-555555555555"


@pytest.fixture(scope="module")
def spec(spec: Callable[..., ContainerSpec]) -> ContainerSpec:
    """A container that runs until it is stopped."""
    return spec()


def disk(folder: Path, name: str, bus: str = "virtio") -> Disk:
    """A blank disk."""
    return blank(folder, name, 1 << 30, bus=bus)


async def boot(machine: Machine, *disks: Disk) -> None:
    """Cut the power, and start again with these disks."""
    await machine.cut_power()
    machine.spec = replace(machine.spec, disks=disks)
    await machine.power_on()
    await machine.wait_for_phase("ready", SECONDS)


async def pooled(client: NodeClient, name: str, profile: str = "raid1") -> None:
    """A pool of all blank disks."""
    pool = await client.put_pool(name, PoolSpec(Selector(), profile, format_blank=True), wait=60)
    assert pool.state == "online", pool.why


async def test_a_node_is_itself_again_with_any_of_its_disks_in_any_order(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, spec: ContainerSpec, tmp_path: Path
) -> None:
    one, two = disk(tmp_path, "one"), disk(tmp_path, "two")
    machine = await machines.start(MachineSpec("kept", direct_boot, disks=(one, two), uuid=HERE))
    await machine.wait_for_phase("ready", SECONDS)
    async with await connect(machine) as client:
        assert (await client.node()).ephemeral
        await shelf.settled(client, 2)
        await pooled(client, "fast")
        await client.put_config(NodeConfig(StorageConfig(media={"one": "ssd"})))
        steady = await running(client, "steady", spec)
        await running(client, "former", spec)
        await client.stop_container("former", wait=60)
        await client.put_secret("key", SecretValue(b"a secret"))
        await running(client, "closed", replace(spec, secrets=(SecretFile("key"),)))
        await running(client, "behind", replace(spec, after={"closed": "running"}))
        before = await client.node()
        assert not before.ephemeral
        state = await client.state()
        assert (state.durable, [copy.ok for copy in state.copies]) == (True, [True, True])

    await boot(machine, two, one)
    async with await connect(machine) as client:
        await same(client, before)
        container = await settled(client, "steady")
        assert container.state == "running", container.why
        assert container.corex == steady.corex
        async with inside(machine, container) as corex:  # by the token that it had
            assert [process.state for process in await corex.processes()] == ["running"]
        assert (await settled(client, "former")).state == "stopped"
        await begin_in_order(client)
        assert (await client.config()).config.storage.media == {"one": "ssd"}
        await pool_in(client, "fast", "online")

    stale = tmp_path / "stale.img"
    await machine.cut_power()
    shutil.copyfile(one.path, stale)
    await boot(machine, two)
    async with await connect(machine) as client:
        await same(client, before)
        copies = {copy.ok: copy.why for copy in (await client.state()).copies}
        assert copies[False] == "it has not come back since the last start"
        await client.delete_container("steady")
        await until(gone(client, "steady"))

    stale.rename(one.path)
    await boot(machine, one, two)
    async with await connect(machine) as client:
        await same(client, before)
        assert [container.name for container in await client.containers()] == ["former"]
        await until(all_hold(client))


async def begin_in_order(client: NodeClient) -> None:
    """A reboot ended the secret that one container needs, and another begins after that one."""
    for name, told in (("closed", "it needs secret key"), ("behind", "container closed, which is waiting")):
        found = await client.container(name)
        assert found.state == "waiting", found.why
        assert told in found.why
    await client.put_secret("key", SecretValue(b"a secret"))
    for name in ("closed", "behind"):
        assert (await settled(client, name)).state == "running"
        await client.delete_container(name)
        await until(gone(client, name))


async def same(client: NodeClient, before: Node) -> None:
    """The client has pinned the certificate that the node showed at first."""
    after = await client.node()
    assert (after.fingerprint, after.ephemeral) == (before.fingerprint, False)


def all_hold(client: NodeClient) -> Callable[[], Awaitable[bool]]:
    """Whether every copy is what it should be."""

    async def check() -> bool:
        return all(copy.ok for copy in (await client.state()).copies)

    return check


async def test_a_machine_refuses_the_disks_of_another_until_it_is_told_to_be_that_one(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, spec: ContainerSpec, tmp_path: Path
) -> None:
    one = disk(tmp_path, "one")
    first = await machines.start(MachineSpec("first", direct_boot, disks=(one,), uuid=HERE))
    await first.wait_for_phase("ready", SECONDS)
    async with await connect(first) as client:
        await shelf.settled(client, 1)
        await pooled(client, "fast", "single")
        await running(client, "steady", spec)
        former = await client.node()
    await first.cut_power()

    second = await machines.start(MachineSpec("second", direct_boot, disks=(one,), uuid=ELSEWHERE))
    await second.wait_for_phase("ready", SECONDS)
    async with await connect(second) as client:
        assert (await client.node()).fingerprint != former.fingerprint
        found = (await shelf.settled(client, 1))["one"]
        assert found.state == "foreign"
        assert "'zn node adopt virtio-one' makes this machine that node" in found.why
        assert "it belongs to node" in " ".join((await client.state()).warnings)
        assert await client.containers() == ()
        with pytest.raises(RefusedError, match="cannot find disk"):
            await client.adopt_state("none")
        start = len(second.console.lines)
        await client.adopt_state("one")
        await second.wait_for_line(f"identity done .*{former.fingerprint}", SECONDS, start)
        await second.wait_for_line("phase ready done", SECONDS, start)

    await boot(second, one)
    async with await connect(second) as client:
        await same(client, former)
        assert (await settled(client, "steady")).state == "running"
        await pool_in(client, "fast", "online")


async def test_a_node_serves_beside_a_state_of_a_newer_image_and_leaves_it_as_it_is(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    one, two = disk(tmp_path, "one"), disk(tmp_path, "two")
    machine = await machines.start(MachineSpec("older", direct_boot, disks=(one,), uuid=HERE))
    await machine.wait_for_phase("ready", SECONDS)
    async with await connect(machine) as client:
        await shelf.settled(client, 1)
        await pooled(client, "fast", "single")
        former = await client.node()
    await machine.cut_power()
    with_newer_state(one.path)
    before = digest(one.path)
    await boot(machine, one, two)
    async with await connect(machine) as client:
        found = (await shelf.settled(client, 2))["one"]
        assert found.state == "foreign"
        assert found.why == (
            "it is not touched: what it remembers of its node is not understood: "
            f"format 7, this image knows format 1; {NEWER_IMAGE}"
        )
        assert (await client.node()).fingerprint != former.fingerprint
        assert "is left as it is: format 7" in " ".join((await client.state()).warnings)
        with pytest.raises(RefusedError, match="does not understand: format 7"):
            await client.adopt_disk("one")
        with pytest.raises(RefusedError, match="format 7"):
            await client.adopt_state("one")
        spec = PoolSpec(Selector(("two",)), format_blank=True)
        assert (await client.put_pool("other", spec, wait=60)).state == "online"
    await machine.cut_power()
    assert digest(one.path) == before


async def test_a_disk_whose_driver_comes_late_gives_the_node_its_identity_back(
    machines: Machines,
    direct_boot: DirectBoot,
    connect: Connect,
    operator_key: Ed25519PrivateKey,
    spec: ContainerSpec,
    tmp_path: Path,
) -> None:
    one = disk(tmp_path, "one", "ahci")
    machine = await machines.start(MachineSpec("late", direct_boot, disks=(one,), uuid=HERE))
    await machine.wait_for_phase("ready", SECONDS)
    async with await connect(machine) as client:
        await shelf.settled(client, 1)
        await pooled(client, "fast", "single")
        await running(client, "steady", spec)
        before = await client.node()

    await boot(machine, one)
    await machine.wait_for_line(rf"identity done .*{before.fingerprint}$", SECONDS)
    await machine.wait_for_line("Process api ended", SECONDS)
    now = datetime.datetime.now(datetime.UTC)
    tls = client_context(issue_certificate(operator_key, "tests", now=now))
    address = f"127.0.0.1:{await machine.forward(API)}"
    async with NodeClient(address, before.fingerprint, tls) as client:
        await until(answers_as(client, before))
        assert (await settled(client, "steady")).state == "running"


def answers_as(client: NodeClient, before: Node) -> Callable[[], Awaitable[bool]]:
    """Whether the node shows the certificate that the client has pinned."""

    async def check() -> bool:
        try:
            return (await client.node()).fingerprint == before.fingerprint
        except (UnreachableError, WrongNodeError):
            return False

    return check
