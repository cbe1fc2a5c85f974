"""Whose disks are: claims and adopts them, lets them go, and keeps a copy of the node's state on each."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

import msgspec

from core0.disks import apply, probe
from core0.disks.apply import DiskError
from core0.disks.book import Book
from core0.disks.checks import check_claim
from core0.disks.model import SPARE, Facts, SeenDisk
from core0.disks.observe import Look
from core0.wire.control import conflict
from core0.wire.storage import Claim, Disk


class Claims:
    """The node's claims on its disks."""

    def __init__(self, book: Book, observe: Callable[[], tuple[Facts, ...]]) -> None:
        """Claims of what `book` knows; `observe` sees the disks as sysfs shows them."""
        self._book = book
        self._observe = observe
        self._met: set[tuple[str, str]] = set()

    async def claim(self, name: str, claim: Claim) -> Disk:
        """Give a disk to the node.

        Raises:
            RefusedError: if the disk is not known, cannot be used, or holds something else than is to be wiped.
        """
        async with self._book.changing:
            self._book.check_understood()
            disk = self._book.find(name)
            await self.take(disk, check_claim(disk, claim, self._book.known))
        self._book.tell_changed()
        return self._book.disk(name)

    async def adopt(self, name: str) -> Disk:
        """Take over a disk that another node claimed, with what it holds."""
        async with self._book.changing:
            self._book.check_understood()
            disk = self._book.find(name)
            content = disk.content
            if not content or not content.claim or content.claim in self._book.known.disks:
                raise conflict(
                    f"cannot adopt {disk.id}: it carries no other node's claim",
                    "see 'zn disk ls' for what it is",
                )
            # the other node's state goes, as the operator wants it: the disk is this node's now
            await self._book.keep.join(content.claim, content.state, overwrite=True)
            await self._book.remember(apply.adopted(self._book.known, disk))
        self._book.wake.set()
        return self._book.disk(name)

    async def let_go(self, disk: SeenDisk) -> None:
        """Take the node's own claim off a disk."""
        claim = disk.content.claim if disk.content else ""
        await self._book.keep.leave(claim)
        await self._book.remember(apply.without_disk(self._book.known, claim))
        with self._book.occupying("it is being cleared", disk.facts.device):
            await apply.clear_table(self._book.world, disk.facts)
        self._book.looks.pop(disk.facts.device, None)

    async def join_copies(self, trying: Callable[[str], AbstractContextManager[None]]) -> None:
        """Keep a copy of the state on every own disk that is there, and see whether other claimed ones know better.

        Args:
            trying: notes what fails, by claim; what it has noted is tried again when its time has come.
        """
        keep, there = self._book.keep, self._areas()
        for claim, path in keep.joined().items():
            if there.get(path, claim) != claim or not self._is_present(path):
                await keep.lose(claim, "it is gone")
        own = {disk.content.state: claim for claim, disk in self._book.own().items() if disk.content}
        self._met &= there.items()
        for path, claim in there.items():
            if path in own and keep.joined().get(claim) != path and self._book.is_due(claim):
                with trying(claim):
                    await keep.join(claim, path)
            elif claim not in self._book.known.disks and (path, claim) not in self._met:
                self._met.add((path, claim))
                await keep.meet(path)

    def _areas(self) -> dict[str, str]:
        """The claims of the disks that are there and can be read, by their state partitions."""
        contents = [disk.content for disk in self._book.seen().disks if disk.content]
        return {content.state: content.claim for content in contents if content.claim}

    def _is_present(self, path: str) -> bool:
        partitions = (name for facts in self._book.facts for name in facts.partitions.values())
        return path.removeprefix("/dev/") in partitions

    async def note_stale(self, name: str, serving: Collection[str]) -> None:
        """Write down that a pool goes on with these disks only: what its others hold is old from now on."""
        pool = self._book.known.pools[name]
        gone = tuple(claim for claim in pool.members if claim not in serving)
        if len(gone) <= SPARE[pool.profile] and set(gone) - set(pool.stale):
            pool = msgspec.structs.replace(pool, stale=tuple(dict.fromkeys((*pool.stale, *gone))))
            await self._book.remember(apply.with_pool(self._book.known, name, pool))

    async def take(self, disk: SeenDisk, content: str) -> None:
        """Claim a disk, and look at it at once: what comes next needs its partitions."""
        known, claim = await apply.claim_disk(self._book.world, self._book.known, disk, content)
        facts = next((one for one in self._observe() if one.device == disk.facts.device), disk.facts)
        self._book.facts = tuple(facts if one.device == facts.device else one for one in self._book.facts)
        look = Look(await self._book.world.worker.call(probe.look, facts, deadline=apply.LOOK))
        if not look.content or look.content.claim != claim:
            raise DiskError(f"cannot claim {disk.id}: it does not hold what was written; replace it")
        self._book.looks[facts.device] = look
        # the new disk's copy first: what it is known for shall be on it, too
        await self._book.keep.join(claim, look.content.state)
        await self._book.remember(known)
