"""Disks of a booted node that hang, fail, warn, are pulled and come back: the others serve, and it is told.

The tests share one machine and run in order; each has disks of its own. A saboteur writes where no API leads.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest
import pytest_asyncio

from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, MachineSpec
from core0.client.client import NodeClient
from core0.wire.operations import Operation
from core0.wire.storage import Pool, PoolSpec, Replacement, Selector
from tests.disk_images import blank
from tests.vm.sabotage import order, sabotage
from tests.vm.shelf import READY_SECONDS, disk_in, pool_in, settled, told

MIB = 1 << 20


class Ward(NamedTuple):
    """The machine with the sick disks, its node, and the disks by name."""

    machine: Machine
    client: NodeClient
    disks: dict[str, Disk]

    async def pool(self, name: str, *disks: str, profile: str = "raid1") -> Pool:
        """A pool of these disks that serves."""
        spec = PoolSpec(Selector(disks), profile, format_blank=True)  # type: ignore[arg-type]
        pool = await self.client.put_pool(name, spec, wait=60)
        assert pool.state == "online", pool.why
        return pool

    async def ended(self, operation: Operation) -> Operation:
        """An operation once it has ended well."""
        while operation.state == "running":
            operation = await self.client.operation(operation.id, wait=30)
        assert operation.state == "done", operation.detail
        return operation


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ward(
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    tmp_path_factory: pytest.TempPathFactory,
    connect: Callable[[Machine], Awaitable[NodeClient]],
) -> AsyncIterator[Ward]:
    """One boot, with a disk that hangs from the start and one that warns."""
    folder = tmp_path_factory.mktemp("ward")
    disks = (
        blank(folder, "stuck", hangs=True),
        *(blank(folder, name) for name in ("m1", "m2", "spare", "e1", "e2")),
        blank(folder, "tiny", 512 * MIB),
        blank(folder, "old", bus="nvme"),
    )
    spec = MachineSpec("ward", sabotage(direct_boot, folder), disks=disks)
    async with Machine(spec, acceleration, folder) as machine:
        await machine.warn_of_disk("old", 4)
        await machine.wait_for_phase("ready", READY_SECONDS)
        async with await connect(machine) as client:
            yield Ward(machine, client, {disk.name: disk for disk in disks})


async def test_a_disk_that_never_answers_delays_nobody_and_comes_back_when_it_does(ward: Ward) -> None:
    stuck = await disk_in(ward.client, "stuck", "hung")
    assert stuck.why == (
        "it is left alone: no answer within 15 s; look at its cable and power, or take it out"
    )
    await told(ward.client, "virtio-stuck", "Alert: it is left alone: no answer within 15 s")
    others = await settled(ward.client, len(ward.disks))
    assert {one.state for name, one in others.items() if name not in ("stuck", "old")} == {"unclaimed"}
    await ward.pool("mirror", "m1", "m2")
    await ward.machine.mend_disk("stuck")
    assert (await disk_in(ward.client, "stuck", "unclaimed")).why.startswith("it is blank")


async def test_a_disk_that_predicts_its_failure_raises_an_alert(ward: Ward) -> None:
    old = await disk_in(ward.client, "old", "failing")
    assert old.why.startswith(
        "it predicts its failure (its reliability is degraded); replace it; it is blank"
    )
    assert old.health
    assert not old.health.ok
    await told(ward.client, "nvme-old", "Alert: it predicts its failure (its reliability is degraded)")


async def test_a_mirror_goes_on_without_a_disk_that_is_pulled_while_it_is_written_to(ward: Ward) -> None:
    file = "/run/zn/pools/mirror/file"
    assert await order(ward.machine, "write", file) == "begun"
    await ward.machine.pull("m1", READY_SECONDS)
    pool = await pool_in(ward.client, "mirror", "degraded")
    assert pool.why == (
        "it serves, but disk virtio-m1 is missing; plug what is missing, or 'zn pool replace mirror'"
    )
    await told(ward.client, "pool mirror", "Alert: it serves, but disk virtio-m1 is missing")
    count, words = (await order(ward.machine, "count", file)).split(" ", 1)
    assert (words, int(count) > 0) == ("records", True)
    assert await order(ward.machine, "check", file, count) == f"all {count} records are right"


async def test_a_disk_that_comes_back_is_not_mixed_in(ward: Ward) -> None:
    await ward.machine.plug_disk(ward.disks["m1"])
    back = await disk_in(ward.client, "m1", "in-use")
    assert back.why.startswith("it came back after pool mirror had gone on without it, and what it holds is")
    pool = await pool_in(ward.client, "mirror", "degraded")
    assert pool.why == "it serves without virtio-m1, which came back; 'zn pool replace mirror'"


async def test_a_pulled_disk_is_replaced_while_the_pool_serves(ward: Ward) -> None:
    await ward.ended(await ward.client.replace_disk("mirror", Replacement("virtio-m1", "spare")))
    pool = await pool_in(ward.client, "mirror", "online")
    assert {one.disk for one in pool.members} == {"virtio-m2", "virtio-spare"}
    assert (await ward.client.disk("m1")).state == "free"
    scrubbed = await ward.ended(await ward.client.scrub_pool("mirror"))
    assert " 0 errors, 0 corrected, 0 beyond correction" in scrubbed.detail
