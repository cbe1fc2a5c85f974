"""Real power cuts of a node that works, one after another on the same disks: all that it acknowledged is there.

Meanwhile the node writes its state, makes, changes and deletes volumes and snapshots, and a container writes to one.
`--power-cuts N` says how many cuts; a failure names its seed.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

from ci.pytest_machines import Machines
from ci.qemu.console import ConsoleError
from ci.qemu.machine import Machine
from ci.qemu.monitor import MonitorError
from ci.qemu.spec import DirectBoot, MachineSpec
from ci.qemu.write_log import Replay, copy_sparse
from core0.client.client import NodeClient, UnreachableError
from core0.wire.config import NodeConfig
from core0.wire.storage import PoolSpec, Selector, StorageConfig
from core0.wire.types import ContainerSpec
from core0.wire.volumes import Origin, Volume, VolumeSpec
from corex.client import client as corex
from tests.disk_images import MIB, SIZE, blank
from tests.vm import writing
from tests.vm.inside import running
from tests.vm.sabotage import order, sabotage
from tests.vm.shelf import READY_SECONDS, settled, until

Connect = Callable[[Machine], Awaitable[NodeClient]]
Spec = Callable[..., ContainerSpec]
UUID = "7e5c1d2a-0f5b-4b8c-9a53-0c9f1f6f2d11"
JOURNAL = writing.VOLUME
POOL = "/run/zn/pools/safe"
DISKS = ("one", "two")
# How long the node works before a cut at most, in seconds under KVM.
LONGEST = 0.6
# So many volumes besides the journal, and snapshots of it, are never deleted: the first by name.
KEPT = 3
CONFIG = "the config"
# What a cut does to who works with the machine.
CUT_OFF = (
    asyncio.CancelledError,
    ConsoleError,
    MonitorError,
    UnreachableError,
    corex.UnreachableError,
    aiohttp.ClientError,
)
UNKNOWN_DISK = "a serial number that no disk has"


class Held(NamedTuple):
    """What there is of a volume."""

    size: int
    snapshots: frozenset[str] = frozenset()


class Ledger:
    """Each thing by its name: as the node acknowledged it, and as it was asked for last."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, object] = {}
        self._asked: dict[str, object] = {}

    @contextmanager
    def asking(self, name: str, value: object) -> Iterator[None]:
        """Something is asked for in the block, and acknowledged behind it; None is its end."""
        self._asked[name] = value
        yield
        self._note(name, value)

    def settle(self, found: Mapping[str, object]) -> None:
        """After a cut each thing must be there as it was acknowledged or asked for, and nothing else."""
        for name in self.acknowledged.keys() | found.keys():
            kept, asked, now = (one.get(name) for one in (self.acknowledged, self._asked, found))
            asked = asked if name in self._asked else kept
            assert now in (kept, asked), f"{name} is {now}; acknowledged was {kept}, asked for {asked}"
            self._note(name, now)
        self._asked.clear()

    def held(self, volume: str) -> Held | None:
        """What was acknowledged of a volume."""
        found = self.acknowledged.get(f"volume {volume}")
        assert isinstance(found, Held | None)
        return found

    def kept(self, volume: str) -> list[str]:
        """Its snapshots."""
        held = self.held(volume)
        return sorted(held.snapshots) if held else []

    def volumes(self) -> list[str]:
        """All but the journal."""
        names = (name.removeprefix("volume ") for name in self.acknowledged if name.startswith("volume "))
        return sorted(name for name in names if name != JOURNAL)

    def _note(self, name: str, value: object) -> None:
        self._asked.pop(name, None)
        self.acknowledged[name] = value
        if value is None:
            del self.acknowledged[name]


