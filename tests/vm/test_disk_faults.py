"""Disks of a booted node that hang, fail, warn, are pulled and come back: the others serve, and it is told.

The tests share one machine and run in order; each has disks of its own. A saboteur writes where no API leads.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from ci.pytest_machines import Machines
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, Disk, Fault, MachineSpec
from core0.client.client import NodeClient, RefusedError
from core0.wire.config import NodeConfig
from core0.wire.operations import Operation
from core0.wire.storage import Claim, Pool, PoolSpec, Replacement, Selector, StorageConfig
from core0.wire.volumes import VolumeSpec
from tests.disk_images import blank, digest, with_claim
from tests.vm.sabotage import order, sabotage
from tests.vm.shelf import READY_SECONDS, disk_in, pool_in, settled, told, until

MIB = 1 << 20


class Ward(NamedTuple):
    """The machine with the sick disks, its node, and the disks by name."""

    machine: Machine
    client: NodeClient
    disks: dict[str, Disk]

    async def pool(self, name: str, *disks: str, profile: str = "raid1") -> Pool:
        """A pool of these disks that serves, once they have been looked at."""
        for disk in disks:
            await disk_in(self.client, disk, "unclaimed", "free", "in-use")
        spec = PoolSpec(Selector(disks), profile, format_blank=True)  # type: ignore[arg-type]
        pool = await self.client.put_pool(name, spec, wait=60)
        assert pool.state == "online", pool.why
        return pool

    async def written(self, file: str) -> str:
        """Write some records to a file of a pool; how many."""
        assert await order(self.machine, "write", file) == "begun"

        async def enough() -> bool:
            return int(await order(self.machine, "reached", file)) >= 64

        await until(self.client, enough)
        count, words = (await order(self.machine, "count", file)).split(" ", 1)
        assert words == "records"
        return count

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
        *(blank(folder, name) for name in ("m1", "m2", "spare", "e1", "e2", "r1", "r2", "lone")),
        *(blank(folder, name, 512 * MIB) for name in ("tiny", "crowded")),
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


async def test_a_mirror_serves_while_a_disk_of_it_fails_and_a_scrub_heals_it(ward: Ward) -> None:
    file = "/run/zn/pools/errors/file"
    await ward.pool("errors", "e1", "e2")
    await ward.machine.fail_disk("e1", Fault("write"))
    assert await order(ward.machine, "write", file) == "begun"
    await told(ward.client, "errors", "Alert: disk virtio-e1 made ")
    count, words = (await order(ward.machine, "count", file)).split(" ", 1)
    assert words == "records"
    assert await order(ward.machine, "check", file, count) == f"all {count} records are right"
    await ward.machine.mend_disk("e1")
    pool = await ward.client.pool("errors")
    assert {one.disk: one.errors > 0 for one in pool.members} == {"virtio-e1": True, "virtio-e2": False}
    await ward.ended(await ward.client.scrub_pool("errors"))
    found = (await ward.client.pool("errors")).scrub
    assert found
    assert (found.corrected > 0, found.uncorrectable) == (True, 0)
    assert await order(ward.machine, "check", file, count) == f"all {count} records are right"
    again = await ward.ended(await ward.client.scrub_pool("errors"))
    assert " 0 errors, 0 corrected, 0 beyond correction" in again.detail


async def test_a_mirror_gives_the_right_data_while_a_disk_of_it_cannot_be_read(ward: Ward) -> None:
    file = "/run/zn/pools/reads/file"
    await ward.pool("reads", "r1", "r2")
    count = await ward.written(file)
    await ward.machine.fail_disk("r1", Fault("read"))
    assert await order(ward.machine, "check", file, count) == f"all {count} records are right"
    await told(ward.client, "reads", "Alert: disk virtio-r1 made ")
    pool = await ward.client.pool("reads")
    assert (pool.state, pool.why) == (
        "online",
        "it serves, but virtio-r1 made errors; 'zn pool scrub reads' corrects what it can",
    )
    assert {one.disk: one.errors > 0 for one in pool.members} == {"virtio-r1": True, "virtio-r2": False}
    # sectors that are well once they are written anew; the scrub begins with two superblocks
    await ward.machine.fail_disk("r1", *(Fault("read", once=True) for _ in range(4)))
    await ward.ended(await ward.client.scrub_pool("reads"))
    found = (await ward.client.pool("reads")).scrub
    assert found
    assert found.corrected > 0
    # of 64 KiB that failed the kernel (6.12) counts those without data as beyond correction
    again = await ward.ended(await ward.client.scrub_pool("reads"))
    assert " 0 errors, 0 corrected, 0 beyond correction" in again.detail
    assert (await ward.client.pool("reads")).why == "it serves, with all 2 disks"
    await ward.machine.mend_disk("r1")


async def test_what_only_a_disk_has_that_cannot_be_read_is_an_error_there_and_nowhere_else(
    ward: Ward,
) -> None:
    file, other = "/run/zn/pools/lone/file", "/run/zn/pools/reads/other"
    await ward.pool("reads", "r1", "r2")
    await ward.pool("lone", "lone", profile="single")
    count, others = await ward.written(file), await ward.written(other)
    await ward.machine.fail_disk("lone", Fault("read"))
    assert await order(ward.machine, "check", file, count) == "record 0: Input/output error"
    await told(ward.client, "lone", "Alert: disk virtio-lone made ")
    pool = await ward.client.pool("lone")
    assert pool.state == "online"
    assert pool.why == (
        "it serves, but virtio-lone made errors; "
        "'zn pool scrub lone' counts what is lost, for no other disk has it"
    )
    assert await order(ward.machine, "check", other, others) == f"all {others} records are right"
    assert (await ward.client.put_volume("here", VolumeSpec(16 * MIB, "reads"))).state == "ready"
    await ward.ended(await ward.client.scrub_pool("lone"))
    await told(ward.client, "lone", "Alert: scrub found ")
    await ward.machine.mend_disk("lone")
    assert await order(ward.machine, "check", file, count) == f"all {count} records are right"
    await ward.ended(await ward.client.scrub_pool("lone"))
    assert (await ward.client.pool("lone")).why == "it serves"


async def test_a_pool_that_the_kernel_stopped_writing_to_says_so_and_the_state_is_kept_elsewhere(
    ward: Ward,
) -> None:
    file = "/run/zn/pools/lone/later"
    await ward.pool("lone", "lone", profile="single")
    await ward.machine.fail_disk("lone", Fault("write"))
    assert await order(ward.machine, "write", file) == "begun"
    await pool_in(ward.client, "lone", "failed")
    await told(
        ward.client, "pool lone", "Alert: its files can only be read: the kernel stopped writing to it"
    )
    assert not (await ward.client.health()).ok
    await ward.client.put_config(NodeConfig(StorageConfig(media={"no such disk": "ssd"})))
    state = await ward.client.state()
    assert state.durable
    device = (await ward.client.disk("lone")).device
    assert [copy.path for copy in state.copies if not copy.ok] == [f"/dev/{device}1"]
    await ward.machine.mend_disk("lone")

    async def all_hold() -> bool:
        return all(copy.ok for copy in (await ward.client.state()).copies)

    await until(ward.client, all_hold)


async def test_a_disk_that_stops_answering_is_told_and_others_serve(ward: Ward) -> None:
    file = "/run/zn/pools/mirror/later"
    await ward.machine.hang_disk("m2")
    assert await order(ward.machine, "write", file) == "begun"
    hung = await disk_in(ward.client, "m2", "hung")
    assert hung.why.startswith("it does not answer, and ")
    assert hung.why.endswith("; it is in use by pool mirror")
    assert hung.pool == "mirror"
    await told(ward.client, "virtio-m2", "Alert: it does not answer, and ")
    assert (await ward.client.pool("errors")).state == "online"
    await ward.machine.mend_disk("m2")
    assert (await disk_in(ward.client, "m2", "in-use")).why == "it is in use by pool mirror"
    count, words = (await order(ward.machine, "count", file)).split(" ", 1)
    assert (words, int(count) > 0) == ("records", True)


async def test_a_disk_that_another_node_claimed_is_refused(ward: Ward, tmp_path: Path) -> None:
    """What the two nodes of a swap see: the disk's claim is none of theirs."""
    foreign = with_claim(blank(tmp_path, "swapped"), "mirror")
    before = digest(foreign.path)
    await ward.machine.plug_disk(foreign)
    disk = await disk_in(ward.client, "swapped", "foreign")
    assert disk.why.startswith("it is not touched: it was claimed by another node, or by this one before")
    with pytest.raises(RefusedError, match="it holds another node's claim"):
        await ward.client.claim_disk("swapped", Claim())
    assert {one.disk for one in (await ward.client.pool("mirror")).members} == {"virtio-m2", "virtio-spare"}
    await ward.machine.pull("swapped", READY_SECONDS)
    assert digest(foreign.path) == before


