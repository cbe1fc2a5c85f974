"""Disks in memory that lose what was not flushed, sector by sector in any order, and the areas on them."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from core0.linux.worker import HungError
from core0.state.area import BLOCK, Encoded
from core0.state.disk import Device, interpret, read_slots, write_slot
from core0.state.model import Reading

SECTOR = 512


class PowerCutError(Exception):
    """The machine ended in the middle of a write."""


@dataclass
class ModelDisk:
    """A disk: what is on its medium by sector, and what is only in its cache, in the order of the writes.

    Attributes:
        steps: how many blocks and flushes it still does before the power is cut; None for any number.
        mode: `hung` carries writes out but answers nothing, `dead` neither reads nor writes.
    """

    medium: dict[int, bytes] = field(default_factory=dict)
    cache: list[tuple[int, bytes]] = field(default_factory=list)
    steps: int | None = None
    mode: Literal["well", "dead", "hung"] = "well"

    def read(self, offset: int, length: int) -> bytes:
        now = {**self.medium, **dict(self.cache)}
        first, last = offset // SECTOR, (offset + length) // SECTOR
        return b"".join(now.get(number, bytes(SECTOR)) for number in range(first, last))

    def write(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), BLOCK):
            self._step()
            for number in range(at, at + BLOCK, SECTOR):
                self.cache.append(((offset + number) // SECTOR, data[number : number + SECTOR]))

    def flush(self) -> None:
        self._step()
        self.medium.update(self.cache)
        self.cache.clear()

    def _step(self) -> None:
        if self.steps == 0:
            raise PowerCutError
        if self.steps is not None:
            self.steps -= 1

    def cut_power(self, survives: Callable[[], bool]) -> None:
        """Lose the cache, but for the sectors that had got to the medium by then."""
        self.medium.update((number, data) for number, data in self.cache if survives())
        self.cache.clear()
        self.steps = None

    def sectors(self) -> Iterator[int]:
        """The sectors that are in the cache only."""
        return iter([number for number, _ in self.cache])


@dataclass
class ModelAreas:
    """Areas on such disks, by path."""

    disks: dict[str, ModelDisk]

    async def read(self, path: str) -> Reading:
        disk = self.disks[path]
        if disk.mode != "well":
            return Reading(path, error="no answer within 1 s")
        return interpret(path, read_slots(_as_device(disk)))

    async def write(self, path: str, kept: bytes, encoded: Encoded, alone: bool) -> None:
        disk = self.disks[path]
        if disk.mode == "dead":
            raise OSError(5, "Input/output error")
        write_slot(_as_device(disk), kept, encoded, alone)
        if disk.mode == "hung":
            raise HungError("no answer within 1 s", asyncio.Event())


def _as_device(disk: ModelDisk) -> Device:
    return disk
