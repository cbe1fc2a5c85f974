"""The container manager: one loop per container brings it to what is wanted, and again when it ends.

What was acknowledged is in the node's state first; a new node daemon reads it, sees which containers live, and goes
on. So does the next boot, where none lives: each is made anew.
"""

import asyncio
import contextlib
import os
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from core0.containers import apply, rootfs, storage
from core0.containers.apply import ContainerError, Slot, World
from core0.containers.checks import check_targets, check_texts
from core0.containers.claims import Claims
from core0.containers.commit import commit
from core0.containers.export import send_root
from core0.containers.health import Reports, observe_health
from core0.containers.limits import (
    Trouble,
    beyond,
    changes_while_running,
    tmpfs_of,
    too_little,
    too_small,
)
from core0.containers.model import (
    Action,
    Create,
    Freeze,
    Identity,
    Limit,
    Pull,
    Record,
    Remove,
    Seen,
    Stop,
    Thaw,
    Wait,
    Wanted,
    encode_wish,
)
from core0.containers.observe import is_alive, observe_capacity, observe_memory_end, observe_record
from core0.containers.order import check_order, lacks_before
from core0.containers.plan import plan
from core0.containers.plans import check_plan
from core0.containers.stats import observe_stats
from core0.images.model import LOCAL, Image, PullError, parse_reference
from core0.images.store import Store
from core0.linux import cgroups, files, namespaces
from core0.linux.libc import in_words
from core0.wire import ports
from core0.wire.control import Refusal, RefusedError, Report, conflict, invalid, taken
from core0.wire.network import packed
from core0.wire.secrets import Secret
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
from corex.wire.health import HealthReport

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_FIRST_DELAY, _LONGEST_DELAY, _STABLE = 0.5, 60.0, 60.0
# Containers that are built at a time. More would only share the processors, each of them later than its deadline when
# a thousand start.
_AT_ONCE = 4
_EXIT_LOOKS, _EXIT_LOOK_EVERY = 20, 0.05
_ENDED: tuple[ContainerState, ...] = ("stopped", "failed")
_SETTLED: tuple[ContainerState, ...] = ("running", "paused", *_ENDED)
# States of a container whose first process lives, or may.
_LIVING = ("running", "pausing", "paused", "resuming", "stopping")
# Sections of the node's state: a wish each, who its Core-X is, and the digests of the images that are used, by their
# references.
_WISH, _IDENTITY, _IMAGES = "container/", "core-x/", "images"


_STOPPED: tuple[ContainerState, str] = ("stopped", "it was stopped as asked")


class _Life(msgspec.Struct, eq=False):
    """One container's loop, what was made of it, which only its loop changes, and what it last said."""

    wanted: Wanted | None
    spec: ContainerSpec
    number: int
    record: Record | None = None
    state: ContainerState = "stopped"
    why: str = "not started yet"
    failures: int = 0
    due: float = 0.0
    created: float = 0.0
    end: tuple[ContainerState, str] = _STOPPED
    exit: Exit | None = None
    before: str = ""  # how it ended, if it was started again for that
    health: str = ""
    held: bool = False
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

    async def change(self, values: Mapping[str, bytes | None]) -> None:
        """Write some sections and take others away, all of them or none."""


