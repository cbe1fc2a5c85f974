"""The disk manager: looks at each disk that comes, keeps pools as config and API want them, and obeys its verbs.

It makes nobody wait: a disk is looked at beside the others, in a process that can be given up; a boot does not wait
for any of them. What it claimed is written down before it is used, and what it did not claim it only reads.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from core0.disks import apply, model, probe
from core0.disks.apply import DiskError, World
from core0.disks.explain import describe, explain_disk, explain_pool
from core0.disks.model import (
    NEEDED,
    Action,
    ClaimDisk,
    Content,
    Facts,
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
from core0.disks.observe import Look, combine, find
from core0.disks.plan import claimable, own_disks, plan
from core0.linux import files
from core0.linux.uevents import UeventSocket
from core0.linux.worker import HungError, Worker
from core0.wire.control import Refusal, RefusedError, Report
from core0.wire.storage import Claim, Disk, MountOptions, Pool, PoolMember, PoolSpec, Signature, StorageConfig

T = TypeVar("T")

# Seconds: disks that are missing at boot may still come, a pool waits so long before it serves without them.
_PATIENCE = 15.0
# Announcements come in bursts.
_SETTLE = 0.1
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 60.0
# Uevents can be lost, and disks that hung may have come to themselves.
_LOOK_AGAIN = 60.0
_SECTION, _WISHES = "disks", "pools"


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
        observe: Callable[[], tuple[Facts, ...]],
        pools: str,
        mounted: str,
    ) -> None:
        """A manager that has not looked at any disk yet.

        Args:
            worker: does what may hang.
            keep: the node's state.
            report: where to tell what happened.
            observe: the disks as sysfs shows them.
            pools: the folder for the pools' mounts.
            mounted: the file that tells a new node daemon what an earlier one has mounted.
        """
        self._world = World(worker, self._remember, pools)
        self._keep = keep
        self._report = report
        self._observe = observe
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
        return tuple(_shown(disk, self._known, seen) for disk in seen.disks)

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
            content = self._claimable(disk, claim)
            await self._claim(disk, content)
        self._tell_changed()
        return self.disk(name)

    async def adopt(self, name: str) -> Disk:
        """Take over a disk that another node claimed, with what it holds."""
        async with self._changing:
            disk = self._find(name)
            content = disk.content
            if not content or not content.claim or content.claim in self._known.disks:
                raise _conflict(
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
        return _shown(self._find(name), self._known, self._seen())

    async def put_pool(self, name: str, spec: PoolSpec) -> Pool:
        """Have a pool as the spec says.

        Raises:
            RefusedError: if the config wants one of that name, it is another kind of pool, or no disks can serve it.
        """
        async with self._changing:
            self._check_pool(name, spec)
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
            raise RefusedError(
                Refusal(404, "not-found", f"cannot find pool {name}: there is none", "see 'zn pool ls'")
            )
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

    # the loop

    async def run(self) -> None:
        """Keep disks and pools as they are wanted. Ends by cancellation, or by a defect, which it raises."""
        uevents = UeventSocket()
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
            for task in self._looking.values():
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
        except TimeoutError:
            pass

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
        disks = combine(self._facts, self._looks, self._config.media)
        unlocked = frozenset(claim for claim in self._known.disks if os.path.exists(apply.mapped(claim)))
        settled = not self._looking and all(facts.device in self._looks for facts in self._facts)
        patient = time.monotonic() < self._patient_until
        return Seen(disks, unlocked, self._mounted, settled, patient)

    def _own(self) -> dict[str, SeenDisk]:
        return own_disks(self._known, self._seen())

    def _data(self, name: str) -> dict[str, str]:
        """The devices of a pool's data by claim, of the disks that are there; the open ones of encrypted disks."""
        pool, own = self._known.pools[name], self._own()
        found = {claim: own[claim].content for claim in pool.members if claim in own}
        return {
            claim: apply.mapped(claim) if os.path.exists(apply.mapped(claim)) else content.data
            for claim, content in found.items()
            if content
        }

    def _find(self, name: str) -> SeenDisk:
        found = find(name, self._seen().disks)
        if not found:
            detail = f"cannot find disk {name[:120]!a}: there is none of that id or serial number"
            raise RefusedError(Refusal(404, "not-found", detail, "see 'zn disk ls'"))
        if len(found) > 1:
            detail = f"cannot tell which disk is meant: {len(found)} have the serial number {name[:120]!a}"
            raise RefusedError(
                Refusal(409, "conflict", detail, f"use an id: {', '.join(disk.id for disk in found)}")
            )
        return found[0]

    def _claimable(self, disk: SeenDisk, claim: Claim) -> str:
        """The content that a claim may destroy. Raises RefusedError if it may not."""
        refused = claimable(disk, self._known)
        if refused or disk.content is None:
            raise _conflict(f"cannot claim {disk.id}: {refused}", "see 'zn disk ls' for what it is")
        if claim.wipe is None and not disk.content.blank:
            held = "another node's claim" if disk.content.claim else describe(disk.content)
            raise _conflict(
                f"cannot claim {disk.id}: it holds {held}",
                f'to destroy that, claim it with "wipe": "{disk.content.id}"',
                "/wipe",
            )
        if claim.wipe not in (None, disk.content.id):
            raise _conflict(
                f"cannot claim {disk.id}: it does not hold what the claim names",
                "look at it again: it has changed since, or another disk is meant",
                "/wipe",
            )
        return disk.content.id

    def _check_pool(self, name: str, spec: PoolSpec) -> None:
        """Refuse what can never be, and what would be another pool than the one there is."""
        if name in self._config.pools:
            raise _conflict(
                f"cannot set pool {name}: the node's config has one of that name", "change the config"
            )
        if spec.encryption and spec.encryption.key == "config" and not spec.encryption.passphrase:
            raise _invalid("the passphrase is missing", "give one", "/encryption/passphrase")
        if spec.encryption and spec.encryption.key == "tpm2" and not os.path.exists("/dev/tpmrm0"):
            raise _invalid("this machine has no TPM 2.0", "use another key", "/encryption/key")
        needed = NEEDED[spec.profile]
        if spec.select.count is not None and spec.select.count < needed:
            said = f"{spec.profile} needs {needed} disks, and the selector takes {spec.select.count}"
            raise _invalid(said, "raise the count, or use profile single", "/select/count")
        known = self._known.pools.get(name)
        if known:
            self._check_same(name, spec, known)
            return
        self._check_serials(spec)

    def _check_same(self, name: str, spec: PoolSpec, known: KnownPool) -> None:
        changed = "profile" if spec.profile != known.profile else None
        if (spec.encryption is None) != (known.encryption is None):
            changed = "encryption"
        if changed:
            raise _conflict(
                f"cannot change the {changed} of pool {name}: it holds data",
                "make another pool and move the volumes there",
                f"/{changed}",
            )

    def _check_serials(self, spec: PoolSpec) -> None:
        """Disks that are called by name must be there, and be one each."""
        for number, serial in enumerate(spec.select.serials):
            found = find(serial, self._seen().disks)
            if len(found) != 1:
                few = "there is none" if not found else f"{len(found)} disks are called so"
                raise _invalid(f"disk {serial!a}: {few}", "see 'zn disk ls'", f"/select/serials/{number}")
        if spec.select.serials and len(spec.select.serials) < NEEDED[spec.profile]:
            said = (
                f"{spec.profile} needs {NEEDED[spec.profile]} disks, and {len(spec.select.serials)} are named"
            )
            raise _invalid(said, "name more disks, or use profile single", "/select/serials")

    def _pool(self, name: str) -> Pool:
        wanted, seen, known = self._wanted(), self._seen(), self._known.pools.get(name)
        failures = {subject: failure.why for subject, failure in self._failures.items()}
        state, why = explain_pool(name, wanted, self._known, seen, failures)
        wish = wanted.pools.get(name)
        return Pool(
            name,
            known.uuid if known else "",
            state,
            why,
            _public(wish.spec) if wish else None,
            wish.source if wish else "none",
            self._members(known) if known else (),
        )

    def _members(self, pool: KnownPool) -> tuple[PoolMember, ...]:
        own = self._own()
        return tuple(
            PoolMember(
                self._known.disks[claim].id if claim in self._known.disks else claim,
                "online" if claim in own else "missing",
                self._known.disks[claim].size if claim in self._known.disks else 0,
            )
            for claim in pool.members
        )

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


