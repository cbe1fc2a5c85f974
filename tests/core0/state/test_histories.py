"""Random lives of a node with several disks: power cuts amid writes, disks that die, hang, are pulled and come back.

What was acknowledged is there again after each boot, as long as one of the disks is present that were to have it;
nothing half-made is; whatever the order of the disks. A machine that boots without any of its disks is another node,
and may get disks of its own: then both are there, and either may be chosen.
"""

import asyncio
import itertools
import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core0.state.choose import choose
from core0.state.model import Machine
from core0.state.store import StateStore
from core0.wire.control import RefusedError
from tests.core0.state.model_disks import ModelAreas, ModelDisk, PowerCutError

HERE = Machine("e2b1c3d4-1111-4222-8333-444455556666")
DISKS = "abcd"
DISK = st.sampled_from(DISKS)
PRESENT = st.sets(DISK)
KEYS = ("x", "y")
KEY = st.sampled_from(KEYS)

Content = dict[str, int]


class World(msgspec.Struct):
    """What may be found at the next boot: what was acknowledged, the disks that were to have it, the node's id.

    One that `began_beside` is what a node found that booted without the disks that had more.
    """

    acknowledged: Content
    members: set[str]
    node: str
    began_beside: bool = False


class Lives(RuleBasedStateMachine):
    """One machine and its disks."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()
        self.memory = Path(self.folder.name, "state.json")
        self.disks = {disk: ModelDisk() for disk in DISKS}
        self.plugged = set(DISKS)
        self.clock = 0
        self.value = 0
        self.late = True
        self.worlds: dict[str, list[World]] = {}
        # replaced by what was acknowledged later, without their disks, which still have them
        self.earlier: dict[str, list[World]] = {}
        self.nodes: set[str] = set()
        self.unacknowledged: set[tuple[str, int]] = set()
        # what the running node has, if it booted without any disk of these worlds
        self.beside: World | None = None

    def teardown(self) -> None:
        self.runner.close()
        self.folder.cleanup()

    @initialize(disks=st.sets(DISK, min_size=1))
    def claim(self, disks: set[str]) -> None:
        self._start()
        for disk in sorted(disks):
            self.runner.run(self.store.join(disk, disk))
        self._put("x")

    # the node's life

    @rule(key=KEY)
    def put(self, key: str) -> None:
        self._put(key)

    @rule(key=KEY)
    def put_two_at_once(self, key: str) -> None:
        async def both() -> None:
            await asyncio.gather(*(self.store.change(one) for one in (first, second)))

        first, second = self._next(key), self._next("z")
        self._try(both(), {**_read(first), **_read(second)})

    @rule(
        key=KEY,
        steps=st.dictionaries(DISK, st.integers(0, 4), min_size=1),
        seed=st.integers(0, 1 << 32),
        present=PRESENT,
    )
    def cut_power_amid_a_put(self, key: str, steps: Mapping[str, int], seed: int, present: set[str]) -> None:
        """What survives is drawn by the seed: how many sectors there are depends on random names."""
        chance = random.Random(seed)
        for disk, count in steps.items():
            self.disks[disk].steps = count
        self._put(key)
        for disk in self.disks.values():
            disk.cut_power(lambda: chance.random() < 0.5)
        self._boot(present)

    @rule(present=PRESENT)
    def reboot(self, present: set[str]) -> None:
        self._boot(present)

    @rule(late=st.booleans())
    def restart_the_daemon(self, late: bool) -> None:
        self.late = late
        self._start()
        self._check_chosen()

    # the disks' lives

    @rule(disk=DISK, mode=st.sampled_from(("well", "dead", "hung")))
    def change_mode(self, disk: str, mode: str) -> None:
        self.disks[disk].mode = mode  # type: ignore[assignment]

    @rule(disk=DISK)
    def pull(self, disk: str) -> None:
        self.plugged.discard(disk)
        self.runner.run(self.store.lose(disk, "it was pulled"))

    @rule(disk=DISK)
    def plug(self, disk: str) -> None:
        self.plugged.add(disk)
        self._join(disk)

    @rule(disk=DISK)
    def give_back(self, disk: str) -> None:
        """The operator takes the disk from the node, which then erases it."""
        self.plugged.add(disk)
        self.areas.disks[disk] = self.disks[disk]
        self._leave(disk)

    # what is always so

    @invariant()
    def nothing_is_half_made(self) -> None:
        for name in KEYS:
            assert self.store.get(name) == self.store.get(f"{name}-twin")

    @precondition(lambda self: self._readable())
    @invariant()
    def the_order_of_disks_does_not_matter(self) -> None:
        readings = [self.runner.run(self.areas.read(disk)) for disk in sorted(self._readable())]
        assert choose(readings, HERE).state == choose(readings[::-1], HERE).state

    # how it is done

    def _readable(self) -> set[str]:
        return {disk for disk in self.plugged if self.disks[disk].mode == "well"}

    def _start(self) -> None:
        """A daemon begins, with what it can read and what is left in memory."""

        async def start() -> None:
            self.areas = ModelAreas({disk: self.disks[disk] for disk in self.plugged})
            self.store = StateStore(self.areas, HERE, lambda *_: None, str(self.memory), self._now)
            self.store.take([await self.areas.read(disk) for disk in sorted(self.plugged)])
            if self.late:
                await self.store.catch_up()

        self.runner.run(start())

    def _boot(self, present: set[str]) -> None:
        self.memory.unlink(missing_ok=True)
        self.plugged = set(present)
        for disk in self.disks.values():
            disk.steps = None
        self.beside = None
        self._start()
        self._check_chosen()

    def _check_chosen(self) -> None:
        """What the node has now is what one of the worlds had that left a disk here; or it begins beside them."""
        if self.beside and self._fits(self.beside):
            return
        here = self._readable()
        left = {
            node: possible
            for node, worlds in self.worlds.items()
            if (possible := [world for world in worlds if world.members & here])
        }
        if self.beside:  # with nothing, or a disk that was behind, it wrote nothing; now it has found more
            fresh = not (self.beside.acknowledged or self.beside.members)
            assert fresh or (self.store.node == self.beside.node and self.store.node in left)
            self.beside = None
        if self.store.node in left:
            found = left[self.store.node]
            if all(world.began_beside for world in found):  # another disk may have more
                found = [
                    *found,
                    *(one for one in self.earlier.get(self.store.node, ()) if one.members & here),
                ]
            assert any(map(self._fits, found))
            self._note_members()
        else:
            assert not left or self.store.node in self.nodes
            self.beside = World(self._content(), self._members(), self.store.node, began_beside=True)

    def _fits(self, world: World) -> bool:
        """Whether the node has what it had there, or what came later and was not acknowledged: values only grow."""
        now, then = self._content(), world.acknowledged
        return all(
            now.get(key) == then.get(key)
            or (now.get(key, 0) > then.get(key, 0) and (key, now[key]) in self.unacknowledged)
            for key in {*now, *then}
        )

    def _content(self) -> Content:
        return {key: int(value) for key in (*KEYS, "z") if (value := self.store.get(key))}

    def _members(self) -> set[str]:
        """The disks that hold what the node has, as far as that is certain."""
        return set() if self.store._is_behind else set(self.store.joined())

    def _now(self) -> int:
        self.clock += 1
        return self.clock

    def _next(self, key: str) -> dict[str, bytes]:
        self.value += 1
        value = str(self.value).encode()
        return {key: value, f"{key}-twin": value}

    def _put(self, key: str) -> None:
        change = self._next(key)
        self._try(self.store.change(change), _read(change))

    def _try(self, putting, change: Content) -> None:  # type: ignore[no-untyped-def]
        before = self._content()
        try:
            self.runner.run(putting)
        except (RefusedError, PowerCutError):
            worlds = self.worlds.setdefault(self.store.node, [])
            if self.beside:  # any of its disks may have it now, as what was begun there
                self.beside.members |= set(self.store.joined())
                worlds.append(self.beside)
                self.beside = None
            self.unacknowledged |= set(change.items())
        else:
            assert self._content() == {**before, **change}
            self._acknowledge()

    def _acknowledge(self) -> None:
        """From here on the node has to have what it has now; without disks only until the power is cut."""
        now = World(self._content(), self._members(), self.store.node)
        if self.store.ephemeral:
            self.beside = now
        else:
            self.earlier.setdefault(self.store.node, []).extend(self.worlds.get(self.store.node, ()))
            self.worlds[self.store.node], self.beside = [now], None

    def _join(self, disk: str) -> None:
        was_ephemeral = self.store.ephemeral
        self.areas.disks[disk] = self.disks[disk]
        try:
            self.runner.run(self.store.join(disk, disk))
        except RefusedError:
            if self.store.superseded.is_set():
                self._boot(self.plugged)
            return
        if was_ephemeral and self._content():
            self._acknowledge()
        self._note_members()

    def _leave(self, disk: str) -> None:
        try:
            self.runner.run(self.store.leave(disk))
        except RefusedError:
            return
        self.disks[disk] = self.areas.disks[disk] = ModelDisk()
        everything = (*self.worlds.values(), *self.earlier.values(), filter(None, [self.beside]))
        for world in itertools.chain(*everything):
            world.members.discard(disk)
        self._note_members()

    def _note_members(self) -> None:
        """Disks that have joined hold what the node has, too; and nothing else any more."""
        self.nodes.add(self.store.node)
        members = self._members()
        if self.beside:
            self.beside.members |= members
        for world in self.worlds.get(self.store.node, ()):
            fits = not self.beside and self._fits(world)
            world.members = world.members | members if fits else world.members - members


def _read(change: Mapping[str, bytes]) -> Content:
    return {key: int(value) for key, value in change.items() if not key.endswith("-twin")}


Lives.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
TestLives = Lives.TestCase