class Operations(Protocol[T_co]):
    """The node's long work."""

    def start(
        self, kind: str, subject: str, work: Callable[[Callable[[float | None, str], None]], Awaitable[str]]
    ) -> T_co:
        """Begin some work, which can be seen and cancelled from now on."""


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
        self._claims = Claims()
        self._building = asyncio.Semaphore(_AT_ONCE)
        # Those that cannot begin yet: of a thousand containers a few.
        self._waiting: dict[str, _Life] = {}
        self._reports = Reports()
        self._forgetting: asyncio.Task[None] | None = None
        world.store.in_use = self._images_in_use

    def _images_in_use(self) -> set[str]:
        """The digests of images that containers run from, or are wanted with."""
        users = self.users_of_images().values()
        wanted = (self._world.store.images.get(reference) for _, reference in users)
        return {digest for digest, _ in users} | {image.digest for image in wanted if image}

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
        ended = apply.end_unfinished(self._world, (name for name, *_, record in left if record))
        apply.forget_exits(record.pid for *_, record in left if record)
        self._forgetting = asyncio.create_task(self._forget_left(ended), name="left of containers")
        numbers = self._numbers({name: record for name, *_, record in left})
        for name, spec, wanted, record in sorted(left, key=lambda one: (one[3] is None, -one[1].priority)):
            number = numbers[name]
            if record and is_alive(record):
                # the packet filter is a new one, too
                addresses = (record.address, record.address6)
                self._world.network.resume(
                    record.number, name, record.spec.network, addresses, record.spec.ports
                )
            self._begin(name, _Life(wanted, spec, number, record))

    def _numbers(self, records: Mapping[str, Record | None]) -> dict[str, int]:
        """Each container's slot: where it is made, or where its Core-X answered before; one that is free if not."""
        found = {record.number: name for name, record in records.items() if record}
        for name in (name for name, record in records.items() if not record):
            identity = self._identity(name)
            if identity:
                found.setdefault(identity.number, name)
        numbers = {name: number for number, name in found.items()}
        for name in sorted(records.keys() - numbers.keys()):
            numbers[name] = _free_number(numbers.values())
        return numbers

    async def _forget_left(self, ended: Sequence[int]) -> None:
        """Forget what an earlier node daemon had no time to: exits, and who containers were that are gone."""
        await apply.forget_ended(ended)
        for name in [section.removeprefix(_IDENTITY) for section in self._keep.names(_IDENTITY)]:
            async with self._changing:
                if name not in self._lives:
                    await self._forget_identity(name)

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
        record = life.record
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
            health=self._health_of(name, running),
        )

    def _health_of(self, name: str, record: Record | None) -> HealthReport | None:
        return observe_health(self._world.folder / name) if record and record.spec.health else None

    @property
    def store(self) -> Store:
        """The images that containers are made of."""
        return self._world.store

    def users_of_images(self) -> dict[str, tuple[str, str]]:
        """Of each container the digest of the image that it runs from, and the reference that it is wanted with.

        Either is empty where there is none.
        """
        records = {name: life.record for name, life in self._lives.items()}
        running = {name: record.image_digest for name, record in records.items() if record}
        wanted = {name: wish.spec.image for name, wish in self._coming.items()}
        wanted |= {name: life.wanted.spec.image for name, life in self._lives.items() if life.wanted}
        return {name: (running.get(name, ""), wanted.get(name, "")) for name in sorted({*running, *wanted})}

    def users_of(self, volume: str) -> tuple[str, ...]:
        """The containers that have a volume: in their spec, or still while they are made anew."""
        return self._claims.users_of_volume(volume)

    def hosts_of(self, network: str) -> dict[str, int]:
        """The containers that are wanted in a network, or still in it, and their numbers there."""
        return dict(self._claims.hosts(network))

    def _note_claims(self, name: str) -> None:
        """Keep what a container claims, whose wish or record is another one now."""
        life, coming = self._lives.get(name), self._coming.get(name)
        record = life.record if life else None
        wishes = [wish for wish in (coming, life.wanted if life else None) if wish]
        # while it moves to another network, or has other volumes soon, it has both
        hosts = {record.spec.network: record.host} if record else {}
        hosts |= {wish.spec.network: wish.host for wish in wishes}
        specs = [wish.spec for wish in wishes]
        mounting = [*specs, *([life.spec] if life else []), *([record.spec] if record else [])]
        self._claims.note(
            name,
            [port for spec in specs for port in spec.ports],
            hosts,
            [mount.volume for spec in mounting for mount in spec.mounts],
            [one.secret for spec in specs for one in spec.secrets],
        )

    def _set_record(self, name: str, life: _Life, record: Record | None) -> None:
        if life.record != record:
            life.record = record
            self._note_claims(name)

    def volumes_came(self) -> None:
        """Volumes can be used, or lie on other disks: try again what failed and has some, limit anew what runs."""
        for name, life in self._lives.items():
            if life.state == "failed" and life.spec.mounts:
                life.failures, life.due = 0, 0.0
                life.wake.set()
            elif life.spec.mounts:
                self._limit_again(name)

    def image_came(self, reference: str) -> None:
        """An image was loaded: try again what waits for it."""
        for life in self._lives.values():
            if life.state == "failed" and life.spec.image == reference:
                life.failures, life.due = 0, 0.0
                life.wake.set()

    def limit_again(self, volume: str) -> None:
        """A volume's limits are others now: those of its containers are, too."""
        for name in self.users_of(volume):
            self._limit_again(name)

    def _record_of(self, name: str) -> Record | None:
        life = self._lives.get(name)
        return life.record if life else None

    def _limit_again(self, name: str) -> None:
        record = self._record_of(name)
        if record and is_alive(record):
            try:
                apply.limit(self._world, name, record.spec)
            except OSError as error:
                said = f"Warning: it keeps its old limits: {error.strerror or error}; stop and start it"
                self._report("container", name, said)

    async def wait(self, name: str, seconds: float, *, traffic: bool = False) -> Container:
        """One container, with its traffic if that is asked for, once it has settled, or after so many seconds."""
        await self._until(name, _SETTLED, seconds)
        found = self.get(name)
        if not (traffic and found.pid):
            return found
        return msgspec.structs.replace(found, traffic=self._world.network.traffic(self._life(name).number))

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
            RefusedError: if it would change one though it shall be `new`, for an image that cannot be had, or a port
                that is taken (named by its owner).
        """
        if not self._is_wanted(name, spec) and not self._world.store.get(spec.image):
            self._check(name, spec)
            await self.look_for_image(spec.image)
        async with self._changing:
            self._check(name, spec)
            known = self._lives.get(name)
            before = known.wanted if known else None
            if self._is_wanted(name, spec):
                return self.get(name)
            if new and before:
                raise taken("container", name)
            number = known.number if known else _free_number(life.number for life in self._lives.values())
            wanted = Wanted(spec, host=self._host_for(name, spec))
            await self._remember(name, wanted, number)
            life = self._lives.get(name)  # it may have ended meanwhile, if it was being removed
            if life:
                life.spec = spec
                self._want(name, life, wanted)
            else:
                (self._world.folder / name).mkdir(mode=0o700, exist_ok=True)
                self._begin(name, _Life(wanted, spec, number))
            return self.get(name)

    def _is_wanted(self, name: str, spec: ContainerSpec) -> bool:
        """Whether a container is to be just so, and to run."""
        life = self._lives.get(name)
        return bool(life and life.wanted and life.wanted == Wanted(spec, host=life.wanted.host))

    async def look_for_image(self, reference: str, *, again: bool = False) -> asyncio.Future[Image]:
        """Ask an image's servers before anything is promised; returns the image that comes. Others need not wait.

        Raises:
            RefusedError: it cannot be had (422).
        """
        _check_reference(reference)
        try:
            return await self._world.store.look(reference, again=again)
        except PullError as error:
            remedy = "correct the image's name, or have its registry serve it"
            raise invalid(str(error), remedy, "/image") from None

    async def set_running(self, name: str, run: bool) -> Container:
        """Want a container to run or not. Raises RefusedError (404)."""
        async with self._changing:
            life = self._life(name)
            if life.wanted is None:
                raise _not_found(name)
            wanted = msgspec.structs.replace(life.wanted, run=run, paused=False)
            await self._remember(name, wanted, life.number)
            self._want(name, life, wanted)
            return self.get(name)

    async def set_limits(self, name: str, limits: Limits) -> Container:
        """Want a container to have other limits; one that runs goes on with them.

        Raises:
            RefusedError: there is no such container (404), it uses more now (409), or the node has not got as much
                (422).
        """
        async with self._changing:
            life = self._life(name)
            if life.wanted is None:
                raise _not_found(name)
            spec = msgspec.structs.replace(life.wanted.spec, limits=limits)
            self._check_limits(name, spec, "")
            wanted = msgspec.structs.replace(life.wanted, spec=spec)
            if wanted != life.wanted:
                await self._remember(name, wanted, life.number)
                life.spec = wanted.spec
                self._want(name, life, wanted)
            return self.get(name)

    def _check_limits(self, name: str, spec: ContainerSpec, pointer: str) -> None:
        """Refuse what the node has not got, and less than a container has that goes on with other limits."""
        trouble = beyond(spec.limits, observe_capacity(self._world.cgroup), tmpfs_of(spec))
        if trouble:
            raise invalid(*_told(name, trouble, pointer))
        record = self._record_of(name)
        if record and is_alive(record) and changes_while_running(record.spec, spec):
            trouble = self._too_little(name, record, spec.limits)
            if trouble:
                raise conflict(*_told(name, trouble, pointer))

    def _too_little(self, name: str, record: Record, limits: Limits) -> Trouble | None:
        if limits.storage_mib != record.spec.limits.storage_mib:
            try:
                trouble = too_small(limits, storage.used(record))
            except OSError as error:
                why = f"another size of its files: {in_words(error)}"
                return Trouble("storage_mib", why, "stop it first, or delete and create it")
            if trouble:
                return trouble
        volumes = self._world.volumes.limits(mount.volume for mount in record.spec.mounts).memory
        used = cgroups.memory_in_use(self._world.cgroup / name)
        return too_little(limits, volumes + tmpfs_of(record.spec), used)

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
                await self._remember(name, wanted, life.number)
                self._want(name, life, wanted)
                self._say_turning(name, life, paused)
            return self.get(name)

    def _say_turning(self, name: str, life: _Life, paused: bool) -> None:
        """Who waits until it has settled shall not take it for settled already."""
        if paused and life.state in ("running", "resuming"):
            self._say(name, life, "pausing", "its processes are being halted")
        elif not paused and life.state in ("paused", "pausing"):
            self._say(name, life, "resuming", "its processes shall go on")

    async def rename(self, name: str, new: str) -> Container:
        """Call a container something else. One that runs has its name in cgroup and network.

        Raises:
            RefusedError: there is none (404), it runs, others begin after it, or the name is taken (409).
        """
        async with self._changing:
            life = self._life(name)
            if life.wanted is None:
                raise _not_found(name)
            if name == new:
                return self.get(name)
            self._check_rename(name, new, life)
            changes = {_WISH + name: None, _WISH + new: encode_wish(life.wanted)}
            changes |= {_IDENTITY + name: None, _IDENTITY + new: self._keep.get(_IDENTITY + name)}
            await self._keep.change(changes)
            await _ended_task(life.task)
            del self._lives[name]
            self._note_claims(name)
            (self._world.folder / name).rename(self._world.folder / new)
            self._begin(new, msgspec.structs.replace(life, wake=asyncio.Event(), changed=asyncio.Event()))
            life.changed.set()
            self._report("container", new, f"Renamed: it was {name}")
            return self.get(new)

    def _check_rename(self, name: str, new: str, life: _Life) -> None:
        record = life.record
        if record or life.state not in _ENDED or life.wake.is_set() or (life.wanted and life.wanted.run):
            raise conflict(f"cannot rename container {name}: it is {life.state}", "stop it first")
        if new in self._lives:
            raise taken("container", new)
        followers = [
            other for other, one in self._lives.items() if one.wanted and name in one.wanted.spec.after
        ]
        if followers:
            said = f"cannot rename container {name}: {', '.join(sorted(followers))} begins after it"
            raise conflict(said, "put that one without it first")

    def export(self, name: str, connection: int, operations: Operations[object]) -> None:
        """Send the files of a container that runs over a connection, a blocking socket that stays the caller's.

        Raises:
            RefusedError: there is no such container (404), or it does not run (409).
        """
        _, record = self._with_files(name, "export")
        entered = [namespaces.open_namespace(record.pid, kind) for kind in ("user", "mnt")]
        way = os.dup(connection)
        operations.start("export", name, lambda _: self._export([*entered, way]))

    def _with_files(self, name: str, doing: str) -> tuple[_Life, Record]:
        """A container that runs, and so has files. Raises RefusedError: there is none (404), it does not (409)."""
        life = self._life(name)
        record = life.record
        if record is None or not is_alive(record) or life.state not in ("running", "paused"):
            detail = f"cannot {doing} container {name}: it is {life.state}, and its files end with it"
            raise conflict(detail, "start it first")
        return life, record

    def commit(self, name: str, image: str, operations: Operations[T]) -> T:
        """Make an image `local:…` of a container that runs. Its processes are halted meanwhile.

        Raises:
            RefusedError: there is no such container (404), it does not run or is being committed (409), or the name
                is none of an image (422).
        """
        reference = f"{LOCAL}{image}"
        try:
            parse_reference(reference)
        except ValueError as error:
            raise invalid(str(error), "correct the name", "/name") from None
        life, record = self._with_files(name, "commit")
        images = self._world.store.images.values()
        base = next((image for image in images if image.digest == record.image_digest), None)
        if life.held or base is None:
            why = "it is being committed" if life.held else "its image is not here any more"
            raise conflict(f"cannot commit container {name}: {why}", "wait for that, or make it anew")
        subject = f"{name} {reference}"
        return operations.start(
            "commit", subject, lambda _: self._commit(name, life, record, base, reference)
        )

    async def _commit(self, name: str, life: _Life, record: Record, base: Image, reference: str) -> str:
        if life.held:  # by one that began at the same moment
            raise OSError(f"cannot commit container {name}: it is being committed")
        life.held = True
        try:
            await apply.freeze(self._world, name)
            image, sent = await commit(self._world, name, record, base, reference)
            self.image_came(reference)
        except (ContainerError, PullError) as error:
            raise OSError(str(error)) from None
        finally:
            life.held = False
            if not (life.wanted and life.wanted.paused):
                with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                    apply.thaw(self._world, name)
        return f"{reference} is here: {image.digest}, with a layer of {sent} bytes"

    async def _export(self, handed: Sequence[int]) -> str:
        try:
            sent = await self._world.worker.call(send_root, deadline=None, descriptors=handed)
        finally:
            for descriptor in handed:
                os.close(descriptor)
        return f"{sent} bytes sent"

    async def delete(self, name: str) -> None:
        """Want a container to be gone. Raises RefusedError (404)."""
        async with self._changing:
            life = self._life(name)
            await self._keep.remove(_WISH + name)
            self._want(name, life, None)
            self._say(name, life, "removing", "it is being removed")

    async def _remember(self, name: str, wanted: Wanted, number: int) -> None:
        """Have a wish in the node's state, from where it is not lost any more; with it who its Core-X is."""
        self._coming[name] = wanted
        self._note_claims(name)
        changes = {_WISH + name: encode_wish(wanted)}
        if name not in self._lives or self._keep.get(_IDENTITY + name) is None:
            changes[_IDENTITY + name] = msgspec.json.encode(self._make_identity(number))
        try:
            await self._keep.change(changes)
        finally:
            del self._coming[name]
            self._note_claims(name)

    def _make_identity(self, number: int) -> Identity:
        return Identity(number, *self._world.certificates())

    def _identity(self, name: str) -> Identity | None:
        """Who a container's Core-X is; None if that is not known, or not understood, as a newer image wrote it."""
        kept = self._keep.get(_IDENTITY + name)
        try:
            return msgspec.json.decode(kept, type=Identity) if kept else None
        except msgspec.ValidationError:
            return None

    async def _identify(self, name: str, number: int) -> Identity:
        """Who a container's Core-X is from now on: who it was, if that is known and its slot is free."""
        known = self._identity(name)
        if known and known.number == number:
            return known
        made = msgspec.structs.replace(known, number=number) if known else self._make_identity(number)
        try:
            await self._keep.put(_IDENTITY + name, msgspec.json.encode(made))
        except RefusedError as error:
            said = (
                f"Warning: its Core-X has this port and certificate until it ends: cannot keep them: {error}"
            )
            self._report("container", name, said)
        return made

    async def _forget_identity(self, name: str) -> None:
        """Of a container that is gone; what cannot be forgotten now, the next node daemon forgets."""
        with contextlib.suppress(RefusedError):
            await self._keep.remove(_IDENTITY + name)

    def _host_for(self, name: str, spec: ContainerSpec) -> int:
        """The number of a container in its network: the one that it has, or a free one. Raises RefusedError."""
        fixed = self._world.network.fixed_host(spec.network, spec.ipv4, spec.ipv6)
        if fixed is not None:
            return fixed
        hosts = self._claims.hosts(spec.network)
        return hosts.get(name) or self._world.network.choose_host(spec.network, tuple(hosts.values()))

    def _check(self, name: str, spec: ContainerSpec) -> None:
        _check_reference(spec.image)
        check_texts(spec)
        check_plan(spec)
        self._check_limits(name, spec, "/limits")
        self._check_mounts(spec)
        self._check_secrets(spec)
        if spec.after:
            check_order(name, spec, self._spec_of)
        self._check_network(name, spec)
        self._check_ports(name, spec)

    def _check_ports(self, name: str, spec: ContainerSpec) -> None:
        earlier = Claims()
        for index, port in enumerate(spec.ports):
            if port.address is not None and packed(port.address) is None:
                detail = f"cannot publish port {port.node} at {port.address!a}: it is no address"
                remedy = "write an address of the node, or none"
                raise RefusedError(Refusal(422, "invalid", detail, remedy, f"/ports/{index}/address"))
            others = (f"container {who}" for who in self._claims.users_of(port) if who != name)
            same = ("an earlier entry of this container" for _ in earlier.users_of(port))
            owner = next(others, None) or next(same, None) or self._reserved(port)
            if owner:
                detail = f"cannot publish {port.protocol} port {port.node}: {owner} has it"
                pointer = f"/ports/{index}/node"
                raise RefusedError(
                    Refusal(409, "conflict", detail, "choose another port of the node", pointer)
                )
            earlier.note(str(index), (port,))

    def _check_network(self, name: str, spec: ContainerSpec) -> None:
        trouble = self._world.network.trouble(spec.network)
        if trouble:
            detail, remedy = f"cannot put it into network {spec.network}: {trouble}", "see 'zn network ls'"
            raise RefusedError(Refusal(422, "invalid", detail, remedy, "/network"))
        fixed = self._world.network.fixed_host(spec.network, spec.ipv4, spec.ipv6)
        if fixed is None:
            return
        users = self._claims.hosts(spec.network).items()
        owner = next((user for user, host in users if host == fixed and user != name), "")
        if owner:
            field = "ipv4" if spec.ipv4 is not None else "ipv6"
            detail = f"cannot give it address {getattr(spec, field)}: container {owner} has it"
            raise conflict(detail, "choose another one, or leave it to the node", f"/{field}")

    def _check_mounts(self, spec: ContainerSpec) -> None:
        for index, mount in enumerate(spec.mounts):
            trouble = self._world.volumes.trouble(mount.volume)
            if trouble:
                remedy = "see 'zn volume ls'; the pool that has it may not be there yet"
                pointer = f"/mounts/{index}/volume"
                raise RefusedError(Refusal(422, "invalid", f"cannot mount {trouble}", remedy, pointer))
        check_targets(spec)

    def _check_secrets(self, spec: ContainerSpec) -> None:
        for index, one in enumerate(spec.secrets):
            if not self._world.secrets.has(one.secret):
                detail = f"cannot show it secret {one.secret}: the node has none of that name"
                remedy = f"give it with 'zn secret set {one.secret}'"
                raise invalid(detail, remedy, f"/secrets/{index}/secret")

    def secrets(self) -> tuple[Secret, ...]:
        """All secrets, without their values."""
        return tuple(map(self.secret, self._world.secrets.names()))

    def secret(self, name: str) -> Secret:
        """One secret and who has it. Raises RefusedError (404)."""
        return msgspec.structs.replace(
            self._world.secrets.get(name), containers=self._claims.users_of_secret(name)
        )

    def put_secret(self, name: str, value: bytes) -> Secret:
        """Keep a secret in memory; containers that wait for it begin. Raises RefusedError (409)."""
        self._world.secrets.put(name, value)
        self._report("secret", name, f"Given: {len(value)} bytes")
        for holder in self._claims.users_of_secret(name):
            if holder in self._lives and self._lives[holder].state == "waiting":
                self._lives[holder].wake.set()
        return self.secret(name)

    def delete_secret(self, name: str) -> None:
        """Forget a secret. Raises RefusedError: there is none (404), or a container has it (409)."""
        holders = ", ".join(self._claims.users_of_secret(name))
        if holders:
            raise conflict(f"cannot delete secret {name}: container {holders} has it", "remove that first")
        self._world.secrets.delete(name)
        self._report("secret", name, "Deleted")

    def _spec_of(self, name: str) -> ContainerSpec | None:
        """What a container shall be, also one that is only being remembered yet."""
        life = self._lives.get(name)
        wanted = self._coming.get(name) or (life.wanted if life else None)
        return wanted.spec if wanted else None

    def _reserved(self, port: PublishedPort) -> str | None:
        if port.protocol == "udp":
            return self._world.network.port_owner(port.node) or _reserved(port.node)
        return _reserved(port.node)

    def port_owner(self, port: int) -> str:
        """Which container has a UDP port of the node published; empty if none has."""
        wanted = PublishedPort(port, port, "udp")
        return next((f"container {who}" for who in self._claims.users_of(wanted)), "")

    def _life(self, name: str) -> _Life:
        try:
            return self._lives[name]
        except KeyError:
            raise _not_found(name) from None

    def _begin(self, name: str, life: _Life) -> None:
        self._lives[name] = life
        self._note_claims(name)
        life.wake.set()  # there is something to do: who waits does not take it for settled
        life.task = asyncio.create_task(self._live(name, life), name=f"container {name}")
        life.task.add_done_callback(_end_with)

    def _want(self, name: str, life: _Life, wanted: Wanted | None) -> None:
        life.wanted, life.failures, life.due, life.end, life.before = wanted, 0, 0.0, _STOPPED, ""
        self._note_claims(name)
        life.wake.set()

    def _say(self, name: str, life: _Life, state: ContainerState, why: str) -> None:
        """Note where a container is in its life; who waits for a change is told."""
        if (life.state, life.why) != (state, why):
            self._report("container", name, f"{state.capitalize()}: {why}")
        life.state, life.why = state, why
        life.changed.set()
        life.changed = asyncio.Event()
        self._waiting.pop(name, None)
        if state == "waiting":
            self._waiting[name] = life
        self._wake_followers(name)

    def _see(self, name: str, life: _Life) -> Seen:
        record = observe_record(self._world.folder / name)
        self._set_record(name, life, record)
        image = self._world.store.get(life.wanted.spec.image) if life.wanted else None
        freezer = cgroups.freezer(self._world.cgroup / name)
        if life.held and not (life.wanted and life.wanted.paused):
            freezer = "thawed"  # it goes on by itself
        return Seen(record, bool(record and is_alive(record)), image, freezer, self._lacks(life))

    def _lacks(self, life: _Life) -> str:
        """What a container needs to begin and is not there."""
        wanted = life.wanted.spec.secrets if life.wanted else ()
        missing = next((one.secret for one in wanted if not self._world.secrets.has(one.secret)), "")
        if missing:
            remedy = f"a reboot ended it: 'zn secret set {missing}' gives it again"
            return f"it needs secret {missing}, which the node has not; {remedy}"
        if life.wanted and life.wanted.spec.after:
            others = {other: self.get(other) for other in life.wanted.spec.after if other in self._lives}
            return lacks_before(life.wanted.spec, others)
        return ""

    def _wake_followers(self, name: str) -> None:
        """Have those look again that wait for a container."""
        for life in self._waiting.values():
            if life.wanted and name in life.wanted.spec.after:
                life.wake.set()

    def _health_changed(self, name: str, life: _Life) -> None:
        report = observe_health(self._world.folder / name)
        if report and report.state != life.health:
            life.health = report.state
            self._report("container", name, f"{report.state.capitalize()}: {report.why}")
            self._wake_followers(name)

    async def _live(self, name: str, life: _Life) -> None:
        """The loop of one container: plan, apply, wait for its end or for another wish."""
        while True:
            life.wake.clear()
            seen = self._see(name, life)
            if seen.record and not seen.alive:
                await self._ended(name, life, seen.record, await _exit_of(seen.record))
            if life.wanted is None and seen.record is None and await self._forget(name, life):
                return
            settled = await self._reconcile(name, life, seen)
            await asyncio.sleep(0)  # who waits for it is told first
            await self._wait_for_reason(name, life, settled)

    async def _forget(self, name: str, life: _Life) -> bool:
        """Forget a container that is gone, unless somebody wants it again by now."""
        async with self._changing:
            if life.wanted is not None:
                return False
            await self._forget_identity(name)
            apply.forget(self._world, name)
            self._report("container", name, "Removed")
            life.changed.set()
            del self._lives[name]
            self._note_claims(name)
            self._waiting.pop(name, None)
            self._wake_followers(name)
            return True

    async def _reconcile(self, name: str, life: _Life, seen: Seen) -> bool:
        """Apply what the plan says; returns whether all of it is done, or something is left for when it is due."""
        loop = asyncio.get_running_loop()
        for action in plan(life.wanted, seen):
            if isinstance(action, Pull | Create) and loop.time() < life.due:
                return False
            try:
                await self._apply(name, life, action)
            except (ContainerError, PullError, OSError) as error:
                self._failed(name, life, in_words(error))
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
            case Wait(why):
                self._say(name, life, "waiting", why)
            case Create(spec):
                self._say(name, life, "creating", "its image is here, it is being built")
                async with self._building:
                    if not life.wake.is_set():  # there may be another wish by now
                        await self._create(name, life, spec)
            case Limit(record, spec):
                self._set_record(name, life, await apply.limit_anew(world, name, record, spec))
                what = "labels" if spec.limits == record.spec.limits else "limits"
                self._report("container", name, f"Goes on with other {what}")
            case Freeze():
                await apply.freeze(world, name)
            case Thaw():
                apply.thaw(world, name)
            case Stop(record):
                self._say(name, life, "stopping", "its processes are being stopped")
                await self._stop(name, life, record)
            case Remove(record):
                await apply.remove(world, name, record)
                self._set_record(name, life, None)

    async def _create(self, name: str, life: _Life, spec: ContainerSpec) -> None:
        slot = Slot(name, life.number, ports.COREX_FIRST + life.number - 1, self._host_now(name, life))
        rootfs.load_modules()
        image = await self._world.store.pull(spec.image)
        await self._world.store.verify(image)
        made = await apply.create(self._world, slot, spec, image, await self._identify(name, life.number))
        self._set_record(name, life, made)
        await self._note_image(spec.image, image.digest)
        life.created = asyncio.get_running_loop().time()

    async def _stop(self, name: str, life: _Life, record: Record) -> None:
        if life.held:  # halted processes would not hear of it
            apply.thaw(self._world, name)
        await apply.stop(self._world, name, record)

    def _host_now(self, name: str, life: _Life) -> int:
        """The container's number in its network; one that was remembered without gets it now."""
        if life.wanted and not life.wanted.host:
            try:
                host = self._host_for(name, life.wanted.spec)
            except RefusedError as error:
                raise ContainerError(f"{error}; {error.refusal.remedy}") from None
            life.wanted = msgspec.structs.replace(life.wanted, host=host)
            self._note_claims(name)
        return life.wanted.host if life.wanted else 0

    def _settle(self, name: str, life: _Life) -> None:
        record = life.record
        if record and life.wanted and life.wanted.paused:
            self._say(
                name, life, "paused", "its processes are halted where they are, and keep what they have"
            )
        elif record:
            again = f"; it was started again: {life.before}" if life.before else ""
            self._say(name, life, "running", f"Core-X answers on port {record.corex.port}{again}")
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
        memory = observe_memory_end(self._world.cgroup / name)
        if how and memory:
            how = msgspec.structs.replace(how, out_of_memory=True)
        ended = f"it ended: {_words(how)}{': ' + memory if memory else ''}"
        async with self._changing:
            if life.wanted is None or not life.wanted.run or life.wanted.spec != record.spec:
                return
            life.exit = how
            policy = life.wanted.spec.restart
            if policy == "never" or (policy == "on-failure" and clean):
                life.wanted = msgspec.structs.replace(life.wanted, run=False, paused=False)
                life.end = ("stopped" if clean else "failed", ended)
                try:
                    await self._remember(name, life.wanted, life.number)
                except RefusedError as error:
                    said = f"cannot remember that it ended: {error}; the next boot starts it again"
                    self._report("container", name, f"Warning: {said}")
                return
            life.before = ended
        if asyncio.get_running_loop().time() - life.created >= _STABLE:
            life.failures = 0
        said = apply.last_words(self._world, name)
        self._failed(name, life, f"{ended}{'; Core-X: ' + said if said else ''}")

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
        record = life.record
        if life.wanted is None and record is None:
            return
        loop = asyncio.get_running_loop()
        pidfd = apply.open_pidfd(record) if record else None
        with contextlib.ExitStack() as undo:
            if pidfd is not None and record:
                loop.add_reader(pidfd, life.wake.set)
                undo.callback(os.close, pidfd)
                undo.callback(loop.remove_reader, pidfd)
                if record.spec.health:
                    self._watch_health(name, life, undo)
            timeout = None if settled else max(0.0, life.due - loop.time())
            if record and pidfd is None and timeout is None:
                timeout = 0.0  # it has ended meanwhile
            try:
                async with asyncio.timeout(timeout):
                    await life.wake.wait()
            except TimeoutError:
                pass

    def _watch_health(self, name: str, life: _Life, undo: contextlib.ExitStack) -> None:
        """Be told what a container says of its health."""
        watching = self._reports.watched(self._world.folder / name, lambda: self._health_changed(name, life))
        try:
            undo.enter_context(watching)
        except OSError as error:
            said = f"Warning: nobody is told of its health: {error.strerror or error}; make it anew"
            self._report("container", name, said)


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


