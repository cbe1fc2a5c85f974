"""The container manager: one loop per container brings it to what is wanted, and again when it ends.

What was acknowledged is in the node's state first; a new node daemon reads it, sees which containers live, and goes
on. So does the next boot, where none lives: each is made anew.
"""

import asyncio
import os
import traceback
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from core0.containers import apply, rootfs
from core0.containers.apply import ContainerError, Slot, World
from core0.containers.limits import Trouble, beyond, made_with_it, too_little
from core0.containers.model import (
    Action,
    Create,
    Freeze,
    Limit,
    Pull,
    Record,
    Remove,
    Seen,
    Stop,
    Thaw,
    Wanted,
)
from core0.containers.observe import is_alive, observe_capacity, observe_record
from core0.containers.plan import plan
from core0.containers.stats import observe_stats
from core0.containers.targets import refused_target
from core0.images.model import Image, PullError, parse_reference
from core0.images.store import Store
from core0.linux import cgroups, files
from core0.wire import ports
from core0.wire.control import Refusal, RefusedError, Report, conflict, invalid, taken
from core0.wire.network import packed
from core0.wire.state import NEWER_IMAGE
from core0.wire.types import (
    Container,
    ContainerName,
    ContainerSpec,
    ContainerState,
    ContainerStats,
    Exit,
    Limits,
    PublishedPort,
)

_FIRST_DELAY, _LONGEST_DELAY, _STABLE = 0.5, 60.0, 60.0
_EXIT_LOOKS, _EXIT_LOOK_EVERY = 20, 0.05
_ENDED: tuple[ContainerState, ...] = ("stopped", "failed")
_SETTLED: tuple[ContainerState, ...] = ("running", "paused", *_ENDED)
# States of a container whose first process lives, or may.
_LIVING = ("running", "pausing", "paused", "resuming", "stopping")
# Sections of the node's state: a wish each, and the digests of the images that are used, by their references.
_WISH, _IMAGES = "container/", "images"


_STOPPED: tuple[ContainerState, str] = ("stopped", "it was stopped as asked")