class Life:
    """What a node is made to do until the power goes, and what is there of it afterwards."""

    def __init__(self, machine: Machine, connect: Connect, spec: Spec, chance: random.Random) -> None:
        self.machine = machine
        self.ledger = Ledger()
        self.records = 0
        self._connect = connect
        self._spec = spec
        self._chance = chance

    async def begin(self) -> None:
        """Make the pool, the journal and the container that writes to it."""
        async with await self._connect(self.machine) as client:
            await settled(client, len(DISKS))
            pool = await client.put_pool(
                "safe", PoolSpec(Selector(DISKS), "raid1", format_blank=True), wait=60
            )
            assert pool.state == "online", pool.why
            await self._put(client, JOURNAL, 256 * MIB)
            with self.ledger.asking(f"container {writing.NAME}", True):
                await running(client, writing.NAME, writing.writer(self._spec))

    async def go_on(self) -> None:
        """Everything at once, for ever."""
        async with await self._connect(self.machine) as client, asyncio.TaskGroup() as group:
            group.create_task(self._listen(client))
            group.create_task(self._change_state(client))
            group.create_task(self._change_volumes(client))

    async def _listen(self, client: NodeClient) -> None:
        container = await client.container(writing.NAME)
        async for count in writing.acknowledged(self.machine, container):
            self.records = count
        raise UnreachableError("the container's log has ended")

    async def _change_state(self, client: NodeClient) -> None:
        while True:
            media = self._chance.choice(("hdd", "ssd", "nvme"))
            with self.ledger.asking(CONFIG, media):
                await client.put_config(NodeConfig(StorageConfig(media={UNKNOWN_DISK: media})))
            with self.ledger.asking("container guest", True):
                await client.put_container("guest", self._spec(argv=("/bin/busybox", "sleep", "600")))
            with self.ledger.asking("container guest", None):
                await client.delete_container("guest")

    async def _change_volumes(self, client: NodeClient) -> None:
        verbs = (self._keep, self._copy, self._create, self._grow, self._delete_volume, self._delete_snapshot)
        while True:
            await self._chance.choice(verbs)(client)

    async def _keep(self, client: NodeClient) -> None:
        """A snapshot of the journal is called by the records that it has at least."""
        await self._take_snapshot(client, JOURNAL, f"at{self.records}")

    async def _copy(self, client: NodeClient) -> None:
        if kept := self._chosen(self.ledger.kept(JOURNAL)):
            name = f"copy{kept.removeprefix('at')}"
            await self._put(client, name, 256 * MIB, Origin(JOURNAL, kept))

    async def _create(self, client: NodeClient) -> None:
        await self._put(client, f"new{self.records}", 32 * MIB)

    async def _grow(self, client: NodeClient) -> None:
        if name := self._chosen(self.ledger.volumes()):
            await self._put(client, name, (self.ledger.held(name) or Held(0)).size + 16 * MIB)
            await self._take_snapshot(client, name, "grown")

    async def _delete_volume(self, client: NodeClient) -> None:
        if name := self._chosen(self.ledger.volumes()[KEPT:]):
            with self.ledger.asking(f"volume {name}", None):
                await client.delete_volume(name, snapshots=True)

    async def _delete_snapshot(self, client: NodeClient) -> None:
        if name := self._chosen(self.ledger.kept(JOURNAL)[KEPT:]):
            held = self.ledger.held(JOURNAL) or Held(0)
            with self.ledger.asking(f"volume {JOURNAL}", held._replace(snapshots=held.snapshots - {name})):
                await client.delete_snapshot(JOURNAL, name)

    def _chosen(self, names: Sequence[str]) -> str:
        return self._chance.choice(names) if names else ""

    async def _put(self, client: NodeClient, name: str, size: int, origin: Origin | None = None) -> None:
        held = self.ledger.held(name) or Held(size)
        with self.ledger.asking(f"volume {name}", held._replace(size=size)):
            await client.put_volume(name, VolumeSpec(size, "safe", origin=origin))

    async def _take_snapshot(self, client: NodeClient, volume: str, name: str) -> None:
        held = self.ledger.held(volume) or Held(0)
        with self.ledger.asking(f"volume {volume}", held._replace(snapshots=held.snapshots | {name})):
            await client.take_snapshot(volume, name)

    async def come_back(self) -> None:
        """Wait until the node, its pool and its container are there again."""
        await self.machine.wait_for_phase("ready", READY_SECONDS)
        async with await self._connect(self.machine) as client:
            pool = await client.pool("safe", wait=60)
            assert pool.state == "online", pool.why
            await until(client, lambda: self._works(client))

    async def _works(self, client: NodeClient) -> bool:
        containers = {one.name: one.state for one in await client.containers()}
        state = await client.state()
        return containers.get(writing.NAME) == "running" and all(copy.ok for copy in state.copies)

    async def examine(self) -> None:
        """Fail if something that was acknowledged is not there, or something half made is."""
        async with await self._connect(self.machine) as client:
            disks = {one.serial: (one.state, one.pool) for one in await client.disks()}
            assert disks == dict.fromkeys(DISKS, ("in-use", "safe"))
            state = await client.state()
            assert (state.durable, len(state.copies), state.warnings) == (True, len(DISKS), ())
            volumes = await client.volumes()
            assert {one.name: one.why for one in volumes if one.state != "ready"} == {}
            self.ledger.settle(
                {f"volume {one.name}": held(one) for one in volumes}
                | {f"container {one.name}": True for one in await client.containers()}
                | dict.fromkeys((CONFIG,), (await client.config()).config.storage.media.get(UNKNOWN_DISK))
            )
        await self._examine_pool()

    async def _examine_pool(self) -> None:
        assert await order(self.machine, "ls", f"{POOL}/incoming") == ""
        names = (await order(self.machine, "ls", f"{POOL}/volumes")).split()
        assert names == sorted((JOURNAL, *self.ledger.volumes()))
        assert set((await order(self.machine, "ls", f"{POOL}/snapshots")).split()) <= set(names)
        kept = self.ledger.kept(JOURNAL)
        counts = {f"snapshots/{JOURNAL}/{name}": name.removeprefix("at") for name in kept}
        counts |= {f"volumes/{name}": name.removeprefix("copy") for name in names if name.startswith("copy")}
        counts[f"volumes/{JOURNAL}"] = str(self.records)
        for place, count in counts.items():
            said = await order(self.machine, "check", f"{POOL}/{place}/records", count)
            assert said == f"all {count} records are right", place


