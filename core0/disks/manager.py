"""The disk manager: looks at each disk that comes, keeps pools as config and API want them, and obeys its verbs.

It makes nobody wait: a disk is looked at beside the others, in a process that can be given up; a boot does not wait
for any of them. What it claimed is written down before it is used, and what it did not claim it only reads.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from core0.disks import apply, erase, health, probe, upkeep
from core0.disks.apply import DiskError, World
from core0.disks.checks import absent, check_claim, check_pool, conflict, find_disk
from core0.disks.explain import explain_disk
from core0.disks.model import (
    Action,
    ClaimDisk,
    Facts,
    Figures,
    Known,
    KnownPool,
    MakePool,
    Mount,
    Release,
    RemakePool,
    Remount,
    Seen,
    SeenDisk,
    SeenPool,
    Unlock,
    Wanted,
    WantedPool,
)
from core0.disks.observe import Look, combine
from core0.disks.plan import claimable, own_disks, plan
from core0.disks.upkeep import Progress
from core0.disks.view import show_disk, show_pool
from core0.linux import files
from core0.linux.uevents import UeventSocket
from core0.linux.worker import HungError, Worker
from core0.wire.control import Report
from core0.wire.operations import Operation
from core0.wire.storage import (
    Claim,
    Disk,
    EraseRequest,
    Health,
    MountOptions,
    Pool,
    PoolSpec,
    Replacement,
    StorageConfig,
)

T = TypeVar("T")

# Seconds: disks that are missing at boot may still come, a pool waits so long before it serves without them.
_PATIENCE = 15.0
# Announcements come in bursts.
_SETTLE = 0.1
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 60.0
# Uevents can be lost, and disks that hung may have come to themselves.
_LOOK_AGAIN = 60.0
_SECTION, _WISHES = "disks", "pools"
_TPM = "/dev/tpmrm0"
_DAY = 86400.0
_FIGURES_EVERY, _HEALTH_EVERY = 30.0, 600.0
_WITH_HEALTH = ("nvme", "ata", "scsi", "usb")


class Keep(Protocol):
    """Where the node's state is kept."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""

    async def join(self, disk: str, device: str) -> None:
        """Keep a copy on a disk: its claim, its state partition."""

    async def leave(self, disk: str) -> None:
        """The disk is gone, or shall have no copy any more."""


class Operations(Protocol):
    """Where long work is started."""

    def start(self, kind: str, subject: str, work: Callable[[Progress], Awaitable[str]]) -> Operation:
        """Start it; 409 if the same is under way."""

    def list(self) -> tuple[Operation, ...]:
        """All that are known."""


class _Failure(msgspec.Struct):
    """What went wrong with a pool or a disk, and when to try again (monotonic seconds)."""

    why: str
    delay: float
    due: float