class _Life(msgspec.Struct, eq=False):
    """One container's loop and what it last said."""

    wanted: Wanted | None
    spec: ContainerSpec
    number: int
    state: ContainerState = "stopped"
    why: str = "not started yet"
    failures: int = 0
    due: float = 0.0
    created: float = 0.0
    end: tuple[ContainerState, str] = _STOPPED
    exit: Exit | None = None
    wake: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    changed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Keep(Protocol):
    """Where the node's state is kept."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The sections whose names begin so."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""

    async def remove(self, section: str) -> None:
        """Take a section away; returns when no copy has it."""


class Containers:
    """All containers of the node."""

    def __init__(self, world: World, keep: Keep, report: Report) -> None:
        self._world = world
        self._keep = keep
        self._report = report
        self._lives: dict[str, _Life] = {}
        self._changing = asyncio.Lock()
        # Wishes that are being remembered: what they use is theirs already.
        self._coming: dict[str, Wanted] = {}

    def resume(self) -> None:
        """Take over what is wanted, and what an earlier node daemon left: containers that live go on."""
        left: list[tuple[str, ContainerSpec, Wanted | None, Record | None]] = []
        wishes = dict(self._wishes())
        for name in sorted({*wishes, *(folder.name for folder in self._world.folder.iterdir())}):
            folder = self._world.folder / name
            wanted, record = wishes.get(name), observe_record(folder)
            known = wanted or record
            if known:
                folder.mkdir(mode=0o700, exist_ok=True)
                left.append((name, known.spec, wanted, record))
            else:
                files.remove_tree(folder)
        # those that have a number first: the others get one that is free
        for name, spec, wanted, record in sorted(left, key=lambda one: one[3] is None):
            number = record.number if record else self._free_number()
            if record and is_alive(record):
                # the packet filter is a new one, too
                addresses = (record.address, record.address6)
                self._world.network.resume(
                    record.number, name, record.spec.network, addresses, record.spec.ports
                )
            self._begin(name, _Life(wanted, spec, number))

    def _wishes(self) -> Iterator[tuple[str, Wanted]]:
        for section in self._keep.names(_WISH):
            name = section.removeprefix(_WISH)
            try:
                msgspec.convert(name, ContainerName)  # it becomes a path
                yield name, msgspec.json.decode(self._keep.get(section) or b"", type=Wanted)
            except msgspec.ValidationError as error:
                said = f"it is not started: this image does not understand what is wanted: {error}"
                self._report("container", name, f"Warning: {said}; put it again, or {NEWER_IMAGE}")

    def list(self) -> tuple[Container, ...]:
        """All containers, by name."""
        return tuple(self.get(name) for name in sorted(self._lives))

    def get(self, name: str) -> Container:
        """One container. Raises RefusedError (404) if there is none."""
        life = self._life(name)
        record = observe_record(self._world.folder / name)
        running = record if record and life.state in _LIVING else None
        return Container(
            name=name,
            state=life.state,
            why=life.why,
            spec=life.spec,
            image_digest=record.image_digest if record else None,
            address=running.address if running else None,
            address6=running.address6 if running else None,
            corex=running.corex if running else None,
            pid=running.pid if running else None,
            exit=life.exit,
        )

    @property
    def store(self) -> Store:
        """The images that containers are made of."""
        return self._world.store

    def users_of_images(self) -> dict[str, tuple[str, str]]:
        """Of each container the digest of the image that it runs from, and the reference that it is wanted with.

        Either is empty where there is none.
        """
        records = {name: observe_record(self._world.folder / name) for name in self._lives}
        running = {name: record.image_digest for name, record in records.items() if record}
        wanted = {name: wish.spec.image for name, wish in self._coming.items()}
        wanted |= {name: life.wanted.spec.image for name, life in self._lives.items() if life.wanted}
        return {name: (running.get(name, ""), wanted.get(name, "")) for name in sorted({*running, *wanted})}

    def users_of(self, volume: str) -> tuple[str, ...]:
        """The containers that have a volume: in their spec, or still while they are made anew."""
        return tuple(
            name for name, life in sorted(self._lives.items()) if volume in self._volumes_of(name, life)
        )

    def hosts_of(self, network: str) -> dict[str, int]:
        """The containers that are wanted in a network, or still in it, and their numbers there."""
        wishes = [(name, wanted.spec.network, wanted.host) for name, wanted in self._coming.items()]
        for name, life in self._lives.items():
            wishes += [(name, its, host) for its, host in self._hosts_of(name, life)]
        return {name: host for name, its, host in wishes if its == network}

    def _hosts_of(self, name: str, life: _Life) -> Iterator[tuple[str, int]]:
        """What a container has: while it moves to another network, both."""
        record = observe_record(self._world.folder / name)
        if record:
            yield record.spec.network, record.host
        if life.wanted:
            yield life.wanted.spec.network, life.wanted.host

    def volumes_came(self) -> None:
        """Volumes can be used, or lie on other disks: try again what failed and has some, limit anew what runs."""
        for name, life in self._lives.items():
            if life.state == "failed" and life.spec.mounts:
                life.failures, life.due = 0, 0.0
                life.wake.set()
            elif life.spec.mounts:
                self._limit_again(name)

    def limit_again(self, volume: str) -> None:
        """A volume's limits are others now: those of its containers are, too."""
        for name in self.users_of(volume):
            self._limit_again(name)

    def _limit_again(self, name: str) -> None:
        record = observe_record(self._world.folder / name)
        if record and is_alive(record):
            try:
                apply.limit(self._world, name, record.spec)
            except OSError as error:
                said = f"Warning: it keeps its old limits: {error.strerror or error}; stop and start it"
                self._report("container", name, said)

    def _volumes_of(self, name: str, life: _Life) -> set[str]:
        record = observe_record(self._world.folder / name)
        mounts = (*life.spec.mounts, *(record.spec.mounts if record else ()))
        return {mount.volume for mount in mounts}

    async def wait(self, name: str, seconds: float) -> Container:
        """One container and its traffic, once it is running, stopped or failed, or after so many seconds."""
        await self._until(name, _SETTLED, seconds)
        found = self.get(name)
        traffic = self._world.network.traffic(self._life(name).number) if found.pid else None
        return msgspec.structs.replace(found, traffic=traffic)

    async def wait_end(self, name: str, seconds: float) -> Container:
        """One container, once it does not run, or after so many seconds. Raises RefusedError (404) if it is gone."""
        await self._until(name, _ENDED, seconds)
        return self.get(name)

    async def _until(self, name: str, states: Sequence[ContainerState], seconds: float) -> None:
        """Wait until a container is in one of some states and has nothing to do, for so many seconds at most."""
        try:
            async with asyncio.timeout(seconds):
                while self._life(name).state not in states or self._life(name).wake.is_set():
                    await self._life(name).changed.wait()
        except TimeoutError:
            pass

    def stats(self, name: str) -> ContainerStats:
        """What a container uses. Raises RefusedError: there is none (404), or it does not run (409)."""
        life = self._life(name)
        try:
            return observe_stats(self._world.cgroup / name, self._world.network.traffic(life.number))
        except OSError as error:
            detail = f"cannot measure container {name}: it is {life.state}: {error.strerror}"
            raise conflict(detail, "start it, or wait until it runs") from None

    async def put(self, name: str, spec: ContainerSpec, *, new: bool = False) -> Container:
        """Want a container to be as the spec says and run. Idempotent; another spec makes it anew.

        Raises:
            RefusedError: if it would change one though it shall be `new`, for a reference that is none, or a port
                that is taken (named by its owner).
        """
        async with self._changing:
            self._check(name, spec)
            known = self._lives.get(name)
            before = known.wanted if known else None
            if before and before == Wanted(spec, host=before.host):
                return self.get(name)
            if new and before:
                raise taken("container", name)
            number = known.number if known else self._free_number()
            wanted = Wanted(spec, host=self._host_for(name, spec))
            await self._remember(name, wanted)
            life = self._lives.get(name)  # it may have ended meanwhile, if it was being removed
            if life:
                life.spec = spec
                self._want(life, wanted)
            else:
                (self._world.folder / name).mkdir(mode=0o700, exist_ok=True)
                self._begin(name, _Life(wanted, spec, number))
            return self.get(name)

    async def set_running(self, name: str, run: bool) -> Container:
        """Want a container to run or not. Raises RefusedError (404)."""
        async with self._changing:
            life = self._life(name)
            if life.wanted is None:
                raise _not_found(name)
            wanted = msgspec.structs.replace(life.wanted, run=run, paused=False)
            await self._remember(name, wanted)
            self._want(life, wanted)
            return self.get(name)

    async def set_limits(self, name: str, limits: Limits) -> Container:
        """Want a container to have other limits; one that runs goes on with them.

        Raises:
            RefusedError: there is no such container (404), it would have to be made anew or uses more now (409), or
                the node has not got as much (422).
        """
        async with self._changing:
            life = self._life(name)
            if life.wanted is None:
                raise _not_found(name)
            self._check_limits(name, limits, "")
            fixed = made_with_it(life.wanted.spec.limits, limits)
            if fixed and life.wanted.run:
                detail = f"cannot change {fixed} of container {name} while it runs: it was made with that"
                raise conflict(detail, "stop it first, or put its spec anew", f"/{fixed}")
            wanted = msgspec.structs.replace(
                life.wanted, spec=msgspec.structs.replace(life.wanted.spec, limits=limits)
            )
            if wanted != life.wanted:
                await self._remember(name, wanted)
                life.spec = wanted.spec
                self._want(life, wanted)
            return self.get(name)

    def _check_limits(self, name: str, limits: Limits, pointer: str) -> None:
        """Refuse what the node has not got, and so little that the kernel would end a container that runs."""
        trouble = beyond(limits, observe_capacity())
        if trouble:
            raise invalid(*_told(name, trouble, pointer))
        record = observe_record(self._world.folder / name)
        if record and is_alive(record) and not made_with_it(record.spec.limits, limits):
            volumes = self._world.volumes.limits(mount.volume for mount in record.spec.mounts).memory
            used = cgroups.memory_in_use(self._world.cgroup / name)
            trouble = too_little(limits, volumes, used)
            if trouble:
                raise conflict(*_told(name, trouble, pointer))

    async def set_paused(self, name: str, paused: bool) -> Container:
        """Want a container's processes to be halted where they are, or to go on.

        Raises:
            RefusedError: there is no such container (404), or it is not to run (409).
        """
        async with self._changing:
            life = self._life(name)
            if life.wanted is None:
                raise _not_found(name)
            if not life.wanted.run:
                doing = "pause" if paused else "resume"
                raise conflict(f"cannot {doing} container {name}: it is {life.state}", "start it first")
            if life.wanted.paused != paused:
                wanted = msgspec.structs.replace(life.wanted, paused=paused)
                await self._remember(name, wanted)
                self._want(life, wanted)
                self._say_turning(name, life, paused)
            return self.get(name)

    def _say_turning(self, name: str, life: _Life, paused: bool) -> None:
        """Who waits until it has settled shall not take it for settled already."""
        if paused and life.state in ("running", "resuming"):
            self._say(name, life, "pausing", "its processes are being halted")
        elif not paused and life.state in ("paused", "pausing"):
            self._say(name, life, "resuming", "its processes shall go on")

    async def delete(self, name: str) -> None:
        """Want a container to be gone. Raises RefusedError (404)."""
        async with self._changing:
            life = self._life(name)
            await self._keep.remove(_WISH + name)
            self._want(life, None)
            self._say(name, life, "removing", "it is being removed")

    async def _remember(self, name: str, wanted: Wanted) -> None:
        """Have a wish in the node's state, from where it is not lost any more."""
        self._coming[name] = wanted
        try:
            await self._keep.put(_WISH + name, msgspec.json.encode(wanted))
        finally:
            del self._coming[name]

    def _host_for(self, name: str, spec: ContainerSpec) -> int:
        """The number of a container in its network: the one that it has, or a free one. Raises RefusedError."""
        life = self._lives.get(name)
        own = (
            [host for network, host in self._hosts_of(name, life) if network == spec.network] if life else []
        )
        if own and own[-1]:
            return own[-1]
        used = self.hosts_of(spec.network).values()
        return self._world.network.choose_host(spec.network, tuple(used))

    def _check(self, name: str, spec: ContainerSpec) -> None:
        try:
            parse_reference(spec.image)
        except ValueError as error:
            refusal = Refusal(422, "invalid", str(error), "correct the image reference", "/image")
            raise RefusedError(refusal) from None
        self._check_limits(name, spec.limits, "/limits")
        self._check_mounts(spec)
        self._check_network(spec)
        taken = list(self._taken_ports(besides=name))
        for index, port in enumerate(spec.ports):
            if port.address is not None and packed(port.address) is None:
                detail = f"cannot publish port {port.node} at {port.address!a}: it is no address"
                remedy = "write an address of the node, or none"
                raise RefusedError(Refusal(422, "invalid", detail, remedy, f"/ports/{index}/address"))
            owner = next((who for other, who in taken if collide(port, other)), self._reserved(port))
            if owner:
                detail = f"cannot publish {port.protocol} port {port.node}: {owner} has it"
                pointer = f"/ports/{index}/node"
                raise RefusedError(
                    Refusal(409, "conflict", detail, "choose another port of the node", pointer)
                )
            taken.append((port, "an earlier entry of this container"))

    def _check_network(self, spec: ContainerSpec) -> None:
        trouble = self._world.network.trouble(spec.network)
        if trouble:
            detail, remedy = f"cannot put it into network {spec.network}: {trouble}", "see 'zn network ls'"
            raise RefusedError(Refusal(422, "invalid", detail, remedy, "/network"))

    def _check_mounts(self, spec: ContainerSpec) -> None:
        for index, mount in enumerate(spec.mounts):
            trouble = self._world.volumes.trouble(mount.volume)
            if trouble:
                remedy = "see 'zn volume ls'; the pool that has it may not be there yet"
                pointer = f"/mounts/{index}/volume"
                raise RefusedError(Refusal(422, "invalid", f"cannot mount {trouble}", remedy, pointer))
            refused = refused_target(mount.target, [other.target for other in spec.mounts[:index]])
            if refused:
                detail = f"cannot mount volume {mount.volume} at {mount.target}: {refused}"
                pointer = f"/mounts/{index}/target"
                raise RefusedError(Refusal(422, "invalid", detail, "choose another folder", pointer))

    def _taken_ports(self, besides: str) -> Iterator[tuple[PublishedPort, str]]:
        for name, life in self._lives.items():
            if name != besides and life.wanted:
                for port in life.wanted.spec.ports:
                    yield port, f"container {name}"

    def _reserved(self, port: PublishedPort) -> str | None:
        if port.protocol == "udp":
            return self._world.network.port_owner(port.node) or _reserved(port.node)
        return _reserved(port.node)

    def port_owner(self, port: int) -> str:
        """Which container has a UDP port of the node published; empty if none has."""
        found = (
            who for one, who in self._taken_ports(besides="") if (one.protocol, one.node) == ("udp", port)
        )
        return next(found, "")

    def _life(self, name: str) -> _Life:
        try:
            return self._lives[name]
        except KeyError:
            raise _not_found(name) from None

    def _free_number(self) -> int:
        """The lowest slot that no container has; it gives Core-X's port, so there are as many as ports."""
        used = {life.number for life in self._lives.values()}
        last = ports.COREX_LAST - ports.COREX_FIRST + 1
        free = next((number for number in range(1, last + 1) if number not in used), None)
        if free is None:
            detail = f"cannot make another container: the node has {last} already"
            raise RefusedError(Refusal(409, "conflict", detail, "remove one first"))
        return free

    def _begin(self, name: str, life: _Life) -> None:
        self._lives[name] = life
        life.wake.set()  # there is something to do: who waits does not take it for settled
        life.task = asyncio.create_task(self._live(name, life), name=f"container {name}")
        life.task.add_done_callback(_end_with)

    def _want(self, life: _Life, wanted: Wanted | None) -> None:
        life.wanted, life.failures, life.due, life.end = wanted, 0, 0.0, _STOPPED
        life.wake.set()

    def _say(self, name: str, life: _Life, state: ContainerState, why: str) -> None:
        """Note where a container is in its life; who waits for a change is told."""
        if (life.state, life.why) != (state, why):
            self._report("container", name, f"{state.capitalize()}: {why}")
        life.state, life.why = state, why
        life.changed.set()
        life.changed = asyncio.Event()

    def _see(self, name: str, life: _Life) -> Seen:
        record = observe_record(self._world.folder / name)
        image = self._world.store.get(life.wanted.spec.image) if life.wanted else None
        freezer = cgroups.freezer(self._world.cgroup / name)
        return Seen(record, bool(record and is_alive(record)), image, freezer)

    async def _live(self, name: str, life: _Life) -> None:
        """The loop of one container: plan, apply, wait for its end or for another wish."""
        while True:
            life.wake.clear()
            seen = self._see(name, life)
            if seen.record and not seen.alive:
                await self._ended(name, life, seen.record, await _exit_of(seen.record))
            if life.wanted is None and seen.record is None:
                break
            settled = await self._reconcile(name, life, seen)
            await self._wait_for_reason(name, life, settled)
        apply.forget(self._world, name)
        self._report("container", name, "Removed")
        life.changed.set()
        del self._lives[name]

    async def _reconcile(self, name: str, life: _Life, seen: Seen) -> bool:
        """Apply what the plan says; returns whether all of it is done, or something is left for when it is due."""
        loop = asyncio.get_running_loop()
        for action in plan(life.wanted, seen):
            if isinstance(action, Pull | Create) and loop.time() < life.due:
                return False
            try:
                await self._apply(name, life, action)
            except (ContainerError, PullError, OSError) as error:
                self._failed(name, life, str(error))
                return False
            if life.wake.is_set():
                return False
        self._settle(name, life)
        return True

    async def _apply(self, name: str, life: _Life, action: Action) -> None:
        world = self._world
        match action:
            case Pull(reference):
                self._say(name, life, "pulling", f"its image {reference} is being fetched")
                await _unless_woken(life, world.store.pull(reference))
            case Create(spec):
                self._say(name, life, "creating", "its image is here, it is being built")
                corex = ports.COREX_FIRST + life.number - 1
                slot = Slot(name, life.number, corex, self._host_now(name, life))
                rootfs.load_modules()
                image = await world.store.pull(spec.image)
                await apply.create(world, slot, spec, image)
                await self._note_image(spec.image, image.digest)
                life.created = asyncio.get_running_loop().time()
            case Limit(record, spec):
                apply.limit_anew(world, name, record, spec)
                self._report("container", name, "Goes on with other limits")
            case Freeze():
                await apply.freeze(world, name)
            case Thaw():
                apply.thaw(world, name)
            case Stop(record):
                self._say(name, life, "stopping", "its processes are being stopped")
                await apply.stop(world, name, record)
            case Remove(record):
                await apply.remove(world, name, record)

    def _host_now(self, name: str, life: _Life) -> int:
        """The container's number in its network; one that was remembered without gets it now."""
        if life.wanted and not life.wanted.host:
            try:
                host = self._host_for(name, life.wanted.spec)
            except RefusedError as error:
                raise ContainerError(f"{error}; {error.refusal.remedy}") from None
            life.wanted = msgspec.structs.replace(life.wanted, host=host)
        return life.wanted.host if life.wanted else 0

    def _settle(self, name: str, life: _Life) -> None:
        record = observe_record(self._world.folder / name)
        if record and life.wanted and life.wanted.paused:
            self._say(
                name, life, "paused", "its processes are halted where they are, and keep what they have"
            )
        elif record:
            self._say(name, life, "running", f"Core-X answers on port {record.corex.port}")
        elif life.wanted and not life.wanted.run:
            self._say(name, life, *life.end)

    def _failed(self, name: str, life: _Life, cause: str) -> None:
        life.failures += 1
        delay = min(_FIRST_DELAY * 2.0 ** min(life.failures - 1, 16), _LONGEST_DELAY)
        life.due = asyncio.get_running_loop().time() + delay
        self._say(name, life, "failed", f"{cause}; trying again in {delay:.1f} s")

    async def _ended(self, name: str, life: _Life, record: Record, how: Exit | None) -> None:
        """A container that ended by itself: by its restart policy it starts again, later each time, or stays."""
        clean = how == Exit(code=0)
        async with self._changing:
            if life.wanted is None or not life.wanted.run or life.wanted.spec != record.spec:
                return
            life.exit = how
            policy = life.wanted.spec.restart
            if policy == "never" or (policy == "on-failure" and clean):
                life.wanted = msgspec.structs.replace(life.wanted, run=False, paused=False)
                life.end = ("stopped" if clean else "failed", f"it ended: {_words(how)}")
                try:
                    await self._remember(name, life.wanted)
                except RefusedError as error:
                    said = f"cannot remember that it ended: {error}; the next boot starts it again"
                    self._report("container", name, f"Warning: {said}")
                return
        if asyncio.get_running_loop().time() - life.created >= _STABLE:
            life.failures = 0
        said = apply.last_words(self._world, name)
        self._failed(name, life, f"it ended: {_words(how)}{'; Core-X: ' + said if said else ''}")

    async def _note_image(self, reference: str, digest: str) -> None:
        """Remember what an image turned out to be: after a reboot it may be another one by the same name."""
        async with self._changing:
            try:
                known = msgspec.json.decode(self._keep.get(_IMAGES) or b"{}", type=dict[str, str])
            except msgspec.ValidationError as error:  # a newer image wrote it, and it is left as it is
                said = f"this image does not understand which image it was before: {error}; {NEWER_IMAGE}"
                self._report("image", reference, f"Warning: {said}")
                return
            if known.get(reference) == digest:
                return
            if reference in known:
                said = f"it is another one than before, by the same name: it was {known[reference]}"
                self._report("image", reference, f"Warning: {said}, it is {digest}")
            try:
                await self._keep.put(_IMAGES, msgspec.json.encode(self._used({**known, reference: digest})))
            except RefusedError as error:
                self._report("image", reference, f"Warning: cannot remember its digest: {error}")

    def _used(self, images: Mapping[str, str]) -> dict[str, str]:
        used = {life.wanted.spec.image for life in self._lives.values() if life.wanted}
        return {reference: digest for reference, digest in images.items() if reference in used}

    async def _wait_for_reason(self, name: str, life: _Life, settled: bool) -> None:
        """Wait for another wish, the container's end, or the time of the next try."""
        record = observe_record(self._world.folder / name)
        if life.wanted is None and record is None:
            return
        loop = asyncio.get_running_loop()
        pidfd = apply.open_pidfd(record) if record else None
        try:
            if pidfd is not None:
                loop.add_reader(pidfd, life.wake.set)
            timeout = None if settled else max(0.0, life.due - loop.time())
            if record and pidfd is None and timeout is None:
                timeout = 0.0  # it has ended meanwhile
            try:
                async with asyncio.timeout(timeout):
                    await life.wake.wait()
            except TimeoutError:
                pass
        finally:
            if pidfd is not None:
                loop.remove_reader(pidfd)
                os.close(pidfd)


