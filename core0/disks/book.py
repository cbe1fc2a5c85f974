"""What the disk manager knows: what is remembered and wished for, what was seen, and what follows from both.

It is the one thing that the manager's parts share. Whoever changes disks or pools holds `changing` meanwhile.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

import msgspec

from core0.disks import apply
from core0.disks.apply import World
from core0.disks.checks import find_disk
from core0.disks.model import Facts, Figures, Known, Seen, SeenDisk, SeenPool, Wanted, WantedPool
from core0.disks.observe import Look, combine
from core0.disks.plan import own_disks
from core0.disks.view import check_disks, check_pools, show_disk, show_pool
from core0.linux import files
from core0.linux.worker import Worker
from core0.wire.control import Report, absent, conflict
from core0.wire.state import NEWER_IMAGE
from core0.wire.storage import Disk, Health, MountOptions, Pool, PoolSpec, StorageConfig
from core0.wire.types import Check

T = TypeVar("T")
# Of disks and pools: in these states somebody has to do something.
_ALERTS = ("hung", "failing", "degraded", "offline", "failed")

# Seconds: disks that are missing at boot may still come, a pool waits so long before it serves without them.
_PATIENCE = 15.0
# Seconds after its start in which the disks that a machine has are found.
_FINDING = 5.0
_SECTION, _WISHES = "disks", "pools"
_NOT_UNDERSTOOD = "what the node remembers of them is not understood"


class Keep(Protocol):
    """Where the node's state is kept.

    Attributes:
        superseded: set when a disk remembers more than the node daemon began with, which starts again then.
        expecting: whether a disk may still come that remembers this node.
    """

    superseded: asyncio.Event
    expecting: bool

    @property
    def strange(self) -> Mapping[str, str]:
        """The areas whose content this image does not understand, and why, by path."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""

    def joined(self) -> Mapping[str, str]:
        """The disks that have a copy, by claim: their state partitions."""

    async def join(self, disk: str, path: str, *, overwrite: bool = False) -> None:
        """Keep a copy on a disk: its claim, its state partition. Raises RefusedError if that cannot be."""

    async def meet(self, path: str) -> None:
        """Look at the state partition of a disk that is not known to be this node's: it may know better."""

    async def lose(self, disk: str, why: str) -> None:
        """The disk is gone."""

    async def leave(self, disk: str) -> None:
        """The disk shall have no copy any more."""


class Failure(msgspec.Struct):
    """What went wrong with a pool or a disk, and when to try again (monotonic seconds)."""

    why: str
    delay: float
    due: float


