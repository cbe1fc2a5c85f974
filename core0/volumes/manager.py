"""The volume manager: brings pools that come in order, and obeys its verbs.

It keeps no list of its own: what there is stands on the pools, so a pool that is carried to another node brings its
volumes. One change at a time is made on a pool, in a process that can be given up if the disk hangs; the answer to a
verb comes when the change is on the disks.
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from core0.linux.worker import Worker
from core0.volumes import observe
from core0.volumes.checks import (
    TAKEN,
    check_change,
    check_memory,
    check_new,
    check_snapshot,
    too_small,
)
from core0.volumes.clones import Clones
from core0.volumes.explain import in_words, no_volume, refusal_of, shown, shown_of_memory
from core0.volumes.exports import Exports
from core0.volumes.imports import Imports, Operations
from core0.volumes.memory import Memory
from core0.volumes.model import DeleteSnapshot, DeleteVolume, RollBack, SeenVolume, TakeSnapshot
from core0.volumes.places import CHANGE, LOOK, Place, Places, Pools
from core0.volumes.plan import plan_volume
from core0.volumes.use import VolumeUse
from core0.wire.control import Report, conflict, taken
from core0.wire.volumes import Volume, VolumeSpec

# Seconds: pools in trouble are tried again, clones counted anew, so often at most.
_LOOK_AGAIN = 60.0


class Volumes:
    """All volumes of the node.

    Attributes:
        use: what containers get of them.
        imports: the streams that come.
        exports: the streams that go out.
    """

    def __init__(
        self,
        pools: Pools,
        worker: Worker,
        report: Report,
        memory: Memory,
        users: Callable[[str], tuple[str, ...]],
        operations: Operations,
        came: Callable[[], None] = lambda: None,
    ) -> None:
        """A manager that has not looked at any pool yet.

        Args:
            pools: where volumes lie.
            worker: does what may hang.
            report: where to tell what happened.
            memory: the volumes that lie nowhere else.
            users: the containers that have a volume in their spec.
            operations: where long work is started.
            came: called when a pool's volumes can be used, or lie on other disks than before.
        """
        self._report = report
        self._memory = memory
        self._users = users
        self._places = Places(pools, worker, report, came)
        self._clones = Clones(self._places)
        self.use = VolumeUse(self._places, memory)
        self.imports = Imports(self._places, operations)
        self.exports = Exports(self._places, worker, operations)
        memory.settle()

    async def run(self) -> None:
        """Take pools that come, and count clones. Ends by cancellation, or by a defect, which it raises."""
        self._places.begin(self._places.watch())
        wake = self._places.wake
        try:
            while True:
                wake.clear()
                self._places.take()
                self._clones.count_due()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN):
                        await wake.wait()
        finally:
            self._places.end()

    # what is shown

    async def list(self) -> tuple[Volume, ...]:
        """All volumes, by name; those of a pool that does not answer as they were seen last."""
        await self._places.look(*self._places.all.values())
        pools = [self._shown(place, seen) for place, seen in self._places.everything()]
        memory = [self._shown_one(name) for name in self._memory.list()]
        return tuple(sorted((*pools, *memory), key=lambda one: (one.name, one.pool or "")))

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
        place, _ = self._places.find(name, pool)
        await self._places.look(place)
        return self._shown(*self._places.find(name, place.name))

    def _shown(self, place: Place, seen: SeenVolume) -> Volume:
        volume = shown(seen, place.name, place.trouble, place.seen, self._users(seen.name))
        others = [f"pool {name}" for name in self._places.holders(seen.name)]
        if seen.name in self._memory.list():
            others.append("the node's memory")
        if len(others) > 1 and volume.state == "ready":
            said = " and ".join(others)
            why = f"{said} each have a volume of this name: say which with its pool, clone one, delete it"
            return msgspec.structs.replace(volume, state="conflict", why=why)
        return volume

    def _shown_one(self, name: str) -> Volume:
        kept = self._memory.list()[name]
        return shown_of_memory(name, kept, self._memory.used(name), self._users(name))

    # verbs

    async def put(self, name: str, spec: VolumeSpec, *, new: bool = False) -> Volume:
        """Have a volume as the spec says: make it, or give another size or other limits. Idempotent.

        Raises:
            RefusedError: if that cannot be, or would change one though it shall be `new`; nothing has changed then.
        """
        if spec.pool is None:
            kept = self._memory.list().get(name)
            if new and kept and kept.spec != spec:
                raise taken("volume", name)
            return self._put_in_memory(name, spec)
        if name in self._memory.list():
            raise conflict(
                f"cannot create volume {name} on pool {spec.pool}: the node's memory has one", TAKEN, "/pool"
            )
        await self._places.settle(spec.pool)
        place = self._places.place(spec.pool)
        async with self._places.changing(place):
            seen = place.find(name)
            actions = plan_volume(name, spec, seen)
            if new and seen and actions:
                raise taken("volume", name)
            if seen is None:
                check_new(self._places, place, name, spec)
            else:
                check_change(place, seen, spec)
                await self._check_shrinking(place, seen, spec)
            doing = f"{'change' if seen else 'create'} volume {name}"
            seen = await self._places.change(place, actions, name, doing)
            if seen is None:
                raise no_volume(name)
        if spec.origin:
            self._clones.count(place, name)
        return self._shown(place, seen)

    async def _check_shrinking(self, place: Place, seen: SeenVolume, spec: VolumeSpec) -> None:
        if seen.record and spec.size < seen.record.size:
            used = await self._used_now(place, seen.name)
            if spec.size < used:
                raise too_small(seen.name, spec.size, used)

    async def _used_now(self, place: Place, name: str) -> int:
        """What a volume takes, with what is on its way to the disks."""
        worker = self._places.worker
        try:
            await worker.call(observe.settle, place.root, deadline=CHANGE)
            seen = await worker.call(observe.observe_volume, place.root, name, deadline=LOOK)
        except OSError as error:
            raise refusal_of(error, f"change volume {name}", place.name) from None
        return seen.used if seen else 0

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
        place, _ = self._places.find(name, pool)
        async with self._places.changing(place):
            seen = place.there(name)
            self._refuse_used(name, "delete")
            if seen.snapshots and not snapshots:
                names = ", ".join(one.name for one in seen.snapshots)
                raise conflict(
                    f"cannot delete volume {name}: it has the snapshots {names}",
                    "delete them first, or with it: 'zn volume rm --snapshots', ?snapshots=true",
                )
            await self._places.change(place, (DeleteVolume(name),), name, f"delete volume {name}")
        self._places.begin(self._places.sweep(place))

    async def take_snapshot(self, volume: str, name: str, pool: str | None = None) -> Volume:
        """Take a snapshot. One of that name that is there already is an answer, too."""
        place, _ = self._find_on_disk(volume, pool)
        async with self._places.changing(place):
            seen = place.there(volume)
            if all(one.name != name for one in seen.snapshots):
                doing = f"take snapshot {name} of volume {volume}"
                await self._places.change(place, (TakeSnapshot(volume, name),), volume, doing)
        return self._shown(*self._places.find(volume, place.name))

    async def delete_snapshot(self, volume: str, name: str, pool: str | None = None) -> None:
        """Delete a snapshot. Raises RefusedError (404)."""
        place, _ = self._find_on_disk(volume, pool)
        async with self._places.changing(place):
            check_snapshot(place.there(volume), name)
            doing = f"delete snapshot {name} of volume {volume}"
            await self._places.change(place, (DeleteSnapshot(volume, name),), volume, doing)

    async def roll_back(self, volume: str, snapshot: str, pool: str | None = None) -> Volume:
        """Give a volume a snapshot's content; what was written since is lost.

        Raises:
            RefusedError: if a container has it in its spec, which would go on with what is gone.
        """
        place, _ = self._find_on_disk(volume, pool)
        async with self._places.changing(place):
            check_snapshot(place.there(volume), snapshot)
            self._refuse_used(volume, "roll back")
            doing = f"roll volume {volume} back to {snapshot}"
            await self._places.change(place, (RollBack(volume, snapshot),), volume, doing)
        self._places.begin(self._places.sweep(place))
        return self._shown(*self._places.find(volume, place.name))

    def refuse_used(self, pool: str | None, doing: str) -> None:
        """Refuse what would end a pool (all of them: None) while containers have volumes there. RefusedError: 409."""
        for place, seen in self._places.everything():
            users = self._users(seen.name)
            if users and pool in (None, place.name):
                detail = f"cannot {doing}: container {', '.join(users)} has volume {seen.name} there"
                raise conflict(detail, "remove the container first")

    def forget(self, pool: str | None) -> None:
        """A pool (all of them: None) was ended on purpose: its volumes are no more."""
        for name in [pool] if pool else list(self._places.all):
            self._places.all.pop(name, None)

    def _find_on_disk(self, name: str, pool: str | None) -> tuple[Place, SeenVolume]:
        if pool is None and name in self._memory.list():
            said = f"cannot do that with volume {name}: it lies in the node's memory"
            raise conflict(said, "use a volume on a pool")
        return self._places.find(name, pool)

    def _refuse_used(self, name: str, verb: str) -> None:
        users = self._users(name)
        if users:
            said = f"cannot {verb} volume {name}: container {', '.join(users)} has it"
            raise conflict(said, "remove the container first")

    # in the node's memory

    def _put_in_memory(self, name: str, spec: VolumeSpec) -> Volume:
        there = self._memory.list()
        kept = there.pop(name, None)
        check_memory(self._places, name, spec, sum(one.spec.size for one in there.values()))
        if kept is None:
            self._memory.create(name, spec)
            self._report("volume", name, f"Created in memory, {in_words(spec.size)}")
        elif kept.spec != spec:
            used = self._memory.used(name)
            if spec.size < used:
                raise too_small(name, spec.size, used)
            self._memory.resize(name, spec)
        return self._shown_one(name)