async def _unless_woken(life: _Life, pull: Coroutine[None, None, Image]) -> None:
    """Wait for a pull, which may take long, but no longer than until there is another wish."""
    pulling, waking = asyncio.create_task(pull), asyncio.create_task(life.wake.wait())
    try:
        await asyncio.wait({pulling, waking}, return_when=asyncio.FIRST_COMPLETED)
        if pulling.done():
            pulling.result()
    finally:
        pulling.cancel()
        waking.cancel()


def _end_with(task: asyncio.Task[None]) -> None:
    """A loop that ends by a defect takes the node daemon along: PID 1 starts it again, and it resumes all loops."""
    if not task.cancelled() and (error := task.exception()):
        traceback.print_exception(error)
        os._exit(1)


async def _exit_of(record: Record) -> Exit | None:
    """How the first process ended; None if that is not known.

    PID 1 writes the status when it reaps, a moment after the process's end is seen here.
    """
    for _ in range(_EXIT_LOOKS):
        status = apply.read_exit(record)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            return Exit(code=code) if code >= 0 else Exit(signal=-code)
        await asyncio.sleep(_EXIT_LOOK_EVERY)
    return None


def _words(how: Exit | None) -> str:
    if how is None:
        return "how is not known"
    return f"killed by signal {how.signal}" if how.signal else f"exit code {how.code}"


def _told(name: str, trouble: Trouble, pointer: str) -> tuple[str, str, str]:
    return f"cannot allow container {name} {trouble.why}", trouble.remedy, f"{pointer}/{trouble.field}"


def collide(one: PublishedPort, other: PublishedPort) -> bool:
    """Whether two ports of the node are the same at some address."""
    everywhere = one.address is None or other.address is None
    same = (one.protocol, one.node) == (other.protocol, other.node)
    return same and (everywhere or packed(one.address or "") == packed(other.address or ""))


def _reserved(port: int) -> str | None:
    if port == ports.API:
        return "the node's API"
    return "Core-X of containers" if ports.COREX_FIRST <= port <= ports.COREX_LAST else None


def _not_found(name: str) -> RefusedError:
    detail = f"cannot find container {name[:80]!a}: there is none"
    return RefusedError(Refusal(404, "not-found", detail, "list the containers to see their names"))
