"""Long or final work: scrub, replacement of a disk, erasure, the end of a pool, reset of the node."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from core0.disks import apply, erase, upkeep
from core0.disks.apply import DiskError
from core0.disks.book import Book
from core0.disks.claims import Claims
from core0.disks.explain import explain_disk
from core0.disks.model import KnownPool, SeenDisk, SeenPool
from core0.disks.observe import Look
from core0.disks.plan import claimable, is_strange
from core0.disks.upkeep import Progress
from core0.disks.view import show_disk
from core0.wire.control import conflict
from core0.wire.operations import Operation
from core0.wire.storage import EraseRequest, Replacement


class Operations(Protocol):
    """Where long work is started."""

    def start(self, kind: str, subject: str, work: Callable[[Progress], Awaitable[str]]) -> Operation:
        """Start it; 409 if the same is under way."""

    def list(self) -> tuple[Operation, ...]:
        """All that are known."""


class Works:
    """The long work on what the node has."""

    def __init__(self, book: Book, claims: Claims, operations: Operations) -> None:
        """Work on what `book` knows; what takes long is started as one of the node's operations."""
        self._book = book
        self._claims = claims
        self._operations = operations

    def scrub(self, name: str) -> Operation:
        """Read all of a pool and correct what can be corrected."""
        self._serving(name, "scrub")

        async def work(progress: Progress) -> str:
            found = await upkeep.scrub_pool(self._book.world, name, progress)
            async with self._book.changing:
                pool = msgspec.structs.replace(self._book.known.pools[name], scrub=found)
                await self._book.remember(apply.with_pool(self._book.known, name, pool))
            if not found.uncorrectable:
                await self._forget_errors(name)
            self._book.tell_changed()
            if found.uncorrectable:
                # the kernel counts also what holds no data, if it was read together with what could not be read
                remedy = "scrub again, and restore what is beyond it then, too"
                self._book.report("storage", name, f"Alert: scrub found {found.detail}; {remedy}")
            return found.detail

        return self._operations.start("scrub", name, work)

    async def _forget_errors(self, name: str) -> None:
        """What disks missed is corrected: also those errors count as seen to that the scrub itself came upon."""
        self._book.figures[name] = await upkeep.ask_figures(self._book, name)
        self._book.erred.pop(name, None)

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
        pool = self._book.pool(name)
        if pool.id != uuid:
            raise conflict(f"cannot destroy pool {name}: its id is another", "see 'zn pool show'", "/id")
        if pool.source == "config":
            raise conflict(
                f"cannot destroy pool {name}: the config wants it", "take it out of the config first"
            )
        async with self._book.changing:
            await self._destroy(name)
        self._book.wake.set()
        await self._book.wait_looked(apply.LOOK)  # who erases or claims them next shall not be told to wait

    def erase(self, name: str, request: EraseRequest) -> Operation:
        """Erase a disk that no pool uses, for good; it is not the node's any more then."""
        self._book.check_understood()
        disk = self._book.find(name)
        shown = show_disk(disk, self._book.known, self._book.seen())
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
        self._book.check_understood()
        async with self._book.changing:
            own = tuple(self._book.own().values())
            await self._book.wish({})
            for name in tuple(self._book.known.pools):
                await self._destroy(name)
            for disk in own:
                await self._claims.let_go(disk)
        self._book.wake.set()

    def resume_replacement(self, name: str) -> None:
        """A replacement goes on by itself in the kernel after a reboot, or without a node daemon: see it end."""

        async def work(progress: Progress) -> str:
            finished = await upkeep.wait_replacement(f"{self._book.world.pools}/{name}", progress)
            async with self._book.changing:
                replacing = self._book.known.pools[name].replacing
                if replacing and finished:
                    await self._finish_replacement(name, *replacing)
                elif replacing:
                    await self._give_replacement_up(name, replacing[1])
            return "it went on by itself and is done" if finished else "it had not begun; start it again"

        self._operations.start("replace", name, work)

    def _serving(self, name: str, doing: str) -> KnownPool:
        pool = self._book.pool(name)
        if name not in self._book.mounted:
            raise conflict(f"cannot {doing} pool {name}: it does not serve: {pool.why}", "see 'zn pool show'")
        return self._book.known.pools[name]

    def _member(self, name: str, pool: KnownPool, disk: str) -> str:
        """The claim of a pool's member, there or not."""
        found = [
            claim
            for claim in pool.members
            if disk in (claim, self._book.known.disks[claim].id)
            or any(seen.facts.serial == disk for own, seen in self._book.own().items() if own == claim)
        ]
        if len(found) != 1:
            members = ", ".join(self._book.known.disks[claim].id for claim in pool.members)
            detail = f"cannot replace {disk[:120]!a}: it is no disk of pool {name}"
            raise conflict(detail, f"its disks are {members}", "/old")
        return found[0]

    def _spare(self, pool: KnownPool, old: str, name: str) -> SeenDisk:
        """The disk that comes: a free one of the node, a blank one, or the old one itself when it came back."""
        disk = self._book.find(name)
        claim = disk.content.claim if disk.content else ""
        known = self._book.known.disks.get(claim)
        strange = is_strange(disk, self._book.seen())
        if known and not strange and (known.pool is None or claim == old):
            return disk
        if known or claimable(disk, self._book.known) or not (disk.content and disk.content.blank):
            _, why, _ = explain_disk(disk, self._book.known, self._book.seen())
            raise conflict(f"cannot use {disk.id}: {why}", "take a free or a blank disk", "/new")
        least = max(self._book.known.disks[claim].size for claim in pool.members)
        if disk.facts.size < self._book.known.disks[old].size:
            raise conflict(f"cannot use {disk.id}: it is too small", f"take one of {least} bytes", "/new")
        return disk

    async def _replace(self, name: str, old: str, new: SeenDisk, progress: Progress) -> str:
        with contextlib.ExitStack() as preparing:
            preparing.enter_context(self._book.occupying("it is being prepared for a pool", new.facts.device))

            def told(done: float | None, said: str) -> None:
                preparing.close()  # what was discarded is discarded: from here on it must answer
                progress(done, said)

            return await self._rebuild(name, old, new, told)

    async def _rebuild(self, name: str, old: str, new: SeenDisk, progress: Progress) -> str:
        async with self._book.changing:
            if not new.content or new.content.claim not in self._book.known.disks:
                await self._claims.take(new, new.content.id if new.content else "")
            comes = self._book.find(new.id).content
            if not comes:
                raise DiskError(f"cannot use {new.id}: it is gone")
            pool = self._book.known.pools[name]
            key = self._book.key(name)
            members = {
                claim: device for claim, device in self._book.data(name).items() if claim != comes.claim
            }
            target = await apply.prepare_data(self._book.world, name, comes, pool.encryption, key)
            begun = msgspec.structs.replace(pool, replacing=(old, comes.claim))
            await self._book.remember(apply.with_pool(self._book.known, name, begun))
        gone = members.get(old) if old in self._book.mounted[name].claims and old != comes.claim else None
        await upkeep.replace_disk(self._book.world, name, gone, target, members, progress)
        async with self._book.changing:
            await self._finish_replacement(name, old, comes.claim)
        self._book.wake.set()
        return f"{self._book.known.disks[comes.claim].id} holds everything that {self._book.known.disks[old].id} held"

    async def _finish_replacement(self, name: str, old: str, new: str) -> None:
        pool = self._book.known.pools[name]
        members = tuple(dict.fromkeys(new if claim == old else claim for claim in pool.members))
        known = apply.with_pool(
            self._book.known,
            name,
            msgspec.structs.replace(
                pool,
                members=members,
                replacing=None,
                stale=tuple(claim for claim in pool.stale if claim not in (old, new)),
            ),
        )
        if old != new:
            known = apply.with_disk(known, old, msgspec.structs.replace(known.disks[old], pool=None))
        await self._book.remember(known)
        mounted, own = self._book.mounted[name], self._book.own()
        claims = mounted.claims - {old} | {new}
        devices = {claim: own[claim].facts.device for claim in claims if claim in own}
        self._book.note_mount(name, SeenPool(claims, mounted.options, devices))

    async def _destroy(self, name: str) -> None:
        pool = self._book.known.pools.get(name)
        if name in self._book.mounted:
            await upkeep.unmount_pool(self._book.world, name)
            self._book.note_mount(name, None)
        if name in self._book.wishes:
            await self._book.wish({other: spec for other, spec in self._book.wishes.items() if other != name})
        if pool:
            own = self._book.own()
            data = {claim: own[claim].content for claim in pool.members if claim in own}
            for claim, content in data.items():
                if content:
                    await apply.clear_data(self._book.world, claim, content.data)
            await self._book.remember(apply.without_pool(self._book.known, name))
        self._book.figures.pop(name, None)
        self._book.erred.pop(name, None)
        self._book.looks = {
            device: look for device, look in self._book.looks.items() if not self._is_own(look)
        }

    def _is_own(self, look: Look) -> bool:
        return look.content is not None and look.content.claim in self._book.known.disks

    async def _erase(self, disk: SeenDisk, request: EraseRequest, progress: Progress) -> str:
        device = disk.facts.device
        try:
            with self._book.occupying("it is being erased", device):
                async with self._book.changing:
                    if disk.content and disk.content.claim in self._book.known.disks:
                        await self._claims.let_go(disk)
                self._book.looks.pop(device, None)  # what it held is nothing to act on from here on
                self._book.tell_changed()
                return await erase.erase_disk(self._book.world.worker, disk.facts, request.method, progress)
        finally:
            self._book.looks.pop(device, None)
            self._book.wake.set()

    async def _give_replacement_up(self, name: str, new: str) -> None:
        pool = msgspec.structs.replace(self._book.known.pools[name], replacing=None)
        known = apply.with_pool(self._book.known, name, pool)
        if new not in pool.members:
            known = apply.with_disk(known, new, msgspec.structs.replace(known.disks[new], pool=None))
        await self._book.remember(known)
