"""Power cuts: whatever the moment, what was acknowledged is there afterwards, and nothing is half made.

Most cuts are made on a log of all writes of one run (ci/qemu/write_log.py): the disk as it would be after each of a
hundred random moments is looked at by the node's own code on this machine. Real ones are in test_real_cuts.py.
"""

import asyncio
import os
import random
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from ci.qemu.write_log import Replay
from core0.client.client import NodeClient
from core0.disks.model import DATA_TYPE, STATE_TYPE, Known
from core0.linux import blkid
from core0.linux.worker import Worker
from core0.state.choose import choose
from core0.state.disk import interpret, read_slots
from core0.wire.storage import PoolSpec, Selector
from core0.wire.types import Container, ContainerSpec
from core0.wire.volumes import Origin, VolumeSpec
from tests.core0.disks.loop import can_loop
from tests.core0.volumes.conftest import Node
from tests.disk_images import MIB, SIZE, blank
from tests.vm import writing
from tests.vm.inside import running
from tests.vm.sabotage import order, sabotage
from tests.vm.saboteur import record
from tests.vm.shelf import READY_SECONDS, settled

Connect = Callable[[Machine], Awaitable[NodeClient]]
MOMENTS = 100
RECORD = len(record(0))
FILE = "/run/zn/pools/safe/volumes/diary/file"


@dataclass
class Promise:
    """Something that the node acknowledged: from a place of the log on, perhaps until another."""

    what: str
    since: int
    until: int | None = None

    def holds(self, moment: int) -> bool:
        """Whether it must be there after a cut at this place."""
        return self.since <= moment and (self.until is None or moment < self.until)


@dataclass
class Ledger:
    """What a node acknowledged, by how long the log of writes was then."""

    log: Path
    pool: int = 0
    records: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    volumes: list[Promise] = field(default_factory=list)
    ended: list[Promise] = field(default_factory=list)

    def now(self) -> int:
        """The place of the log."""
        return self.log.stat().st_size

    def reached(self, file: str, count: int) -> None:
        """So many records of a file, named by its volume, are acknowledged."""
        self.records[file].append((count, self.now()))

    def made(self, what: str) -> None:
        """A volume or a snapshot is acknowledged."""
        self.volumes.append(Promise(what, self.now()))

    @contextmanager
    def ending(self, what: str) -> Iterator[None]:
        """Its end is asked for in the block, and acknowledged behind it."""
        next(one for one in self.volumes if one.what == what and one.until is None).until = self.now()
        yield
        self.ended.append(Promise(what, self.now()))


async def live(client: NodeClient, machine: Machine, ledger: Ledger, wanted: ContainerSpec) -> None:
    """An eventful life: a pool, volumes that come and go, a process and a container that write all the time."""
    pool = await client.put_pool("safe", PoolSpec(Selector(), format_blank=True), wait=60)
    assert pool.state == "online", pool.why
    ledger.pool = ledger.now()
    for name in ("diary", writing.VOLUME):
        await client.put_volume(name, VolumeSpec(256 * MIB, "safe"))
        ledger.made(name)
    assert await order(machine, "write", FILE) == "begun"
    async with listening(machine, await running(client, writing.NAME, wanted), ledger):
        await change_volumes(client, machine, ledger)
    count, words = (await order(machine, "count", FILE)).split(" ", 1)
    assert words == "records"
    ledger.reached("diary/file", int(count))


@asynccontextmanager
async def listening(machine: Machine, container: Container, ledger: Ledger) -> AsyncIterator[None]:
    """Note in the block what a container has written; it must have written something in the end."""

    async def listen() -> None:
        async for count in writing.acknowledged(machine, container):
            ledger.reached("journal/records", count)

    task = asyncio.create_task(listen())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert ledger.records["journal/records"], "the container wrote nothing"


async def change_volumes(client: NodeClient, machine: Machine, ledger: Ledger) -> None:
    """Make volumes, clones and snapshots, and delete some."""
    for round_ in range(6):
        name = f"guest{round_}"
        origin = Origin("diary", f"day{round_ - 1}") if round_ % 2 else None
        await client.put_volume(
            name, VolumeSpec(32 * MIB if origin is None else 256 * MIB, "safe", origin=origin)
        )
        ledger.made(name)
        await client.take_snapshot("diary", f"day{round_}")
        ledger.made(f"diary@day{round_}")
        ledger.reached("diary/file", int(await order(machine, "reached", FILE)))
        if round_ % 3 != 2:
            with ledger.ending(name):
                await client.delete_volume(name)
        if round_ >= 2:
            with ledger.ending(f"diary@day{round_ - 2}"):
                await client.delete_snapshot("diary", f"day{round_ - 2}")
        ledger.reached("diary/file", int(await order(machine, "reached", FILE)))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ledger(
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    tmp_path_factory: pytest.TempPathFactory,
    connect: Connect,
    spec: Callable[..., ContainerSpec],
) -> AsyncIterator[Ledger]:
    """What a node acknowledged in an eventful life, with the log of its disk's writes."""
    folder = tmp_path_factory.mktemp("safe")
    log = folder / "safe.log"
    log.touch()
    safe = MachineSpec("safe", sabotage(direct_boot, folder), disks=(blank(folder, "safe", log=log),))
    found = Ledger(log)
    async with Machine(safe, acceleration, folder) as machine:
        await machine.wait_for_phase("ready", READY_SECONDS)
        async with await connect(machine) as client:
            await settled(client, 1)
            await live(client, machine, found, writing.writer(spec))
        await machine.quit()
    yield found
    log.unlink()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