class Book:
    """What is known of disks and pools.

    Attributes:
        world: what the actions work on.
        keep: the node's state.
        report: where to tell what happened.
        known: what the node knows to be its own.
        wishes: the pools that the API asked for.
        doubt: why `known` and `wishes` are not what the node remembers, which is left alone then; mostly empty.
        config: what the config asks for.
        keys: the passphrases that the operator gave in this boot, by pool.
        mounted: the pools that serve.
        facts: the disks as the kernel showed them last.
        looks: what was found on them, by device.
        looking: the looks under way.
        failures: what went wrong, by pool or disk.
        figures: of the pools that serve.
        erred: by pool, the claims of disks that made errors which no scrub has seen to.
        health: of the disks that tell it, by device.
        waiting: requests that wait for disks that do not answer any more, by device.
        busy: the disks that the node itself keeps busy, by device, and what they are doing: it may take long, and
            nothing else is asked of them meanwhile.
        changing: the turn to change disks or pools.
        wake: the manager shall look at everything again.
        listed: set once it is known which disks there are.
        changed: set, and then another event, when something is not as before.
        patient_until: the time from which pools serve without missing disks (monotonic seconds).
        found_by: the time from which a disk that is not known is not there (monotonic seconds).
    """

    def __init__(self, worker: Worker, keep: Keep, report: Report, pools: str, mounted: str) -> None:
        """What the node's state and an earlier node daemon left; `pools` and `mounted` as the manager has them."""
        self.world = World(worker, self.remember, pools)
        self.keep = keep
        self.report = report
        self.known, self.wishes, self.doubt = _remembered(keep)
        if self.doubt:
            report(
                "storage",
                "disks",
                f"Alert: no disk is touched: {_NOT_UNDERSTOOD}: {self.doubt}; {NEWER_IMAGE}",
            )
        self.config = StorageConfig()
        self.keys: dict[str, bytes] = {}
        self.mounted = _earlier_mounts(mounted)
        self._served = set(self.mounted)
        self.facts: tuple[Facts, ...] = ()
        self.looks: dict[str, Look] = {}
        self.looking: dict[str, asyncio.Task[None]] = {}
        self.failures: dict[str, Failure] = {}
        self.figures: dict[str, Figures] = {}
        self.erred: dict[str, frozenset[str]] = {}
        self.health: dict[str, Health | None] = {}
        self.waiting: dict[str, int] = {}
        self.busy: dict[str, str] = {}
        self.changing = asyncio.Lock()
        self.wake = asyncio.Event()
        self.listed = asyncio.Event()
        self.changed = asyncio.Event()
        self.patient_until = time.monotonic() + _PATIENCE
        self.found_by = time.monotonic() + _FINDING
        self._mounts_file = mounted
        self._said: dict[str, str] = {}

    def disks(self) -> tuple[Disk, ...]:
        """All disks, by id."""
        seen = self.seen()
        return tuple(show_disk(disk, self.known, seen) for disk in seen.disks)

    def pools(self) -> tuple[Pool, ...]:
        """All pools that there are or that are wanted, by name."""
        wanted, seen = self.wanted(), self.seen()
        names = sorted({*self.known.pools, *wanted.pools})
        return tuple(self._shown(name, wanted, seen) for name in names)

    def checks(self) -> tuple[Check, ...]:
        """What the node's health says of disks and pools."""
        return check_disks(self.disks()), check_pools(self.pools())

    def folders(self) -> Mapping[str, str]:
        """The pools that serve: their folders by name."""
        return {name: f"{self.world.pools}/{name}" for name in self.mounted}

    def devices(self) -> Mapping[str, frozenset[str]]:
        """The pools that serve: the kernel's names of the disks that they have now, by name."""
        return {name: frozenset(pool.devices.values()) for name, pool in self.mounted.items()}

    @contextlib.contextmanager
    def occupying(self, doing: str, *devices: str) -> Iterator[None]:
        """Give disks something to do that may take them long: for the block, none of them counts as hung.

        Args:
            doing: one plain sentence on what it is.
            devices: the kernel's names of the disks.
        """
        before = self.busy
        self.busy = {**before, **dict.fromkeys(devices, doing)}
        try:
            yield
        finally:
            others = {device: what for device, what in self.busy.items() if device not in devices}
            self.busy = {**others, **{device: before[device] for device in devices if device in before}}

    async def wait_changed(self) -> None:
        """Wait until a disk or a pool is something else than before."""
        await self.changed.wait()

    async def wait_looked(self, seconds: float) -> None:
        """Wait until every disk was looked at, or so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.seen().settled:
                    await self.changed.wait()

    async def wait_listed(self) -> None:
        """Right after the boot, wait until it is known which disks there are."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self.found_by - time.monotonic())):
                await self.listed.wait()

    async def wait_found(self) -> bool:
        """Wait until something is known of one more disk; False once nothing is expected that was there at boot."""
        left = self.found_by - time.monotonic()
        if left <= 0 and self.seen().settled:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(left, 1.0)):
                await self.changed.wait()
        return True

    def disk(self, name: str) -> Disk:
        """One disk.

        Raises:
            RefusedError: 404, or 409 if several are called so.
        """
        return show_disk(self.find(name), self.known, self.seen())

    def pool(self, name: str) -> Pool:
        """One pool. Raises RefusedError (404) if there is none."""
        wanted = self.wanted()
        if name not in self.known.pools and name not in wanted.pools:
            raise absent(f"cannot find pool {name}: there is none", "see 'zn pool ls'")
        return self._shown(name, wanted, self.seen())

    def _shown(self, name: str, wanted: Wanted, seen: Seen) -> Pool:
        failures = {subject: failure.why for subject, failure in self.failures.items()}
        figures, erred = self.figures.get(name), self.erred.get(name, frozenset())
        return show_pool(name, wanted, self.known, seen, failures, figures, erred)

    def note_mount(self, name: str, pool: SeenPool | None) -> None:
        """A pool serves so now, or not any more (None); the next node daemon shall know."""
        others = {other: seen for other, seen in self.mounted.items() if other != name}
        self.mounted = {**others, name: pool} if pool else others
        self._served |= {name}
        files.replace(self._mounts_file, msgspec.json.encode(self.mounted))

    async def remember(self, known: Known) -> None:
        """Write down what is the node's own."""
        self.check_understood()
        await self.keep.put(_SECTION, msgspec.json.encode(known))
        self.known = known

    async def wish(self, wishes: dict[str, PoolSpec]) -> None:
        """Write down the pools that the API asked for."""
        self.check_understood()
        await self.keep.put(_WISHES, msgspec.json.encode(wishes))
        self.wishes = wishes

    def check_understood(self) -> None:
        """Refuse to change anything while the node does not know what it has. Raises RefusedError (409)."""
        if self.doubt:
            raise conflict(f"cannot change disks or pools: {_NOT_UNDERSTOOD}: {self.doubt}", NEWER_IMAGE)

    def is_due(self, subject: str) -> bool:
        """Whether what failed may be tried again; what has not failed may."""
        failure = self.failures.get(subject)
        return failure is None or failure.due <= time.monotonic()

    def wanted(self) -> Wanted:
        """Of two pools of one name the config's counts; the API refuses to make the other."""
        api = {name: WantedPool(spec, "api") for name, spec in self.wishes.items()}
        config = {name: WantedPool(spec, "config") for name, spec in self.config.pools.items()}
        pools = {**api, **config}
        keys = frozenset(
            name for name in {**pools, **self.known.pools} if self._has_key(name, pools.get(name))
        )
        return Wanted(pools, self.config.claims, keys)

    def _has_key(self, name: str, wanted: WantedPool | None) -> bool:
        """Whether a pool's key is at hand; that of a new pool whose key the TPM will keep can be made."""
        made = wanted and name not in self.known.pools and wanted.spec.encryption
        return self.key(name) is not None or bool(made and made.key == "tpm2")

    def key(self, name: str) -> bytes | None:
        """The passphrase of a pool: as the operator gave it in this boot, or as its spec has it."""
        spec = self.config.pools.get(name) or self.wishes.get(name)
        given = spec.encryption.passphrase if spec and spec.encryption else None
        return self.keys.get(name) or (given.encode() if given else None)

    def options(self, name: str) -> MountOptions:
        """How a pool shall be mounted."""
        wanted = self.wanted().pools.get(name)
        return wanted.spec.mount if wanted else MountOptions()

    def seen(self) -> Seen:
        """What is there, as it was seen last."""
        disks = combine(self.facts, self.looks, self.config.media, self.health, self.waiting)
        unlocked = frozenset(claim for claim in self.known.disks if apply.is_open(claim))
        settled = not self.looking and all(
            facts.device in {**self.looks, **self.busy} for facts in self.facts
        )
        patient = time.monotonic() < self.patient_until
        own = dict.fromkeys(self.keep.joined().values(), self.doubt) if self.doubt else {}
        strange, served = {**self.keep.strange, **own}, frozenset(self._served)
        return Seen(disks, unlocked, self.mounted, settled, patient, self.busy, strange, served)

    def own(self) -> dict[str, SeenDisk]:
        """The node's own disks that are there, by claim."""
        return own_disks(self.known, self.seen())

    def data(self, name: str) -> dict[str, str]:
        """The devices of a pool's data by claim, of the disks that are there; the open ones of encrypted disks."""
        pool, own = self.known.pools[name], self.own()
        current = (claim for claim in pool.members if claim not in pool.stale)
        # what is put on a new disk, or on a stale one, is current
        members = (*current, *(pool.replacing or ())[1:])
        found = {claim: own[claim].content for claim in dict.fromkeys(members) if claim in own}
        return {
            claim: apply.mapped(claim) if apply.is_open(claim) else content.data
            for claim, content in found.items()
            if content
        }

    def stale(self, name: str) -> tuple[str, ...]:
        """The devices of a pool's disks that came back with an old state."""
        pool, own, data = self.known.pools[name], self.own(), self.data(name)
        contents = (own[claim].content for claim in pool.stale if claim in own and claim not in data)
        return tuple(content.data for content in contents if content)

    def find(self, name: str) -> SeenDisk:
        """A disk by id, serial number or device. Raises RefusedError: 404, or 409 if several are called so."""
        return find_disk(name, self.seen().disks)

    def tell_changed(self) -> None:
        """Wake who waits, and tell each disk's and pool's sentence when it is a new one."""
        for disk in self.disks():
            self._say(disk.id, disk.state, disk.why, disk.state in _ALERTS)
        for pool in self.pools():
            full = self.figures.get(pool.name, Figures()).full
            self._say(f"pool {pool.name}", pool.state, pool.why, bool(full) or pool.state in _ALERTS)
        self.changed.set()
        self.changed = asyncio.Event()

    def _say(self, subject: str, state: str, why: str, alert: bool) -> None:
        if self._said.get(subject) != why:
            self._said[subject] = why
            if state != "probing":
                said = f"{why[:1].upper()}{why[1:]}"
                self.report("storage", subject, f"Alert: {why}" if alert else said)


def _remembered(keep: Keep) -> tuple[Known, dict[str, PoolSpec], str]:
    """What the node knows of disks and pools, its wishes, and why that is nothing if it cannot be understood."""
    try:
        known = _decoded(keep.get(_SECTION), Known) or Known()
        return known, _decoded(keep.get(_WISHES), dict[str, PoolSpec]) or {}, ""
    except msgspec.DecodeError as error:
        return Known(), {}, str(error)


def _decoded(data: bytes | None, kind: type[T]) -> T | None:
    return None if data is None else msgspec.json.decode(data, type=kind)


def _earlier_mounts(file: str) -> dict[str, SeenPool]:
    """What an earlier node daemon mounted in this boot."""
    try:
        return msgspec.json.decode(files.read(file), type=dict[str, SeenPool])
    except FileNotFoundError:
        return {}