def held(volume: Volume) -> Held:
    """What the node shows of a volume."""
    return Held(volume.size, frozenset(one.name for one in volume.snapshots))


async def cut_during(
    work: Coroutine[None, None, None], seconds: float, cut: Callable[[], Awaitable[None]]
) -> None:
    """Cut the power so long after some work has begun, or at its end."""
    task = asyncio.create_task(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if done:
        await task
    await cut()
    task.cancel()
    try:
        await task
    except* CUT_OFF:
        pass


class Power:
    """The power of a machine whose disks have caches: a log of each holds what it wrote since it was switched on.

    Attributes:
        disks: the machine's.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.disks = tuple(blank(folder, name, log=folder / f"{name}.log") for name in DISKS)
        self._folder = folder
        self._chance = chance
        self._begin()

    def _begin(self) -> None:
        for disk in self.disks:
            assert disk.log
            disk.log.write_bytes(b"")
            copy_sparse(disk.path, disk.path.with_suffix(".start"))

    async def cut(self, machine: Machine) -> None:
        """Take the power away and give it back; the disks are in the opposite order then."""
        await machine.cut_power()
        self._begin()
        machine.spec = msgspec.structs.replace(machine.spec, disks=machine.spec.disks[::-1])
        await machine.power_on()

    async def lose(self, machine: Machine) -> None:
        """Take the power away and with it what the disks had in their caches; give it back."""
        await machine.cut_power()
        for disk in self.disks:
            assert disk.log
            if disk.log.stat().st_size:  # else nothing was written since the start
                replay = Replay(disk.log, SIZE, self._folder, disk.path.with_suffix(".start"))
                copy_sparse(replay.cut(len(replay.requests), self._chance), disk.path)
                replay.end()
        self._begin()
        await machine.power_on()


async def test_all_that_was_acknowledged_outlives_real_cuts_one_after_another(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, spec: Spec, tmp_path: Path, power_cuts: int
) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    power = Power(tmp_path, chance)
    machine = await machines.start(
        MachineSpec("cut", sabotage(direct_boot, tmp_path), disks=power.disks, uuid=UUID)
    )
    await machine.wait_for_phase("ready", READY_SECONDS)
    identity = (await machine.wait_for_phase("identity", READY_SECONDS)).detail
    life = Life(machine, connect, spec, chance)
    await life.begin()
    for number in range(power_cuts):
        seconds = machine.acceleration.seconds(chance.uniform(0, LONGEST))
        cut = (machine.reset, lambda: power.cut(machine), lambda: power.lose(machine))[number % 3]
        try:
            await cut_during(life.go_on(), seconds, cut)
            if number % 3 == 2:
                await cut_during(life.come_back(), seconds, cut)
            await life.come_back()
            assert (await machine.wait_for_phase("identity", READY_SECONDS)).detail == identity
            await life.examine()
        except BaseException as error:
            error.add_note(f"at cut {number} after {seconds:.1f} s, seed {seed}")
            raise
    async with await connect(machine) as client:
        operation = await client.scrub_pool("safe")
        while operation.state == "running":
            operation = await client.operation(operation.id, wait=30)
    assert " 0 errors, 0 corrected, 0 beyond correction" in operation.detail
