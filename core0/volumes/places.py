"""The pools that volumes lie on: taken when they come, looked at, changed one change at a time.

A pool is known as long as this daemon lives: what it brought is shown as offline when it goes.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from core0.linux.worker import HungError, Worker
from core0.volumes import apply, observe
from core0.volumes.explain import no_volume, refusal_of
from core0.volumes.model import Action, SeenPool, SeenVolume
from core0.volumes.plan import plan_pool
from core0.wire.control import Report, conflict, invalid

# Seconds: for a look, for a change (a commit on a busy pool of slow disks).
LOOK, CHANGE = 15.0, 60.0
# Whoever asks for figures waits so long for fresh ones.
_FIGURES = 2.0
_MOST_ROUNDS = 5


class Pools(Protocol):
    """What volumes need of the disks."""

    def folders(self) -> Mapping[str, str]:
        """The pools that serve: where they are mounted, by name."""

    def devices(self) -> Mapping[str, frozenset[str]]:
        """The pools that serve: the kernel's names of the disks that they have now, by name."""

    async def wait_changed(self) -> None:
        """Wait until that is something else, perhaps."""


class Place(msgspec.Struct, eq=False):
    """A pool.

    Attributes:
        name: its name.
        root: where it is mounted; empty if it is not.
        trouble: why it cannot be used; empty if it can.
        seen: what was seen of it last.
        devices: the disks that it had when it was looked at for their sake.
        changing: the turn to change it.
        busy: entries of `incoming` that something is being made in.
        taking: brings it in order.
        looking: reads its figures.
    """

    name: str
    root: str
    trouble: str
    seen: SeenPool | None = None
    devices: frozenset[str] = frozenset()
    changing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    busy: set[str] = msgspec.field(default_factory=set)
    taking: asyncio.Task[None] | None = None
    looking: asyncio.Task[None] | None = None

    def find(self, name: str) -> SeenVolume | None:
        """A volume as it was seen last."""
        return self.seen.find(name) if self.seen else None

    def there(self, name: str) -> SeenVolume:
        """A volume at this moment, for who has the turn. Raises RefusedError (404)."""
        seen = self.find(name)
        if seen is None:
            raise no_volume(name)
        return seen


