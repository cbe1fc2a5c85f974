"""The disk manager: looks at each disk that comes, keeps pools as config and API want them, and obeys its verbs.

It makes nobody wait: a disk is looked at beside the others, in a process that can be given up; a boot does not wait
for any of them. What it claimed is written down before it is used, and what it did not claim it only reads.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from core0.disks import apply, keys, probe, upkeep
from core0.disks.book import Book, Failure, Keep
from core0.disks.checks import check_pool
from core0.disks.claims import Claims
from core0.disks.model import (
    Action,
    ClaimDisk,
    Facts,
    MakePool,
    Mount,
    Release,
    RemakePool,
    Remount,
    SeenPool,
    Unlock,
)
from core0.disks.observe import Look
from core0.disks.plan import plan
from core0.disks.watch import Watch
from core0.disks.works import Operations, Works
from core0.linux import device_nodes, tpm2
from core0.linux.uevents import UeventSocket
from core0.linux.worker import HungError, Worker
from core0.wire.control import RefusedError, Report, conflict, taken
from core0.wire.storage import MountOptions, Pool, PoolSpec, StorageConfig

# Announcements come in bursts.
_SETTLE = 0.1
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 60.0
# Uevents can be lost, and disks that hung may have come to themselves.
_LOOK_AGAIN = 60.0
_FORMATTING = "a file system is being made on it"


class Disks:
    """All disks and pools of the node.

    Attributes:
        book: what is known of them.
        claims: gives and takes disks.
        works: long or final work.
    """

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
        self.book = Book(worker, keep, report, pools, mounted)
        self.claims = Claims(self.book, observe)
        self.works = Works(self.book, self.claims, operations)
        self._watch = Watch(self.book, self.works, operations)
        self._observe = observe
        self._prepare = prepare
        self._given: set[str] = set()
        self._taken_over = set(self.book.mounted)
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._removed: set[str] = set()
        self._defect: BaseException | None = None

    def look_again(self) -> None:
        """Look whether disks came or went; the kernel's announcements do the same."""
        self.book.wake.set()

    def configure(self, config: StorageConfig) -> None:
        """Take the config's word. What it wants no more stays as it is."""
        self.book.config = config
        self.book.failures.clear()
        self.book.wake.set()

    async def put_pool(self, name: str, spec: PoolSpec, *, new: bool = False) -> Pool:
        """Have a pool as the spec says.

        Raises:
            RefusedError: if it would change one though it shall be `new`, the config wants one of that name, it is
                another kind of pool, or no disks can serve it.
        """
        async with self.book.changing:
            self.book.check_understood()
            there = name in self.book.wishes or name in self.book.known.pools
            if new and there and self.book.wishes.get(name) != spec:
                raise taken("pool", name)
            check_pool(name, spec, self.book.config, self.book.known, self.book.seen(), tpm=_has_tpm())
            if self.book.wishes.get(name) != spec:
                await self.book.wish({**self.book.wishes, name: spec})
            self.book.failures.pop(name, None)
        self.book.wake.set()
        return self.book.pool(name)

    def unlock(self, name: str, passphrase: str) -> Pool:
        """Take an encrypted pool's passphrase, for this boot; if the TPM should have had it, for the next, too."""
        pool = self.book.pool(name)
        self.book.keys[name] = passphrase.encode()
        self._given.add(name)
        self.book.failures.pop(name, None)
        self.book.wake.set()
        return pool

    def recovery_key(self, name: str) -> str:
        """The key that the TPM keeps for a pool, with which the pool opens if that TPM does not give it any more.

        Raises:
            RefusedError: 404 without such a pool, 409 if its key is another, or not at hand.
        """
        shown, pool, key = self.book.pool(name), self.book.known.pools.get(name), self.book.key(name)
        if not pool or not pool.sealed:
            raise conflict(f"cannot show a recovery key of pool {name}: no TPM keeps its key", "see its spec")
        if key is None:
            detail = f"cannot show the recovery key of pool {name}: the TPM does not give it: {shown.why}"
            raise conflict(detail, "unlock it with the key that was shown earlier")
        return key.decode()

    async def wait_pool(self, name: str, seconds: float) -> Pool:
        """One pool, once it serves or has failed, or after so many seconds as it is."""
        try:
            async with asyncio.timeout(seconds):
                while self.book.pool(name).state == "waiting":
                    await self.book.changed.wait()
        except TimeoutError:
            pass
        return self.book.pool(name)

    async def run(self) -> None:
        """Keep disks and pools as they are wanted. Ends by cancellation, or by a defect, which it raises."""
        await self._have_tools()
        uevents = UeventSocket()
        looking = asyncio.create_task(self._watch.run())
        looking.add_done_callback(self._ended)
        loop = asyncio.get_running_loop()
        loop.add_reader(uevents.fileno(), self._hear, uevents)
        try:
            while True:
                self.book.wake.clear()
                await self._reconcile()
                if self._defect:
                    raise self._defect
                await self._rest()
        finally:
            loop.remove_reader(uevents.fileno())
            uevents.close()
            for task in (looking, *self.book.looking.values(), *self._waiting.values()):
                task.cancel()

    async def _have_tools(self) -> None:
        """Have the programs for disks. A node that cannot have them serves without disks, and says so."""
        told = ""
        while True:
            try:
                return await asyncio.to_thread(self._prepare)
            except OSError as error:
                if (said := error.strerror or str(error)) != told:
                    told = said
                    said = f"Alert: no disk is looked at: {told}; boot an image whose storage part is whole"
                    self.book.report("storage", "disks", said)
                await asyncio.sleep(_LOOK_AGAIN)

    async def _rest(self) -> None:
        """Until something happens, or something that failed is due again."""
        now = time.monotonic()
        due = [failure.due for failure in self.book.failures.values()]
        if now < self.book.patient_until:
            due.append(self.book.patient_until)
        try:
            async with asyncio.timeout(max(0.0, min([*due, now + _LOOK_AGAIN]) - now) + 0.01):
                await self.book.wake.wait()
                await asyncio.sleep(_SETTLE)
        except TimeoutError:  # those that could not be read may have come to themselves
            self.book.looks = {
                name: look for name, look in self.book.looks.items() if look.hung or not look.trouble
            }

    def _hear(self, uevents: UeventSocket) -> None:
        """A device came, went or changed: look at its disk again."""
        for event in uevents.pending():
            if event.variables.get("SUBSYSTEM") != "block":
                continue
            if event.action == "remove":
                self._removed.add(event.devpath.rpartition("/")[2])
            self.book.looks = {
                name: look
                for name, look in self.book.looks.items()
                if f"/{name}" not in event.devpath or name in self.book.busy or self._is_mounted(look)
            }
            self.book.wake.set()

    def _is_mounted(self, look: Look) -> bool:
        """A disk of a mounted pool need not be looked at for each of its announcements."""
        claims = {claim for pool in self.book.mounted.values() for claim in pool.claims}
        return look.content is not None and look.content.claim in claims

    async def _reconcile(self) -> None:
        self.book.facts = await asyncio.to_thread(self._observe)
        self.book.listed.set()
        self._forget_gone()
        for facts in self.book.facts:
            if facts.device not in {**self.book.looks, **self.book.looking, **self.book.busy}:
                task = asyncio.create_task(self._look(facts), name=f"look {facts.device}")
                task.add_done_callback(self._ended)
                self.book.looking[facts.device] = task
        async with self.book.changing:
            await self.claims.join_copies(self._trying)
            if self.book.keep.superseded.is_set():
                return  # the daemon starts again, knowing more: what it does not know is nobody's to act on
            await self._note_lost()
            await self._ask_keys()
            await self._act()
            self._resume_replacements()
        self.book.tell_changed()

    def _resume_replacements(self) -> None:
        """See to its end what an earlier node daemon of this boot began, once it is known which disks are there."""
        if self.book.seen().settled:
            for name in self._taken_over & self.book.mounted.keys() & self.book.known.pools.keys():
                if self.book.known.pools[name].replacing:
                    self.works.resume_replacement(name)
            self._taken_over.clear()

    async def _note_lost(self) -> None:
        """Take disks that went off the pools they served in. One that comes back is another one to the kernel."""
        there = {facts.device for facts in self.book.facts} - self._removed
        self._removed.clear()
        for name, pool in tuple(self.book.mounted.items()):
            left = {claim: device for claim, device in pool.devices.items() if device in there}
            if len(left) < len(pool.devices):
                claims = pool.claims & left.keys()
                with self._trying(name):  # it may have been the last one that kept the node's state
                    await self.claims.note_stale(name, claims)
                self.book.note_mount(name, SeenPool(claims, pool.options, left))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A look that ends by another error than its disk's is a defect: the daemon shall end by it."""
        if not task.cancelled() and (error := task.exception()):
            self._defect = error
            self.book.wake.set()

    def _forget_gone(self) -> None:
        there = {facts.device for facts in self.book.facts}
        self.book.looks = {name: look for name, look in self.book.looks.items() if name in there}
        for name in self.book.looking.keys() - there:
            self.book.looking.pop(name).cancel()
        for name in self._waiting.keys() - there:
            self._waiting.pop(name).cancel()

    async def _look(self, facts: Facts) -> None:
        device_nodes.show(facts.device)
        try:
            content = await self.book.world.worker.call(probe.look, facts, deadline=apply.LOOK)
            look = Look(content)
        except HungError as error:
            look = Look(trouble=str(error), hung=True)
            device_nodes.hide(facts.device)
            self._look_when(facts.device, error.ended)
        except OSError as error:
            look = Look(trouble=str(error))
        self.book.looking.pop(facts.device, None)
        self.book.looks[facts.device] = look
        self.book.wake.set()

    def _look_when(self, device: str, ended: asyncio.Event) -> None:
        """Look at a disk that hung again when the process that waits for it is gone: then the disk has answered.

        Never before: each process that waits for a dead disk stays for ever. One that hangs again and again is looked
        at after a while only.
        """
        again = self._waiting.pop(device, None)

        async def wait() -> None:
            await ended.wait()
            await asyncio.sleep(_LOOK_AGAIN if again else 0)
            self.book.looks.pop(device, None)
            self.book.wake.set()

        if again:
            again.cancel()
        self._waiting[device] = task = asyncio.create_task(wait(), name=f"wait for {device}")
        task.add_done_callback(self._ended)

    async def _ask_keys(self) -> None:
        """Get the keys of pools whose disks are there from the TPM."""
        for name, pool in self.book.known.pools.items():
            needed = (
                pool.sealed and self.book.key(name) is None and self.book.own().keys() & set(pool.members)
            )
            if needed and self.book.is_due(name):
                with self._trying(name):
                    self.book.keys[name] = (await keys.ask_key(self.book.world, name, pool.sealed)).encode()

    async def _act(self) -> None:
        """Carry out what is planned and not waiting for another try; plan again after each action."""
        done: set[str] = set()
        while not self.book.doubt:
            actions = plan(self.book.wanted(), self.book.known, self.book.seen())
            due = (one for one in actions if self._may_begin(one) and self.book.is_due(_subject(one)))
            action = next(due, None)
            if action is None or str(action) in done:
                return
            done.add(str(action))
            await self._do(action)

    def _may_begin(self, action: Action) -> bool:
        """Whether it is not too early: the config takes no disk while the node's own pools may still come."""
        if not self.book.keep.expecting or _subject(action) in self.book.known.pools:
            return True
        wanted = self.book.wanted().pools.get(_subject(action))
        return wanted is not None and wanted.source == "api"

    async def _do(self, action: Action) -> None:
        subject = _subject(action)
        self.book.report("storage", subject, str(action).capitalize())
        with self._trying(subject):
            await self._carry_out(action)
        self.book.tell_changed()

    @contextlib.contextmanager
    def _trying(self, subject: str) -> Iterator[None]:
        """Note that something failed, so that it is tried again later, less and less often."""
        try:
            yield
        except (OSError, RefusedError) as error:
            before = self.book.failures.get(subject)
            delay = min(before.delay * 2, _LONGEST_DELAY) if before else _FIRST_DELAY
            self.book.failures[subject] = Failure(str(error), delay, time.monotonic() + delay)
            self.book.report("storage", subject, f"Failed: {error}; trying again in {delay:.0f} s")
        else:
            self.book.failures.pop(subject, None)

    async def _carry_out(self, action: Action) -> None:
        book = self.book
        match action:
            case ClaimDisk(disk, content):
                await self.claims.take(book.find(disk), content)
            case MakePool(name, spec, disks):
                await self._make(name, spec, disks)
            case RemakePool(name):
                options, own = book.options(name), book.own()
                data, key = book.data(name), book.key(name)
                with book.occupying(_FORMATTING, *(own[claim].facts.device for claim in data)):
                    book.known = await apply.finish_pool(book.world, book.known, name, data, key, options)
            case Unlock(name, claim):
                await apply.unlock_disk(book.world, claim, book.data(name)[claim], book.key(name) or b"")
                await self._seal_anew(name)
            case Mount(name, options, degraded):
                await self._mount(name, options, degraded)
            case Remount(name, options):
                await apply.remount_pool(book.world, name, options)
                book.note_mount(name, msgspec.structs.replace(book.mounted[name], options=options))
            case Release(name):
                await apply.release_pool(book.world, name)
                book.note_mount(name, None)

    async def _make(self, name: str, spec: PoolSpec, disks: Sequence[str]) -> None:
        book = self.book
        claims = {found.content.claim: found for one in disks if (found := book.find(one)).content}
        data = {claim: found.content.data for claim, found in claims.items() if found.content}
        sealed = b""
        if spec.encryption and spec.encryption.key == "tpm2":
            key, sealed = await keys.make_key(book.world)
            book.keys[name] = key.encode()
        with book.occupying(_FORMATTING, *(found.facts.device for found in claims.values())):
            book.known = await apply.make_pool(
                book.world, book.known, name, spec, data, book.key(name), sealed
            )

    async def _seal_anew(self, name: str) -> None:
        """After the recovery key opened a pool: let the TPM have it again, as the machine is now."""
        book = self.book
        pool, key = book.known.pools[name], book.keys.get(name)
        if not key or name not in self._given or not pool.sealed:
            return
        self._given.discard(name)
        try:
            sealed = await keys.seal_key(book.world, key.decode())
        except OSError as error:
            book.report("storage", name, f"Warning: {error}; its recovery key is needed after the next boot")
            return
        await book.remember(apply.with_pool(book.known, name, msgspec.structs.replace(pool, sealed=sealed)))

    async def _mount(self, name: str, options: MountOptions, degraded: bool) -> None:
        devices, own = self.book.data(name), self.book.own()
        pool = self.book.known.pools[name]
        if pool.replacing:
            # it may not have begun, or have ended: then the one disk or the other has no part of it
            devices = await apply.parts_of(self.book.world, devices, pool.uuid)
        if degraded:
            await self.claims.note_stale(name, devices.keys())
        for device in self.book.stale(name):
            await upkeep.forget_device(device)
        await apply.mount_pool(self.book.world, name, devices, options, degraded)
        disks = {claim: own[claim].facts.device for claim in devices}
        try:
            await self._learn_profile(name)
        finally:
            self.book.note_mount(name, SeenPool(frozenset(devices), options, disks))
        await self._watch.read_figures(name)
        if self.book.known.pools[name].replacing:
            self.works.resume_replacement(name)

    async def _learn_profile(self, name: str) -> None:
        """What is known of an adopted pool is what its mount shows."""
        pool, profile = self.book.known.pools[name], await apply.read_profile(self.book.world, name)
        if profile and profile != pool.profile:
            pool = msgspec.structs.replace(pool, profile=profile)
            await self.book.remember(apply.with_pool(self.book.known, name, pool))


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
    return os.path.exists(tpm2.DEVICE)