class Disks:
    """All disks and pools of the node."""

    def __init__(
        self,
        worker: Worker,
        keep: Keep,
        report: Report,
        operations: Operations,
        observe: Callable[[], tuple[Facts, ...]],
        prepare: Callable[[], None],
        pools: str,
        mounted: str,
    ) -> None:
        """A manager that has not looked at any disk yet.

        Args:
            worker: does what may hang.
            keep: the node's state.
            report: where to tell what happened.
            operations: where long work is.
            observe: the disks as sysfs shows them.
            prepare: makes the programs and drivers of storage available.
            pools: the folder for the pools' mounts.
            mounted: the file that tells a new node daemon what an earlier one has mounted.
        """
        self._world = World(worker, self._remember, pools)
        self._keep = keep
        self._report = report
        self._operations = operations
        self._observe = observe
        self._prepare = prepare
        self._mounts_file = mounted
        self._known = _decoded(keep.get(_SECTION), Known) or Known()
        self._wishes = _decoded(keep.get(_WISHES), dict[str, PoolSpec]) or {}
        self._config = StorageConfig()
        self._keys: dict[str, bytes] = {}
        self._mounted = _earlier_mounts(mounted)
        self._facts: tuple[Facts, ...] = ()
        self._looks: dict[str, Look] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, _Failure] = {}
        self._joined: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._figures: dict[str, Figures] = {}
        self._health: dict[str, Health | None] = {}
        self._changing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._patient_until = time.monotonic() + _PATIENCE
        self._defect: BaseException | None = None

    # what is shown

    @property
    def known(self) -> Known:
        """What the node knows to be its own."""
        return self._known

    def disks(self) -> tuple[Disk, ...]:
        """All disks, by id."""
        seen = self._seen()
        return tuple(show_disk(disk, self._known, seen) for disk in seen.disks)

    def pools(self) -> tuple[Pool, ...]:
        """All pools that there are or that are wanted, by name."""
        names = sorted({*self._known.pools, *self._wanted().pools})
        return tuple(self._pool(name) for name in names)

    def mounted(self) -> Mapping[str, str]:
        """The pools that serve: their folders by name."""
        return {name: f"{self._world.pools}/{name}" for name in self._mounted}

    async def wait_changed(self) -> None:
        """Wait until a disk or a pool is something else than before."""
        await self._changed.wait()

    def look_again(self) -> None:
        """Look whether disks came or went; the kernel's announcements do the same."""
        self._wake.set()

    # wishes and verbs

    def configure(self, config: StorageConfig) -> None:
        """Take the config's word. What it wants no more stays as it is."""
        self._config = config
        self._failures.clear()
        self._wake.set()

    async def claim(self, name: str, claim: Claim) -> Disk:
        """Give a disk to the node.

        Raises:
            RefusedError: if the disk is not known, cannot be used, or holds something else than is to be wiped.
        """
        async with self._changing:
            disk = self._find(name)
            await self._claim(disk, check_claim(disk, claim, self._known))
        self._tell_changed()
        return self.disk(name)

    async def adopt(self, name: str) -> Disk:
        """Take over a disk that another node claimed, with what it holds."""
        async with self._changing:
            disk = self._find(name)
            content = disk.content
            if not content or not content.claim or content.claim in self._known.disks:
                raise conflict(
                    f"cannot adopt {disk.id}: it carries no other node's claim",
                    "see 'zn disk ls' for what it is",
                )
            await self._remember(apply.adopted(self._known, disk))
        self._wake.set()
        return self.disk(name)

    def disk(self, name: str) -> Disk:
        """One disk.

        Raises:
            RefusedError: 404, or 409 if several are called so.
        """
        return show_disk(self._find(name), self._known, self._seen())

    async def put_pool(self, name: str, spec: PoolSpec) -> Pool:
        """Have a pool as the spec says.

        Raises:
            RefusedError: if the config wants one of that name, it is another kind of pool, or no disks can serve it.
        """
        async with self._changing:
            check_pool(name, spec, self._config, self._known, self._seen(), tpm=_has_tpm())
            if self._wishes.get(name) != spec:
                wishes = {**self._wishes, name: spec}
                await self._keep.put(_WISHES, msgspec.json.encode(wishes))
                self._wishes = wishes
            self._failures.pop(name, None)
        self._wake.set()
        return self._pool(name)

    def unlock(self, name: str, passphrase: str) -> Pool:
        """Take an encrypted pool's passphrase, for this boot."""
        pool = self.pool(name)
        self._keys[name] = passphrase.encode()
        self._failures.pop(name, None)
        self._wake.set()
        return pool

    def pool(self, name: str) -> Pool:
        """One pool. Raises RefusedError (404) if there is none."""
        if name not in self._known.pools and name not in self._wanted().pools:
            raise absent(f"cannot find pool {name}: there is none", "see 'zn pool ls'")
        return self._pool(name)

    async def wait_pool(self, name: str, seconds: float) -> Pool:
        """One pool, once it serves or has failed, or after so many seconds as it is."""
        try:
            async with asyncio.timeout(seconds):
                while self.pool(name).state == "waiting":
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.pool(name)

    def scrub(self, name: str) -> Operation:
        """Read all of a pool and correct what can be corrected."""
        self._serving(name, "scrub")

        async def work(progress: Progress) -> str:
            found = await upkeep.scrub_pool(self._world, name, progress)
            async with self._changing:
                pool = msgspec.structs.replace(self._known.pools[name], scrub=found)
                await self._remember(apply.with_pool(self._known, name, pool))
            self._tell_changed()
            if found.uncorrectable:
                self._report("storage", name, f"Alert: scrub found {found.detail}; restore what it hit")
            return found.detail

        return self._operations.start("scrub", name, work)

    def replace(self, name: str, wanted: Replacement) -> Operation:
        """Rebuild a member of a pool on another disk.

        Raises:
            RefusedError: if the pool does not serve, the old disk is no member, or the new one cannot be used.
        """
        pool = self._serving(name, "replace a disk of")
        old = self._member(name, pool, wanted.old)
        new = self._spare(pool, old, wanted.new)

        async def work(progress: Progress) -> str:
            return await self._replace(name, old, new, progress)

        return self._operations.start("replace", name, work)

    async def destroy_pool(self, name: str, uuid: str) -> None:
        """End a pool with everything in it; its disks are free afterwards. `uuid` is the pool's id, named again.

        Raises:
            RefusedError: if that is not its id, the config wants it, or somebody uses it.
        """
        pool = self.pool(name)
        if pool.id != uuid:
            raise conflict(f"cannot destroy pool {name}: its id is another", "see 'zn pool show'", "/id")
        if pool.source == "config":
            raise conflict(
                f"cannot destroy pool {name}: the config wants it", "take it out of the config first"
            )
        async with self._changing:
            await self._destroy(name)
        self._wake.set()

    def erase(self, name: str, request: EraseRequest) -> Operation:
        """Erase a disk that no pool uses, for good; it is not the node's any more then."""
        disk = self._find(name)
        shown = show_disk(disk, self._known, self._seen())
        if shown.pool or disk.trouble or not disk.content or disk.facts.read_only:
            detail = f"cannot erase {disk.id}: {shown.why}"
            raise conflict(detail, "destroy its pool or replace it there first")
        if shown.content != request.content:
            detail = f"cannot erase {disk.id}: it does not hold what the request names"
            raise conflict(detail, "look at it again: another disk may be meant", "/content")

        async def work(progress: Progress) -> str:
            return await self._erase(disk, request, progress)

        return self._operations.start("erase", disk.id, work)

    async def reset(self) -> None:
        """End every pool and every claim of this node. What it did not claim is not touched."""
        async with self._changing:
            own = tuple(self._own().values())
            await self._keep.put(_WISHES, b"{}")
            self._wishes = {}
            for name in tuple(self._known.pools):
                await self._destroy(name)
            for disk in own:
                await self._unclaim(disk)
        self._wake.set()

    def _serving(self, name: str, doing: str) -> KnownPool:
        pool = self.pool(name)
        if name not in self._mounted:
            raise conflict(f"cannot {doing} pool {name}: it does not serve: {pool.why}", "see 'zn pool show'")
        return self._known.pools[name]

    def _member(self, name: str, pool: KnownPool, disk: str) -> str:
        """The claim of a pool's member, there or not."""
        found = [
            claim
            for claim in pool.members
            if disk in (claim, self._known.disks[claim].id)
            or any(seen.facts.serial == disk for own, seen in self._own().items() if own == claim)
        ]
        if len(found) != 1:
            members = ", ".join(self._known.disks[claim].id for claim in pool.members)
            detail = f"cannot replace {disk[:120]!a}: it is no disk of pool {name}"
            raise conflict(detail, f"its disks are {members}", "/old")
        return found[0]

    def _spare(self, pool: KnownPool, old: str, name: str) -> SeenDisk:
        """The disk that comes: a free one of the node, a blank one, or the old one itself when it came back."""
        disk = self._find(name)
        claim = disk.content.claim if disk.content else ""
        known = self._known.disks.get(claim)
        if known and (known.pool is None or claim == old):
            return disk
        if known or claimable(disk, self._known) or not (disk.content and disk.content.blank):
            _, why, _ = explain_disk(disk, self._known, self._seen())
            raise conflict(f"cannot use {disk.id}: {why}", "take a free or a blank disk", "/new")
        least = max(self._known.disks[claim].size for claim in pool.members)
        if disk.facts.size < self._known.disks[old].size:
            raise conflict(f"cannot use {disk.id}: it is too small", f"take one of {least} bytes", "/new")
        return disk

    async def _replace(self, name: str, old: str, new: SeenDisk, progress: Progress) -> str:
        async with self._changing:
            if not new.content or new.content.claim not in self._known.disks:
                await self._claim(new, new.content.id if new.content else "")
            comes = self._find(new.id).content
            if not comes:
                raise DiskError(f"cannot use {new.id}: it is gone")
            pool = self._known.pools[name]
            key = self._key(name)
            members = {claim: device for claim, device in self._data(name).items() if claim != comes.claim}
            target = await apply.prepare_data(self._world, name, comes, pool.encryption, key)
            begun = msgspec.structs.replace(pool, replacing=(old, comes.claim))
            await self._remember(apply.with_pool(self._known, name, begun))
        gone = members.get(old) if old in self._mounted[name].claims and old != comes.claim else None
        await upkeep.replace_disk(self._world, name, gone, target, members, progress)
        async with self._changing:
            await self._finish_replacement(name, old, comes.claim)
        self._wake.set()
        return f"{self._known.disks[comes.claim].id} holds everything that {self._known.disks[old].id} held"

    async def _finish_replacement(self, name: str, old: str, new: str) -> None:
        pool = self._known.pools[name]
        members = tuple(dict.fromkeys(new if claim == old else claim for claim in pool.members))
        known = apply.with_pool(
            self._known, name, msgspec.structs.replace(pool, members=members, replacing=None)
        )
        if old != new:
            known = apply.with_disk(known, old, msgspec.structs.replace(known.disks[old], pool=None))
        await self._remember(known)
        mounted = self._mounted[name]
        self._note_mount(name, SeenPool(mounted.claims - {old} | {new}, mounted.options))

    async def _destroy(self, name: str) -> None:
        pool = self._known.pools.get(name)
        if name in self._mounted:
            await upkeep.unmount_pool(self._world, name)
            self._note_mount(name, None)
        if name in self._wishes:
            wishes = {other: spec for other, spec in self._wishes.items() if other != name}
            await self._keep.put(_WISHES, msgspec.json.encode(wishes))
            self._wishes = wishes
        if pool:
            own = self._own()
            data = {claim: own[claim].content for claim in pool.members if claim in own}
            for claim, content in data.items():
                if content:
                    await apply.clear_data(self._world, claim, content.data)
            await self._remember(apply.without_pool(self._known, name))
        self._looks = {device: look for device, look in self._looks.items() if not self._is_own(look)}

    def _is_own(self, look: Look) -> bool:
        return look.content is not None and look.content.claim in self._known.disks

    async def _unclaim(self, disk: SeenDisk) -> None:
        """Take the node's own claim off a disk."""
        claim = disk.content.claim if disk.content else ""
        await self._keep.leave(claim)
        self._joined.pop(claim, None)
        await self._remember(apply.without_disk(self._known, claim))
        await apply.clear_table(self._world, disk.facts)
        self._looks.pop(disk.facts.device, None)

    async def _erase(self, disk: SeenDisk, request: EraseRequest, progress: Progress) -> str:
        async with self._changing:
            if disk.content and disk.content.claim in self._known.disks:
                await self._unclaim(disk)
        try:
            return await erase.erase_disk(self._world.worker, disk.facts, request.method, progress)
        finally:
            self._looks.pop(disk.facts.device, None)
            self._wake.set()

    # the loop

    async def run(self) -> None:
        """Keep disks and pools as they are wanted. Ends by cancellation, or by a defect, which it raises."""
        await asyncio.to_thread(self._prepare)
        uevents = UeventSocket()
        looking = asyncio.create_task(self._keep_looking())
        looking.add_done_callback(self._ended)
        loop = asyncio.get_running_loop()
        loop.add_reader(uevents.fileno(), self._hear, uevents)
        try:
            while True:
                self._wake.clear()
                await self._reconcile()
                if self._defect:
                    raise self._defect
                await self._rest()
        finally:
            loop.remove_reader(uevents.fileno())
            uevents.close()
            for task in (looking, *self._looking.values()):
                task.cancel()

    async def _rest(self) -> None:
        """Until something happens, or something that failed is due again."""
        now = time.monotonic()
        due = [failure.due for failure in self._failures.values()]
        if now < self._patient_until:
            due.append(self._patient_until)
        try:
            async with asyncio.timeout(max(0.0, min([*due, now + _LOOK_AGAIN]) - now) + 0.01):
                await self._wake.wait()
                await asyncio.sleep(_SETTLE)
        except TimeoutError:  # those that were in trouble may have come to themselves
            self._looks = {name: look for name, look in self._looks.items() if not look.trouble}

    def _hear(self, uevents: UeventSocket) -> None:
        """A device came, went or changed: look at its disk again."""
        for event in uevents.pending():
            if event.variables.get("SUBSYSTEM") != "block":
                continue
            self._looks = {
                name: look
                for name, look in self._looks.items()
                if f"/{name}" not in event.devpath or self._is_mounted(look)
            }
            self._wake.set()

    def _is_mounted(self, look: Look) -> bool:
        """A disk of a mounted pool need not be looked at for each of its announcements."""
        claims = {claim for pool in self._mounted.values() for claim in pool.claims}
        return look.content is not None and look.content.claim in claims

    async def _keep_looking(self) -> None:
        """Figures of the pools, and from time to time the disks' health."""
        asked = -_HEALTH_EVERY
        while True:
            for name in tuple(self._mounted):
                await self._read_figures(name)
            self._scrub_due()
            if time.monotonic() - asked >= _HEALTH_EVERY and self._seen().settled:
                asked = time.monotonic()
                await self._ask_health()
            await self._sleep_until_changed(_FIGURES_EVERY)

    def _scrub_due(self) -> None:
        """Start the scrubs whose time has come, one pool after the other."""
        now, wanted = time.time(), self._wanted().pools
        for name in self._mounted.keys() & wanted.keys():
            pool, days = self._known.pools[name], wanted[name].spec.scrub_days
            last = max(pool.created, pool.scrub.ended if pool.scrub else 0.0)
            if days and now - last > days * _DAY and not self._is_busy():
                self.scrub(name)

    def _is_busy(self) -> bool:
        return any(
            one.state == "running" and one.kind in ("scrub", "replace") for one in self._operations.list()
        )

    async def _sleep_until_changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
                await asyncio.sleep(_FIRST_DELAY)
        except TimeoutError:
            pass

    async def _read_figures(self, name: str) -> None:
        path = f"{self._world.pools}/{name}"
        try:
            found = await self._world.worker.call(
                upkeep.read_figures, path, self._data(name), deadline=apply.LOOK
            )
        except OSError as error:
            self._report("storage", name, f"Cannot read its figures: {error.strerror or error}")
            return
        before = self._figures.get(name, Figures())
        for claim, (_, _, errors) in found.members.items():
            if errors > before.members.get(claim, (0, 0, 0))[2]:
                said = (
                    f"Alert: disk {self._known.disks[claim].id} made {errors} errors; 'zn pool scrub {name}'"
                )
                self._report("storage", name, said)
        if found != before:
            self._figures[name] = found
            self._tell_changed()

    async def _ask_health(self) -> None:
        for facts in self._facts:
            look = self._looks.get(facts.device, Look())
            if facts.bus in _WITH_HEALTH and not look.trouble:
                self._health[facts.device] = await health.ask(f"/dev/{facts.device}")
        self._tell_changed()

    async def _reconcile(self) -> None:
        self._facts = await asyncio.to_thread(self._observe)
        self._forget_gone()
        for facts in self._facts:
            if facts.device not in self._looks and facts.device not in self._looking:
                task = asyncio.create_task(self._look(facts), name=f"look {facts.device}")
                task.add_done_callback(self._ended)
                self._looking[facts.device] = task
        async with self._changing:
            await self._join_copies()
            await self._act()
        self._tell_changed()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A look that ends by another error than its disk's is a defect: the daemon shall end by it."""
        if not task.cancelled() and (error := task.exception()):
            self._defect = error
            self._wake.set()

    def _forget_gone(self) -> None:
        there = {facts.device for facts in self._facts}
        self._looks = {name: look for name, look in self._looks.items() if name in there}
        for name in self._looking.keys() - there:
            self._looking.pop(name).cancel()

    async def _look(self, facts: Facts) -> None:
        try:
            content = await self._world.worker.call(probe.look, facts, deadline=apply.LOOK)
            look = Look(content)
        except HungError as error:
            look = Look(trouble=str(error), hung=True)
        except OSError as error:
            look = Look(trouble=str(error))
        self._looking.pop(facts.device, None)
        self._looks[facts.device] = look
        self._wake.set()

    async def _join_copies(self) -> None:
        """Keep a copy of the state on every own disk that is there."""
        there = {claim: disk.content.state for claim, disk in self._own().items() if disk.content}
        for claim in self._joined.keys() - there.keys():
            del self._joined[claim]
            await self._keep.leave(claim)
        for claim, device in there.items():
            if self._joined.get(claim) != device:
                await self._keep.join(claim, device)
                self._joined[claim] = device

    async def _act(self) -> None:
        """Carry out what is planned and not waiting for another try; plan again after each action."""
        done: set[str] = set()
        while True:
            now = time.monotonic()
            actions = plan(self._wanted(), self._known, self._seen())
            action = next((one for one in actions if self._is_due(one, now)), None)
            if action is None or str(action) in done:
                return
            done.add(str(action))
            await self._do(action)

    def _is_due(self, action: Action, now: float) -> bool:
        failure = self._failures.get(_subject(action))
        return failure is None or failure.due <= now

    async def _do(self, action: Action) -> None:
        subject = _subject(action)
        self._report("storage", subject, str(action).capitalize())
        try:
            await self._carry_out(action)
        except OSError as error:
            before = self._failures.get(subject)
            delay = min(before.delay * 2, _LONGEST_DELAY) if before else _FIRST_DELAY
            self._failures[subject] = _Failure(str(error), delay, time.monotonic() + delay)
            self._report("storage", subject, f"Failed: {error}; trying again in {delay:.0f} s")
        else:
            self._failures.pop(subject, None)
        self._tell_changed()

    async def _carry_out(self, action: Action) -> None:
        match action:
            case ClaimDisk(disk, content):
                await self._claim(self._find(disk), content)
            case MakePool(name, spec, disks):
                claims = {found.content.claim: found for one in disks if (found := self._find(one)).content}
                data = {claim: found.content.data for claim, found in claims.items() if found.content}
                key = self._key(name)
                self._known = await apply.make_pool(self._world, self._known, name, spec, data, key)
            case RemakePool(name):
                options = self._options(name)
                data, key = self._data(name), self._key(name)
                self._known = await apply.finish_pool(self._world, self._known, name, data, key, options)
            case Unlock(name, claim):
                await apply.unlock_disk(self._world, claim, self._data(name)[claim], self._key(name) or b"")
            case Mount(name, options, degraded):
                await self._mount(name, options, degraded)
            case Remount(name, options):
                await apply.remount_pool(self._world, name, options)
                self._note_mount(name, SeenPool(self._mounted[name].claims, options))
            case Release(name):
                await apply.release_pool(self._world, name)
                self._note_mount(name, None)

    async def _claim(self, disk: SeenDisk, content: str) -> None:
        """Claim a disk, and look at it at once: what comes next needs its partitions."""
        known, claim = await apply.claim_disk(self._world, self._known, disk, content)
        facts = next((one for one in self._observe() if one.device == disk.facts.device), disk.facts)
        self._facts = tuple(facts if one.device == facts.device else one for one in self._facts)
        look = Look(await self._world.worker.call(probe.look, facts, deadline=apply.LOOK))
        if not look.content or look.content.claim != claim:
            raise DiskError(f"cannot claim {disk.id}: it does not hold what was written; replace it")
        self._looks[facts.device] = look
        # the new disk's copy first: what it is known for shall be on it, too
        await self._keep.join(claim, look.content.state)
        self._joined[claim] = look.content.state
        await self._remember(known)

    async def _mount(self, name: str, options: MountOptions, degraded: bool) -> None:
        devices = self._data(name)
        await apply.mount_pool(self._world, name, devices, options, degraded)
        self._note_mount(name, SeenPool(frozenset(devices), options))
        pool, profile = self._known.pools[name], await apply.read_profile(self._world, name)
        if profile and profile != pool.profile:
            pool = msgspec.structs.replace(pool, profile=profile)
            await self._remember(apply.with_pool(self._known, name, pool))
        if pool.replacing:
            self._resume_replacement(name)

    def _resume_replacement(self, name: str) -> None:
        """A replacement that a reboot interrupted goes on by itself in the kernel: see it end."""

        async def work(progress: Progress) -> str:
            finished = await upkeep.wait_replacement(f"{self._world.pools}/{name}", progress)
            async with self._changing:
                replacing = self._known.pools[name].replacing
                if replacing and finished:
                    await self._finish_replacement(name, *replacing)
                elif replacing:
                    await self._give_replacement_up(name, replacing[1])
            return "it went on after a reboot and is done" if finished else "it had not begun; start it again"

        self._operations.start("replace", name, work)

    async def _give_replacement_up(self, name: str, new: str) -> None:
        pool = msgspec.structs.replace(self._known.pools[name], replacing=None)
        known = apply.with_pool(self._known, name, pool)
        if new not in pool.members:
            known = apply.with_disk(known, new, msgspec.structs.replace(known.disks[new], pool=None))
        await self._remember(known)

    def _note_mount(self, name: str, pool: SeenPool | None) -> None:
        others = {other: seen for other, seen in self._mounted.items() if other != name}
        self._mounted = {**others, name: pool} if pool else others
        files.replace(self._mounts_file, msgspec.json.encode(self._mounted))

    async def _remember(self, known: Known) -> None:
        await self._keep.put(_SECTION, msgspec.json.encode(known))
        self._known = known

    # what the steps above work with

    def _wanted(self) -> Wanted:
        """Of two pools of one name the config's counts; the API refuses to make the other."""
        api = {name: WantedPool(spec, "api") for name, spec in self._wishes.items()}
        config = {name: WantedPool(spec, "config") for name, spec in self._config.pools.items()}
        keys = frozenset(
            name for name in {**api, **config, **self._known.pools} if self._key(name) is not None
        )
        return Wanted({**api, **config}, self._config.claims, keys)

    def _key(self, name: str) -> bytes | None:
        """The passphrase of a pool: as the operator gave it in this boot, or as its spec has it."""
        spec = self._config.pools.get(name) or self._wishes.get(name)
        given = spec.encryption.passphrase if spec and spec.encryption else None
        return self._keys.get(name) or (given.encode() if given else None)

    def _options(self, name: str) -> MountOptions:
        wanted = self._wanted().pools.get(name)
        return wanted.spec.mount if wanted else MountOptions()

    def _seen(self) -> Seen:
        disks = combine(self._facts, self._looks, self._config.media, self._health)
        unlocked = frozenset(claim for claim in self._known.disks if apply.is_open(claim))
        settled = not self._looking and all(facts.device in self._looks for facts in self._facts)
        patient = time.monotonic() < self._patient_until
        return Seen(disks, unlocked, self._mounted, settled, patient)

    def _own(self) -> dict[str, SeenDisk]:
        return own_disks(self._known, self._seen())

    def _data(self, name: str) -> dict[str, str]:
        """The devices of a pool's data by claim, of the disks that are there; the open ones of encrypted disks."""
        pool, own = self._known.pools[name], self._own()
        members = (*pool.members, *(pool.replacing or ()))
        found = {claim: own[claim].content for claim in dict.fromkeys(members) if claim in own}
        return {
            claim: apply.mapped(claim) if apply.is_open(claim) else content.data
            for claim, content in found.items()
            if content
        }

    def _find(self, name: str) -> SeenDisk:
        return find_disk(name, self._seen().disks)

    def _pool(self, name: str) -> Pool:
        failures = {subject: failure.why for subject, failure in self._failures.items()}
        return show_pool(name, self._wanted(), self._known, self._seen(), failures, self._figures.get(name))

    def _tell_changed(self) -> None:
        """Wake who waits, and tell each disk's and pool's sentence when it is a new one."""
        for disk in self.disks():
            self._say(disk.id, disk.state, disk.why)
        for pool in self.pools():
            self._say(f"pool {pool.name}", pool.state, pool.why)
        self._changed.set()
        self._changed = asyncio.Event()

    def _say(self, subject: str, state: str, why: str) -> None:
        if self._said.get(subject) != why:
            self._said[subject] = why
            if state != "probing":
                self._report("storage", subject, f"{why[:1].upper()}{why[1:]}")


def _subject(action: Action) -> str:
    """The pool that an action is for, or the disk."""
    match action:
        case ClaimDisk(disk, _, _, pool):
            return pool or disk
        case Unlock(pool, _):
            return pool
        case _:
            return action.name


def _has_tpm() -> bool:
    return os.path.exists(_TPM)


def _decoded(data: bytes | None, kind: type[T]) -> T | None:
    return None if data is None else msgspec.json.decode(data, type=kind)


def _earlier_mounts(file: str) -> dict[str, SeenPool]:
    """What an earlier node daemon mounted in this boot."""
    try:
        return msgspec.json.decode(files.read(file), type=dict[str, SeenPool])
    except FileNotFoundError:
        return {}