class Places:
    """All pools.

    Attributes:
        worker: does what may hang.
        report: where to tell what happened.
        all: the pools by name.
        wake: set when something changed that the manager's loop shall look at.
    """

    def __init__(self, pools: Pools, worker: Worker, report: Report, came: Callable[[], None]) -> None:
        """Pools that were not looked at yet."""
        self.worker = worker
        self.report = report
        self.all: dict[str, Place] = {}
        self.wake = asyncio.Event()
        self._pools = pools
        self._came = came
        self._tasks: set[asyncio.Task[None]] = set()
        self._defect: BaseException | None = None

    # pools that come and go

    async def watch(self) -> None:
        """Wake the loop whenever pools may have come or gone."""
        while True:
            await self._pools.wait_changed()
            self.wake.set()

    def take(self) -> None:
        """Bring pools that came in order, and note those that went. Raises what was a defect in earlier work."""
        if self._defect:
            raise self._defect
        mounted, devices = self._pools.folders(), self._pools.devices()
        for name, root in mounted.items():
            place = self.all.get(name)
            if place is None or not place.root:
                before = place.seen if place else None
                place = self.all[name] = Place(name, root, f"pool {name} was not looked at yet", before)
            if place.trouble and (place.taking is None or place.taking.done()):
                place.devices = devices[name]
                place.taking = self.begin(self._take(place))
            elif not place.trouble and place.devices != devices[name]:
                place.devices = devices[name]
                self.begin(self._follow(place))
        for place in self.all.values():
            if place.name not in mounted:
                gone = f"pool {place.name} is not there; see 'zn pool show {place.name}'"
                place.root, place.trouble = "", gone

    async def settle(self, name: str) -> None:
        """Wait a while for a pool that came just now: who made it goes on with its volumes at once."""
        self.take()
        place = self.all.get(name)
        if place and place.taking:
            await asyncio.wait([place.taking], timeout=LOOK)

    async def _take(self, place: Place) -> None:
        """Bring a pool that came in order; tell what it brings."""
        try:
            async with place.changing:
                await self._put_in_order(place, tell=True)
        except OSError as error:
            self._note_trouble(place, error)
            return
        if place.root:
            place.trouble = ""
        volumes = place.seen.volumes if place.seen else ()
        names = ", ".join(volume.name for volume in volumes) or "none"
        self.report("volume", f"pool {place.name}", f"Its volumes: {names}")
        self._came()
        self.wake.set()  # its disks may be others by now

    async def _follow(self, place: Place) -> None:
        """See which disks a pool has now: what limits its volumes' input and output holds on those."""
        await self._look_at(place)
        self._came()

    async def sweep(self, place: Place) -> None:
        """Delete what was put out of sight; the kernel frees it a little later."""
        try:
            async with place.changing:
                await self._put_in_order(place, tell=False)
        except OSError as error:
            self._note_trouble(place, error)

    async def _put_in_order(self, place: Place, *, tell: bool) -> None:
        seen = await self.worker.call(observe.observe, place.root, deadline=LOOK)
        before: tuple[Action, ...] = ()
        for _ in range(_MOST_ROUNDS):
            actions = plan_pool(seen, place.busy)
            if actions in ((), before):  # a group that is not free yet may stand in them again
                break
            for action in actions if tell else ():
                self.report("volume", f"pool {place.name}", str(action).capitalize())
            before, place.seen = actions, seen
            try:
                seen = await self.worker.call(apply.repair, place.root, actions, deadline=CHANGE)
            except OSError as error:
                if not (seen.ready and seen.simple and error.errno in (errno.ENOSPC, errno.EDQUOT)):
                    raise
                # what is full can be used: deleting is what it needs
                self.report("volume", f"pool {place.name}", f"Cannot be brought in order yet: {error}")
                return
        place.seen = seen

    def _note_trouble(self, place: Place, error: OSError) -> None:
        """The pool is not used until it was looked at again, which is tried now and then."""
        if place.root:
            place.trouble = f"pool {place.name} cannot be used: {error}"
            self.report("volume", f"pool {place.name}", f"Cannot be used: {error}")

    # work that nobody waits for

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start it; if it ends by a defect, so does the daemon."""
        task = asyncio.create_task(work, name="volumes")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._defect = error
            self.wake.set()

    def end(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()

    # what is there

    def everything(self) -> Iterator[tuple[Place, SeenVolume]]:
        """All volumes as they were seen last, with where they lie."""
        for place in self.all.values():
            for seen in place.seen.volumes if place.seen else ():
                yield place, seen

    def holders(self, volume: str) -> tuple[str, ...]:
        """The pools that have a volume of that name."""
        return tuple(place.name for place, seen in self.everything() if seen.name == volume)

    def place(self, name: str) -> Place:
        """A pool that can be used. Raises RefusedError, of the spec's field."""
        place = self.all.get(name)
        if place is None:
            known = ", ".join(self.all) or "none"
            said = f"cannot use pool {name!a}: there is none"
            raise invalid(said, f"the node has: {known}; see 'zn pool ls'", "/pool")
        if place.trouble:
            raise conflict(f"cannot use pool {name}: {place.trouble}", "see 'zn pool show'", "/pool")
        return place

    def find(self, name: str, pool: str | None) -> tuple[Place, SeenVolume]:
        """A volume by its name, and its pool's if two have one. Raises RefusedError: 404, or 409 if two have one."""
        found = [one for one in self.everything() if one[1].name == name and pool in (None, one[0].name)]
        if not found:
            raise no_volume(name)
        if len(found) > 1:
            said = " and ".join(f"pool {place.name}" for place, _ in found)
            raise conflict(
                f"cannot tell which volume {name} is meant: {said} have one", "say which with ?pool="
            )
        return found[0]

    async def look(self, *places: Place) -> None:
        """Have fresh figures, unless a pool takes its time."""
        tasks = [self._looking(place) for place in places if place.root and not place.trouble]
        if tasks:
            await asyncio.wait(tasks, timeout=_FIGURES)

    def _looking(self, place: Place) -> asyncio.Task[None]:
        if place.looking is None or place.looking.done():
            place.looking = self.begin(self._look_at(place))
        return place.looking

    async def _look_at(self, place: Place) -> None:
        async with place.changing:
            try:
                place.seen = await self.worker.call(observe.observe, place.root, deadline=LOOK)
            except OSError as error:
                self._note_trouble(place, error)

    # changes

    @contextlib.asynccontextmanager
    async def changing(self, place: Place) -> AsyncIterator[None]:
        """The turn to change a pool, which must be there."""
        async with place.changing:
            if place.trouble:
                raise conflict(f"cannot use pool {place.name}: {place.trouble}", "see 'zn pool show'")
            yield

    async def change(
        self, place: Place, actions: tuple[Action, ...], name: str, doing: str
    ) -> SeenVolume | None:
        """Carry out actions on a pool, in its turn.

        Args:
            place: the pool.
            actions: what to do.
            name: the volume that it is about.
            doing: the same in words, behind `cannot`.

        Returns:
            The volume as it is afterwards; None if it is gone.

        Raises:
            RefusedError: the kernel refused it.
        """
        if not actions:
            return place.find(name)
        for action in actions:
            self.report("volume", name, str(action).capitalize())
        try:
            seen = await self.worker.call(apply.change, place.root, actions, name, deadline=CHANGE)
        except OSError as error:
            self.report("volume", name, f"Failed: {error}")
            if isinstance(error, HungError):
                self._note_trouble(place, error)  # what it did may still happen
            raise refusal_of(error, doing, place.name) from None
        self._note(place, name, seen)
        return seen

    def _note(self, place: Place, name: str, seen: SeenVolume | None) -> None:
        if place.seen is None:
            return
        others = (one for one in place.seen.volumes if one.name != name)
        volumes = tuple(sorted((*others, *([seen] if seen else [])), key=lambda one: one.name))
        place.seen = msgspec.structs.replace(place.seen, volumes=volumes)