async def test_a_full_pool_says_so_and_serves(ward: Ward) -> None:
    await ward.pool("small", "tiny", profile="single")
    said = await order(ward.machine, "fill", "/run/zn/pools/small/file")
    assert said.endswith("MiB, then No space left on device")

    async def full() -> bool:
        pool = await ward.client.pool("small")
        return pool.free < 32 * MIB < pool.size

    await until(ward.client, full)
    assert (await ward.client.pool("small")).state == "online"


async def test_a_pool_whose_metadata_is_full_says_so_and_deleting_helps(ward: Ward) -> None:
    size = (await ward.pool("crowded", "crowded", profile="single")).size // MIB * MIB
    await ward.client.put_volume("hog", VolumeSpec(size, "crowded"))
    await order(ward.machine, "crowd", "/run/zn/pools/crowded/volumes/hog")
    full = "it serves, but its metadata is full, so it takes nothing more; delete files, snapshots or volumes"
    await told(ward.client, "pool crowded", f"Alert: {full}")
    assert (await ward.client.pool("crowded")).why == full
    with pytest.raises(RefusedError, match="pool crowded is full"):
        await ward.client.put_volume("more", VolumeSpec(16 * MIB, "crowded"))
    await ward.client.put_config(NodeConfig())
    assert (await ward.client.state()).durable
    await ward.client.delete_volume("hog")

    async def well() -> bool:
        return (await ward.client.pool("crowded")).why == "it serves"

    await until(ward.client, well)
    assert (await ward.client.put_volume("more", VolumeSpec(16 * MIB, "crowded"))).state == "ready"


async def test_24_disks_are_listed_and_delay_no_boot(
    machines: Machines,
    direct_boot: DirectBoot,
    tmp_path: Path,
    connect: Callable[[Machine], Awaitable[NodeClient]],
) -> None:
    buses = ("virtio", "ahci", "nvme")
    disks = tuple(blank(tmp_path, f"d{number}", bus=buses[number % 3]) for number in range(24))
    machine = await machines.start(MachineSpec("crowded", direct_boot, disks=disks, spare_slots=0))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        assert await client.node()
        found = await settled(client, 24)
        assert set(found) == {disk.name for disk in disks}
        assert {one.state for one in found.values()} == {"unclaimed"}
