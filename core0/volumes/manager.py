"""The volume manager: brings pools that come in order, and obeys its verbs.

It keeps no list of its own: what there is stands on the pools, so a pool that is carried to another node brings its
volumes. One change at a time is made on a pool, in a process that can be given up if the disk hangs; the answer to a
verb comes when the change is on the disks.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from core0.linux import files
from core0.linux.worker import HungError, Worker
from core0.volumes import apply, observe
from core0.volumes.explain import (
    conflict,
    in_words,
    invalid,
    no_snapshot,
    no_volume,
    refusal_of,
    shown,
    shown_of_memory,
)
from core0.volumes.memory import Memory
from core0.volumes.model import (
    Action,
    DeleteSnapshot,
    DeleteVolume,
    RollBack,
    SeenPool,
    SeenVolume,
    TakeSnapshot,
)
from core0.volumes.plan import plan_count, plan_pool, plan_volume
from core0.wire.control import RefusedError, Report
from core0.wire.volumes import IoLimits, Volume, VolumeSpec

# Seconds: for a look, for a change (a commit on a busy pool of slow disks), for reading all of a clone's tree.
_LOOK, _CHANGE, _COUNT = 15.0, 60.0, 600.0
# Whoever asks for figures waits so long for fresh ones.
_FIGURES = 2.0
# Clones are counted anew when they are this full, so often at most.
_COUNT_FROM, _COUNT_EVERY = 0.8, 60.0
_MOST_ROUNDS = 5


class Pools(Protocol):
    """What volumes need of the disks."""

    def folders(self) -> Mapping[str, str]:
        """The pools that serve: where they are mounted, by name."""

    async def wait_changed(self) -> None:
        """Wait until that is something else, perhaps."""


class _Place(msgspec.Struct, eq=False):
    """A pool.

    Attributes:
        name: its name.
        root: where it is mounted; empty if it is not.
        trouble: why it cannot be used; empty if it can.
        seen: what was seen of it last.
        changing: the turn to change it.
        busy: entries of `incoming` that something is being made in.
        counted: clones whose shared bytes were counted, and the transaction that had changed them last then.
        counting: clones that are being counted.
        taking: brings it in order.
        looking: reads its figures.
    """

    name: str
    root: str
    trouble: str
    seen: SeenPool | None = None
    changing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    busy: set[str] = msgspec.field(default_factory=set)
    counted: dict[str, int] = msgspec.field(default_factory=dict)
    counting: set[str] = msgspec.field(default_factory=set)
    taking: asyncio.Task[None] | None = None
    looking: asyncio.Task[None] | None = None

    def find(self, name: str) -> SeenVolume | None:
        """A volume as it was seen last."""
        return self.seen.find(name) if self.seen else None


class Volumes:
    """All volumes of the node."""

    def __init__(
        self,
        pools: Pools,
        worker: Worker,
        report: Report,
        memory: Memory,
        users: Callable[[str], tuple[str, ...]],
    ) -> None:
        """A manager that has not looked at any pool yet.

        Args:
            pools: where volumes lie.
            worker: does what may hang.
            report: where to tell what happened.
            memory: the volumes that lie nowhere else.
            users: the containers that have a volume in their spec.
        """
        self._pools = pools
        self._worker = worker
        self._report = report
        self._memory = memory
        self._users = users
        self._places: dict[str, _Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._defect: BaseException | None = None
        self._wake = asyncio.Event()
        memory.settle()

    # the loop

    async def run(self) -> None:
        """Take pools that come, and count clones. Ends by cancellation, or by a defect, which it raises."""
        self._begin(self._watch())
        try:
            while True:
                self._wake.clear()
                self.take_pools()
                if self._defect:
                    raise self._defect
                self._count_clones()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_COUNT_EVERY):
                        await self._wake.wait()
        finally:
            for task in self._tasks:
                task.cancel()

    async def _watch(self) -> None:
        while True:
            await self._pools.wait_changed()
            self._wake.set()

    def take_pools(self) -> None:
        """Look at pools that came, and note those that went; their volumes are known as long as this daemon lives."""
        mounted = self._pools.folders()
        for name, root in mounted.items():
            place = self._places.get(name)
            if place is None or not place.root:
                before = place.seen if place else None
                place = self._places[name] = _Place(name, root, f"pool {name} was not looked at yet", before)
            if place.trouble and (place.taking is None or place.taking.done()):
                place.taking = self._begin(self._take(place))
        for place in self._places.values():
            if place.name not in mounted:
                place.root, place.trouble = (
                    "",
                    f"pool {place.name} is not there; see 'zn pool show {place.name}'",
                )

    async def _take(self, place: _Place) -> None:
        """Bring a pool that came in order; tell what it brings."""
        try:
            async with place.changing:
                await self._put_in_order(place, tell=True)
        except OSError as error:
            self._trouble(place, error)
            return
        if place.root:
            place.trouble = ""
        volumes = place.seen.volumes if place.seen else ()
        names = ", ".join(volume.name for volume in volumes) or "none"
        self._report("volume", f"pool {place.name}", f"Its volumes: {names}")

    async def _sweep(self, place: _Place) -> None:
        """Delete what was put out of sight; the kernel frees it a little later."""
        try:
            async with place.changing:
                await self._put_in_order(place, tell=False)
        except OSError as error:
            self._trouble(place, error)

    async def _put_in_order(self, place: _Place, *, tell: bool) -> None:
        seen = await self._worker.call(observe.observe, place.root, deadline=_LOOK)
        before: tuple[Action, ...] = ()
        for _ in range(_MOST_ROUNDS):
            actions = plan_pool(seen, place.busy)
            if actions in ((), before):  # a group that is not free yet may stand in them again
                break
            for action in actions if tell else ():
                self._report("volume", f"pool {place.name}", str(action).capitalize())
            seen = await self._worker.call(apply.repair, place.root, actions, deadline=_CHANGE)
            before = actions
        place.seen = seen

    def _trouble(self, place: _Place, error: OSError) -> None:
        """The pool is not used until it was looked at again, which is tried now and then."""
        if place.root:
            place.trouble = f"pool {place.name} cannot be used: {error}"
            self._report("volume", f"pool {place.name}", f"Cannot be used: {error}")

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start work that nobody waits for; if it ends by a defect, so does the daemon."""
        task = asyncio.create_task(work, name="volumes")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._defect = error
            self._wake.set()

    # what is shown

    async def list(self) -> tuple[Volume, ...]:
        """All volumes, by name; those of a pool that does not answer as they were seen last."""
        await self._look(*self._places.values())
        pools = [self._shown(place, seen) for place, seen in self._everything()]
        return tuple(sorted((*pools, *self._shown_memory()), key=lambda one: (one.name, one.pool or "")))

    async def get(self, name: str, pool: str | None = None) -> Volume:
        """One volume.

        Args:
            name: its name.
            pool: where it lies, needed only if two pools have one of that name.

        Raises:
            RefusedError: 404 if there is none; 409 if two pools have one.
        """
        if pool is None and name in self._memory.list():
            return self._shown_one(name)
        place, _ = self._find(name, pool)
        await self._look(place)
        place, seen = self._find(name, pool)
        return self._shown(place, seen)

    def _everything(self) -> Iterator[tuple[_Place, SeenVolume]]:
        for place in self._places.values():
            for seen in place.seen.volumes if place.seen else ():
                yield place, seen

    def _shown(self, place: _Place, seen: SeenVolume) -> Volume:
        volume = shown(seen, place.name, place.trouble, place.seen, self._users(seen.name))
        others = self._places_of(seen.name)
        if len(others) > 1 and volume.state == "ready":
            said = " and ".join(others)
            why = f"{said} each have a volume of this name: say which with its pool, clone one, delete it"
            return msgspec.structs.replace(volume, state="conflict", why=why)
        return volume

    def _shown_memory(self) -> tuple[Volume, ...]:
        return tuple(self._shown_one(name) for name in self._memory.list())

    def _shown_one(self, name: str) -> Volume:
        kept = self._memory.list()[name]
        return shown_of_memory(name, kept, self._memory.used(name), self._users(name))

    def _places_of(self, name: str) -> tuple[str, ...]:
        """Where volumes of a name lie, in words."""
        pools = [f"pool {place.name}" for place, seen in self._everything() if seen.name == name]
        return (*pools, *(["the node's memory"] if name in self._memory.list() else []))

    async def _look(self, *places: _Place) -> None:
        """Have fresh figures, unless a pool takes its time."""
        tasks = [self._looking(place) for place in places if place.root and not place.trouble]
        if tasks:
            await asyncio.wait(tasks, timeout=_FIGURES)

    def _looking(self, place: _Place) -> asyncio.Task[None]:
        if place.looking is None or place.looking.done():
            place.looking = self._begin(self._look_at(place))
        return place.looking

    async def _look_at(self, place: _Place) -> None:
        async with place.changing:
            try:
                place.seen = await self._worker.call(observe.observe, place.root, deadline=_LOOK)
            except OSError as error:
                self._trouble(place, error)

    # verbs

    async def put(self, name: str, spec: VolumeSpec) -> Volume:
        """Have a volume as the spec says: make it, or give another size or other limits. Idempotent.

        Raises:
            RefusedError: if that cannot be; nothing has changed then.
        """
        if spec.pool is None:
            return self._put_in_memory(name, spec)
        if name in self._memory.list():
            raise conflict(
                f"cannot create volume {name} on pool {spec.pool}: the node's memory has one", _TAKEN
            )
        place = self._place(spec.pool)
        async with self._changing(place):
            seen = place.find(name)
            if seen is None:
                self._check_new(place, name, spec)
            else:
                await self._check_change(place, seen, spec)
            doing = f"{'change' if seen else 'create'} volume {name}"
            seen = await self._change(place, plan_volume(name, spec, seen), name, doing)
            if seen is None:
                raise no_volume(name)
        if spec.origin:
            self._begin(self._count(place, name))
        return self._shown(place, seen)

    async def delete(self, name: str, pool: str | None = None, *, snapshots: bool = False) -> None:
        """Delete a volume.

        Args:
            name: its name.
            pool: where it lies, if two pools have one of that name.
            snapshots: delete its snapshots with it.

        Raises:
            RefusedError: if a container has it in its spec, or it has snapshots that shall not go.
        """
        self._refuse_used(name, "delete")
        if pool is None and name in self._memory.list():
            self._memory.delete(name)
            self._report("volume", name, "Deleted")
            return
        place, _ = self._find(name, pool)
        async with self._changing(place):
            seen = self._there(place, name)
            if seen.snapshots and not snapshots:
                names = ", ".join(one.name for one in seen.snapshots)
                raise conflict(
                    f"cannot delete volume {name}: it has the snapshots {names}",
                    "delete them first, or with it: 'zn volume rm --snapshots', ?snapshots=true",
                )
            await self._change(place, (DeleteVolume(name),), name, f"delete volume {name}")
        self._begin(self._sweep(place))

    async def take_snapshot(self, volume: str, name: str, pool: str | None = None) -> Volume:
        """Take a snapshot. One of that name that is there already is an answer, too."""
        place, _ = self._find(volume, pool)
        async with self._changing(place):
            seen = self._there(place, volume)
            if all(one.name != name for one in seen.snapshots):
                doing = f"take snapshot {name} of volume {volume}"
                await self._change(place, (TakeSnapshot(volume, name),), volume, doing)
        return self._shown(*self._find(volume, place.name))

    async def delete_snapshot(self, volume: str, name: str, pool: str | None = None) -> None:
        """Delete a snapshot. Raises RefusedError (404)."""
        place, _ = self._find(volume, pool)
        async with self._changing(place):
            self._check_snapshot(self._there(place, volume), name)
            doing = f"delete snapshot {name} of volume {volume}"
            await self._change(place, (DeleteSnapshot(volume, name),), volume, doing)

    async def roll_back(self, volume: str, snapshot: str, pool: str | None = None) -> Volume:
        """Give a volume a snapshot's content; what was written since is lost.

        Raises:
            RefusedError: if a container has it in its spec, which would go on with what is gone.
        """
        place, _ = self._find(volume, pool)
        async with self._changing(place):
            self._check_snapshot(self._there(place, volume), snapshot)
            self._refuse_used(volume, "roll back")
            doing = f"roll volume {volume} back to {snapshot}"
            await self._change(place, (RollBack(volume, snapshot),), volume, doing)
        self._begin(self._sweep(place))
        return self._shown(*self._find(volume, place.name))

    # in the node's memory

    def _put_in_memory(self, name: str, spec: VolumeSpec) -> Volume:
        kept = self._memory.list().get(name)
        self._check_memory(name, spec)
        if kept is None:
            self._memory.create(name, spec)
            self._report("volume", name, f"Created in memory, {in_words(spec.size)}")
        elif kept.spec != spec:
            used = self._memory.used(name)
            if spec.size < used:
                raise _too_small(name, spec.size, used)
            self._memory.resize(name, spec)
        return self._shown_one(name)

    def _check_memory(self, name: str, spec: VolumeSpec) -> None:
        pools = [place.name for place, seen in self._everything() if seen.name == name]
        if pools:
            raise conflict(f"cannot create volume {name} in memory: pool {pools[0]} has one", _TAKEN, "/pool")
        if spec.origin:
            said = f"cannot create volume {name}: a volume in memory cannot be a copy"
            raise invalid(said, "name the pool of what it is copied from", "/from")
        if spec.io != IoLimits():
            said = f"cannot limit volume {name}: there is nothing to limit in memory"
            raise invalid(said, "leave the limits out", "/io")
        total = _memory_of_node()
        if spec.size > total:
            said = f"cannot have volume {name} of {in_words(spec.size)}: the node has {in_words(total)} of memory"
            raise invalid(said, "choose a smaller size", "/size")

    # checks

    def _check_new(self, place: _Place, name: str, spec: VolumeSpec) -> None:
        owner = next((other.name for other, seen in self._everything() if seen.name == name), None)
        if owner:
            raise conflict(f"cannot create volume {name} on pool {place.name}: pool {owner} has one", _TAKEN)
        self._check_room(place, name, spec)
        if spec.origin is None:
            return
        source = place.find(spec.origin.volume)
        if source is None:
            others = [other.name for other, seen in self._everything() if seen.name == spec.origin.volume]
            if others:
                said = f"cannot create volume {name}: volume {spec.origin.volume} lies on pool {others[0]}"
                raise invalid(said, "copy it there, or export and import it", "/pool")
            said = f"cannot create volume {name}: there is no volume {spec.origin.volume!a}"
            raise invalid(said, "see 'zn volume ls'", "/from/volume")
        if spec.origin.snapshot is not None:
            names = [one.name for one in source.snapshots]
            if spec.origin.snapshot not in names:
                said = f"cannot create volume {name}: {source.name} has no snapshot {spec.origin.snapshot!a}"
                raise invalid(said, f"it has: {', '.join(names) or 'none'}", "/from/snapshot")
        if source.record and spec.size < source.record.size and spec.size < source.used:
            said = f"cannot create volume {name}: {source.name} takes {in_words(source.used)}, a copy may as well"
            raise invalid(said, f"give it {source.used} bytes at least", "/size")

    def _check_room(self, place: _Place, name: str, spec: VolumeSpec) -> None:
        size = place.seen.size if place.seen else 0
        if spec.size > size:
            said = (
                f"cannot have volume {name} of {in_words(spec.size)}: pool {place.name} has {in_words(size)}"
            )
            raise invalid(said, "choose a smaller size, or a larger pool", "/size")

    async def _check_change(self, place: _Place, seen: SeenVolume, spec: VolumeSpec) -> None:
        record = seen.record
        if record is None:
            raise conflict(f"cannot change volume {seen.name}: {_shown_why(seen)}", "see 'zn volume show'")
        if spec.origin is not None and spec.origin != record.origin:
            said = f"cannot make volume {seen.name} a copy: it is there already"
            raise conflict(said, "choose another name, or delete it first", "/from")
        self._check_room(place, seen.name, spec)
        if spec.size < record.size:
            used = await self._used_now(place, seen.name)
            if spec.size < used:
                raise _too_small(seen.name, spec.size, used)

    async def _used_now(self, place: _Place, name: str) -> int:
        """What a volume takes, with what is on its way to the disks."""
        try:
            await self._worker.call(observe.settle, place.root, deadline=_CHANGE)
            seen = await self._worker.call(observe.observe_volume, place.root, name, deadline=_LOOK)
        except OSError as error:
            raise refusal_of(error, f"change volume {name}", place.name) from None
        return seen.used if seen else 0

    def _check_snapshot(self, seen: SeenVolume, name: str) -> None:
        if all(one.name != name for one in seen.snapshots):
            raise no_snapshot(seen.name, name)

    def _refuse_used(self, name: str, verb: str) -> None:
        users = self._users(name)
        if users:
            raise conflict(
                f"cannot {verb} volume {name}: container {', '.join(users)} has it",
                "remove the container first",
            )

    # what the verbs work with

    def _place(self, name: str) -> _Place:
        """A pool that can be used. Raises RefusedError, of the spec's field."""
        place = self._places.get(name)
        if place is None:
            known = ", ".join(self._places) or "none"
            said = f"cannot use pool {name!a}: there is none"
            raise invalid(said, f"the node has: {known}; see 'zn pool ls'", "/pool")
        if place.trouble:
            raise conflict(f"cannot use pool {name}: {place.trouble}", "see 'zn pool show'", "/pool")
        return place

    def _find(self, name: str, pool: str | None) -> tuple[_Place, SeenVolume]:
        found = [one for one in self._everything() if one[1].name == name and pool in (None, one[0].name)]
        if not found and pool is None and name in self._memory.list():
            said = f"cannot do that with volume {name}: it lies in the node's memory"
            raise conflict(said, "use a volume on a pool")
        if not found:
            raise no_volume(name)
        if len(found) > 1:
            said = " and ".join(f"pool {place.name}" for place, _ in found)
            raise conflict(
                f"cannot tell which volume {name} is meant: {said} have one", "say which with ?pool="
            )
        return found[0]

    def _there(self, place: _Place, name: str) -> SeenVolume:
        """A volume at this moment, while nobody else changes its pool."""
        seen = place.find(name)
        if seen is None:
            raise no_volume(name)
        return seen

    @contextlib.asynccontextmanager
    async def _changing(self, place: _Place) -> Any:
        """The turn to change a pool, which must be there."""
        async with place.changing:
            if place.trouble:
                raise conflict(f"cannot use pool {place.name}: {place.trouble}", "see 'zn pool show'")
            yield

    async def _change(
        self, place: _Place, actions: tuple[Action, ...], name: str, doing: str
    ) -> SeenVolume | None:
        """Carry out actions on a pool, in its turn; returns the volume of that name afterwards."""
        if not actions:
            return place.find(name)
        for action in actions:
            self._report("volume", name, str(action).capitalize())
        try:
            seen = await self._worker.call(apply.change, place.root, actions, name, deadline=_CHANGE)
        except OSError as error:
            self._report("volume", name, f"Failed: {error}")
            if isinstance(error, HungError):
                self._trouble(place, error)  # what it did may still happen
            raise refusal_of(error, doing, place.name) from None
        self._note(place, name, seen)
        return seen

    def _note(self, place: _Place, name: str, seen: SeenVolume | None) -> None:
        if place.seen is None:
            return
        others = (one for one in place.seen.volumes if one.name != name)
        volumes = tuple(sorted((*others, *([seen] if seen else [])), key=lambda one: one.name))
        place.seen = msgspec.structs.replace(place.seen, volumes=volumes)

    # clones

    def _count_clones(self) -> None:
        """Count what nearly full clones still have of their sources: deleting that gives them room."""
        for place, seen in self._everything():
            record = seen.record
            if not record or not record.shared or place.trouble:
                continue
            full = seen.used >= _COUNT_FROM * record.size
            if not record.counted or (full and place.counted.get(seen.name, 0) < seen.generation):
                self._begin(self._count(place, seen.name))

    async def _count(self, place: _Place, name: str) -> None:
        if name in place.counting:
            return
        place.counting.add(name)
        try:
            shared = await self._worker.call(observe.count_shared, place.root, name, deadline=_COUNT)
            async with self._changing(place):
                seen = place.find(name)
                if seen:
                    seen = await self._change(place, plan_count(seen, shared), name, f"count volume {name}")
                if seen:
                    place.counted[name] = seen.generation
        except (OSError, RefusedError) as error:
            self._report("volume", name, f"Not counted: {error}")
        finally:
            place.counting.discard(name)


_TAKEN = "choose another name"


def _too_small(name: str, size: int, used: int) -> RefusedError:
    detail = f"cannot shrink volume {name} to {in_words(size)}: it takes {in_words(used)}"
    return conflict(detail, f"delete files or snapshots first, or give it {used} bytes at least", "/size")


def _shown_why(seen: SeenVolume) -> str:
    return shown(seen, "", "", None, ()).why


def _memory_of_node() -> int:
    for line in files.read_text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return 0