class StateArea(NamedTuple):
    """The state's area in an image, as core0.state reads one."""

    file: BinaryIO
    start: int

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.file.fileno(), length, self.start + offset)

    def write(self, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        raise NotImplementedError


def examine_state(image: Path, start: int) -> None:
    """The node remembers its pool as made, once that was acknowledged."""
    with image.open("rb") as file:
        reading = interpret(str(image), read_slots(StateArea(file, start)))
    assert reading.held, f"the state is gone: {reading.error or reading.strange}"
    state = choose([reading], reading.held[0].copy.state.machine).state
    assert state
    known = msgspec.json.decode(state.sections["disks"], type=Known)
    assert known.pools["safe"].made
    assert [disk.pool for disk in known.disks.values()] == ["safe"]
    assert "safe" in msgspec.json.decode(state.sections["pools"])


def unmount(place: Path) -> None:
    """Unmount it; on a busy machine a process that looked at it may still be ending."""
    for _ in range(100):
        done = subprocess.run(["umount", place], capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    pytest.fail(f"cannot unmount {place}: {done.stderr}")


@contextmanager
def mounted(image: Path, start: int, place: Path) -> Iterator[None]:
    """The pool in an image, whose partition begins there."""
    subprocess.run(["mount", "-t", "btrfs", "-o", f"loop,offset={start}", image, place], check=True)
    try:
        yield
    finally:
        unmount(place)


class Doctor:
    """Looks at a disk after a cut with the node's own code."""

    def __init__(self, ledger: Ledger, worker: Worker, folder: Path) -> None:
        self.ledger = ledger
        self.node = Node(worker, folder / "memory")
        self.place = folder / "pool"
        self.place.mkdir()

    async def examine(self, image: Path, moment: int) -> None:
        """Fail if something that was acknowledged by then is not there, or something half made is."""
        found = blkid.probe(str(image))
        if moment < self.ledger.pool:
            return
        assert {one.type for one in found.partitions} == {STATE_TYPE, DATA_TYPE}, "the table is gone"
        starts = {one.type: one.start for one in found.partitions}
        examine_state(image, starts[STATE_TYPE])
        with mounted(image, starts[DATA_TYPE], self.place):
            await self._examine_volumes(moment)
            self._examine_records(moment)

    async def _examine_volumes(self, moment: int) -> None:
        self.node.volumes = self.node.make()
        self.node.pools.change(safe=self.place)
        async with self.node.running():
            await self.node.wait_taken("safe")
            found = await self.node.volumes.list()
        self.node.pools.change()
        there = {one.name for one in found} | {
            f"{one.name}@{two.name}" for one in found for two in one.snapshots
        }
        assert {one.state for one in found} <= {"ready"}
        promised = {one.what for one in self.ledger.volumes if one.holds(moment)}
        assert promised <= there, f"acknowledged, but gone: {promised - there}"
        ended = {one.what for one in self.ledger.ended if one.holds(moment)}
        assert not ended & there, f"deleted, but there again: {ended & there}"
        assert list((self.place / "incoming").iterdir()) == []

    def _examine_records(self, moment: int) -> None:
        for file, records in self.ledger.records.items():
            count = max((count for count, since in records if since <= moment), default=0)
            if count:
                held = (self.place / "volumes" / file).read_bytes()[: count * RECORD]
                assert held == b"".join(map(record, range(count))), f"records of {file} are lost"


@pytest.mark.root
@pytest.mark.skipif(not can_loop(), reason="needs root and loop devices")
async def test_what_was_acknowledged_outlives_a_cut_at_any_moment(
    ledger: Ledger, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core0.wire.paths.STORAGE", "")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    replay = Replay(ledger.log, SIZE, tmp_path)
    last = len(replay.requests)
    moments = (*sorted(chance.sample(range(1, last), MOMENTS)), last)
    doctor = Doctor(ledger, worker, tmp_path)
    for moment in moments:
        try:
            await doctor.examine(replay.cut(moment, chance), replay.requests[moment - 1].end)
        except BaseException as error:
            error.add_note(f"after request {moment} of {last}, seed {seed}")
            raise
    replay.end()
