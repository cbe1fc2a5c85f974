"""What the node remembers from earlier boots: read at the daemon's start from the disks that are there by then.

A boot reads one more than half of them, waits a quarter of a second for these, two seconds if the others might know
more, and not at all without any. Disks that come later, because their drivers do, or that hung, are met by the disk
manager. If one turns out to know more, the node daemon starts again, with what that one remembers.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from core0.linux import files
from core0.linux.worker import Worker
from core0.state.find import find_areas
from core0.wire import paths
from core0.wire.control import RefusedError, Report

if TYPE_CHECKING:
    from core0.state.disk import Areas
    from core0.state.model import Machine, Reading
    from core0.state.store import StateStore

# What an earlier daemon of this boot left.
MEMORY = f"{paths.RUN}/state.json"
_IDENTITY = "identity"
_PATIENCE, _LONGEST = 0.25, 2.0
# Seconds from `ready` until a node that has not found itself on any disk counts as a new one, and a state that most
# of its disks do not hold counts as the last. Drivers that no boot waits for come after five, their disks some
# seconds later; the disk manager looks again after fifteen.
_LATE = 14.0
# What the API answers before the daemon starts again, in seconds.
_GOODBYE = 0.2
_UUID = "/sys/class/dmi/id/product_uuid"
_NETWORK = "/sys/class/net"
_PERMANENT = "0"  # NET_ADDR_PERM: the card's own, not made up by the kernel


class Certificate(NamedTuple):
    """Who the node is: certificate and key as PEM, and the certificate's fingerprint."""

    certificate: str
    key: str
    fingerprint: str


class Remembered:
    """The node's state, from wherever it comes. Without disks nothing of it is imported before it is asked for."""

    def __init__(
        self, worker: Worker, report: Report, links: Callable[[], Sequence[str]], memory: str = MEMORY
    ) -> None:
        """Nothing is read yet.

        Args:
            worker: does what may hang.
            report: takes events.
            links: the names of the machine's network cards.
            memory: the file for the copy of this boot.
        """
        self._worker = worker
        self._report = report
        self._links = links
        self._memory = memory
        self._own: Certificate | None = None
        self._left: tuple[str, ...] = ()
        # Set once no disk is expected any more that knows better.
        self.settled = asyncio.Event()

    @cached_property
    def store(self) -> "StateStore":
        """The state. A node that has been told nothing knows who it is."""
        from core0.state.store import StateStore

        beginning = {} if self._own is None else {_IDENTITY: msgspec.json.encode(self._own)}
        store = StateStore(self._areas, self._machine, self._report, self._memory, beginning=beginning)
        store.expecting = True
        return store

    @cached_property
    def _areas(self) -> "Areas":
        from core0.state.disk import Areas

        return Areas(self._worker)

    @cached_property
    def _machine(self) -> "Machine":
        from core0.state.model import Machine

        return Machine(_text(_UUID), tuple(filter(None, map(_permanent_address, self._links()))))

    @property
    def ephemeral(self) -> bool:
        """Whether nothing of what the node remembers is on a disk."""
        return "store" not in self.__dict__ or self.store.ephemeral

    async def begin(self, make: Callable[[], Certificate]) -> Certificate:
        """Read what disks remember; returns who the node is.

        Args:
            make: makes an identity for a node that remembers none.
        """
        areas = find_areas()
        if areas or _exists(self._memory):
            choice = self.store.take(await self._read(areas))
            self.store.expecting = self.store.ephemeral or not choice.complete
            self._own = self._remembered_identity()
        self._own = self._own or make()
        return self._own

    async def _read(self, areas: Sequence[str]) -> "list[Reading]":
        from core0.state.choose import may_decide

        readings: list[Reading] = []
        self._left = tuple(areas)
        for enough, patience in ((len(areas) // 2 + 1, _PATIENCE), (len(areas), _LONGEST)):
            if may_decide(readings, len(self._left), self._machine):
                break
            readings += await self._areas.read_first(self._left, enough, patience)
            self._left = tuple(path for path in areas if path not in {one.path for one in readings})
        return readings

    def _remembered_identity(self) -> Certificate | None:
        kept = self.store.get(_IDENTITY)
        try:
            return None if kept is None else msgspec.json.decode(kept, type=Certificate)
        except msgspec.ValidationError as error:
            from core0.wire.state import NEWER_IMAGE

            said = f"this image does not understand who it is: {error}; {NEWER_IMAGE}"
            self._report("state", _IDENTITY, f"Warning: {said}")
            return None

    async def run(self) -> None:
        """What a boot does not wait for. Ends when the daemon must start again, to begin with what a disk knows."""
        try:
            if self._own and self.store.get(_IDENTITY) is None:
                await self.store.put(_IDENTITY, msgspec.json.encode(self._own))
        except RefusedError as error:
            self._report("state", _IDENTITY, f"Warning: {error}; {error.refusal.remedy}")
        meeting = [asyncio.create_task(self.store.meet(path)) for path in self._left]
        if meeting:
            await asyncio.wait(meeting, timeout=_LONGEST)  # one that hangs is met whenever it answers
        await self.store.catch_up()
        if not self.store.expecting:
            self._settle()
        over = asyncio.get_running_loop().call_later(_LATE, self._expect_no_more)
        await self.store.superseded.wait()
        over.cancel()
        self._report("state", "node", "Starts again: a disk remembers more of this node than it began with")
        await asyncio.sleep(_GOODBYE)

    def _expect_no_more(self) -> None:
        self.store.expecting = False
        self._settle()

    def _settle(self) -> None:
        if self.store.outdated:
            from core0.wire.state import NEWER_IMAGE

            said = f"nothing of what is wanted is started: it may be outdated ({self.store.outdated})"
            self._report("state", "node", f"Alert: {said}; {NEWER_IMAGE}")
        else:
            self.settled.set()


def _permanent_address(link: str) -> str:
    """The address that a network card came with; "" if the kernel made one up."""
    folder = f"{_NETWORK}/{link}"
    return _text(f"{folder}/address") if _text(f"{folder}/addr_assign_type") == _PERMANENT else ""


def _exists(path: str) -> bool:
    return os.path.exists(path)


def _text(path: str) -> str:
    try:
        return files.read_text(path).strip()
    except OSError:  # no such firmware table, or the card has just gone
        return ""