async def _ended_task(task: asyncio.Task[None] | None) -> None:
    """End a loop that has nothing to do."""
    if task:
        task.cancel()
        await asyncio.wait([task])


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


def _free_number(used: Iterable[int]) -> int:
    """The lowest slot that no container has; it gives Core-X's port, so there are as many as ports."""
    taken_already, last = {*used}, ports.COREX_LAST - ports.COREX_FIRST + 1
    free = next((number for number in range(1, last + 1) if number not in taken_already), None)
    if free is None:
        detail = f"cannot make another container: the node has {last} already"
        raise RefusedError(Refusal(409, "conflict", detail, "remove one first"))
    return free


def _check_reference(image: str) -> None:
    try:
        parse_reference(image)
    except ValueError as error:
        raise invalid(str(error), "correct the image reference", "/image") from None


def _words(how: Exit | None) -> str:
    if how is None:
        return "how is not known"
    return f"killed by signal {how.signal}" if how.signal else f"exit code {how.code}"


def _told(name: str, trouble: Trouble, pointer: str) -> tuple[str, str, str]:
    return f"cannot allow container {name} {trouble.why}", trouble.remedy, f"{pointer}/{trouble.field}"


def _reserved(port: int) -> str | None:
    if port == ports.API:
        return "the node's API"
    return "Core-X of containers" if ports.COREX_FIRST <= port <= ports.COREX_LAST else None


def _not_found(name: str) -> RefusedError:
    detail = f"cannot find container {name[:80]!a}: there is none"
    return RefusedError(Refusal(404, "not-found", detail, "list the containers to see their names"))