def _shown(disk: SeenDisk, known: Known, seen: Seen) -> Disk:
    state, why, pool = explain_disk(disk, known, seen)
    facts, content = disk.facts, disk.content
    return Disk(
        disk.id,
        facts.device,
        facts.serial,
        facts.wwn,
        facts.model,
        facts.firmware,
        facts.bus,
        disk.media,
        facts.size,
        facts.logical_sector,
        facts.physical_sector,
        facts.read_only,
        facts.removable,
        state,
        why,
        pool,
        tuple(Signature(one.device, one.type, one.label, one.uuid) for one in _holds(content)),
        content.id if content else "",
        disk.health,
    )


def _holds(content: Content | None) -> tuple[model.Signature, ...]:
    return content.signatures if content else ()


def _public(spec: PoolSpec) -> PoolSpec:
    """A spec without its secret."""
    if not spec.encryption:
        return spec
    return msgspec.structs.replace(spec, encryption=msgspec.structs.replace(spec.encryption, passphrase=None))


def _decoded(data: bytes | None, kind: type[T]) -> T | None:
    return None if data is None else msgspec.json.decode(data, type=kind)


def _earlier_mounts(file: str) -> dict[str, SeenPool]:
    """What an earlier node daemon mounted in this boot."""
    try:
        return msgspec.json.decode(files.read(file), type=dict[str, SeenPool])
    except FileNotFoundError:
        return {}


def _conflict(detail: str, remedy: str, pointer: str = "") -> RefusedError:
    return RefusedError(Refusal(409, "conflict", detail, remedy, pointer))


def _invalid(detail: str, remedy: str, pointer: str) -> RefusedError:
    return RefusedError(Refusal(422, "invalid", f"cannot accept the request: {detail}", remedy, pointer))
