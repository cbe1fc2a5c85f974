"""Watches over what serves: reads the pools' figures and the disks' health, starts the scrubs that are due."""

import asyncio
import time

from core0.disks import health, stall, upkeep
from core0.disks.book import Book
from core0.disks.model import Figures
from core0.disks.observe import Look
from core0.disks.works import Operations, Works

_DAY = 86400.0
# Seconds. What changed is given a moment to settle before figures are read again.
_FIGURES_EVERY, _HEALTH_EVERY, _CALM = 10.0, 600.0, 2.0
_ANSWERS_EVERY = 5.0
_WITH_HEALTH = ("nvme", "ata", "scsi", "usb")


class Watch:
    """The watch over the pools."""

    def __init__(self, book: Book, works: Works, operations: Operations) -> None:
        """A watch over what `book` knows, which has not seen any figure yet."""
        self._book = book
        self._works = works
        self._operations = operations
        self._asked: dict[str, float] = {}

    async def run(self) -> None:
        """See to it for ever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._watch_answers())
            both.create_task(self._watch_figures())

    async def _watch_answers(self) -> None:
        """Which disks leave requests waiting."""
        stalls = stall.Stalls()
        while True:
            waiting = stalls.take(stall.observe(), time.monotonic(), self._book.busy)
            if waiting.keys() != self._book.waiting.keys():
                self._book.waiting = waiting
                self._book.tell_changed()
            await asyncio.sleep(_ANSWERS_EVERY)

    async def _watch_figures(self) -> None:
        """Figures of the pools, and from time to time the disks' health."""
        while True:
            for name, pool in tuple(self._book.mounted.items()):
                if not self._book.waiting.keys() & set(
                    pool.devices.values()
                ):  # or it would be waited for, too
                    await self.read_figures(name)
            self._scrub_due()
            await self._ask_health()
            await self._sleep_until_changed(_FIGURES_EVERY)

    def _scrub_due(self) -> None:
        """Start the scrubs whose time has come, one pool after the other."""
        now, wanted = time.time(), self._book.wanted().pools
        for name in self._book.mounted.keys() & wanted.keys():
            pool, days = self._book.known.pools[name], wanted[name].spec.scrub_days
            last = max(pool.created, pool.scrub.ended if pool.scrub else 0.0)
            if days and now - last > days * _DAY and not self._is_busy():
                self._works.scrub(name)

    def _is_busy(self) -> bool:
        return any(
            one.state == "running" and one.kind in ("scrub", "replace") for one in self._operations.list()
        )

    async def _sleep_until_changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._book.changed.wait()
                await asyncio.sleep(_CALM)
        except TimeoutError:
            pass

    async def read_figures(self, name: str) -> None:
        """Read a pool's figures; tell it when a disk made more errors."""
        try:
            found = await upkeep.ask_figures(self._book, name)
        except OSError as error:
            if name not in self._book.mounted:
                return  # it ended meanwhile
            self._book.report("storage", name, f"Cannot read its figures: {error.strerror or error}")
            return
        before = self._book.figures.get(name, Figures())
        for claim, (_, _, errors) in found.members.items():
            if errors > before.members.get(claim, (0, 0, 0))[2]:
                said = f"Alert: disk {self._book.known.disks[claim].id} made {errors} errors; 'zn pool scrub {name}'"
                self._book.report("storage", name, said)
                self._book.erred[name] = self._book.erred.get(name, frozenset()) | {claim}
        if found != before:
            self._book.figures[name] = found
            self._book.tell_changed()

    async def _ask_health(self) -> None:
        """Ask the disks whose time has come; a new one at once, when it was looked at."""
        looks = self._book.looks
        self._asked = {device: asked for device, asked in self._asked.items() if device in looks}
        due = time.monotonic() - _HEALTH_EVERY
        for facts in self._book.facts:
            look, asked = looks.get(facts.device, Look()), self._asked.get(facts.device)
            if facts.device in self._book.waiting or facts.device in self._book.busy:
                continue
            if facts.bus in _WITH_HEALTH and look.content and (asked is None or asked <= due):
                self._asked[facts.device] = time.monotonic()
                self._book.health[facts.device] = await health.ask(f"/dev/{facts.device}")
                self._book.tell_changed()
