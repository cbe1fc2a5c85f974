"""How a container says that it is: Core-X writes a report into a file of the node's, which is told of each change.

The file outlives the node daemon. Core-X is a stranger: no more is read than a report has, and what is none counts as
nothing.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from core0.linux.inotify import FileWatch
from corex.wire.health import REPORT_BYTES, HealthReport

_FILE = "health"


def create_report(folder: Path) -> int:
    """The report of a container that is being made; a descriptor for its Core-X to write to."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / _FILE, flags, 0o600)
    first = HealthReport("starting", "it is being built", round(time.time(), 3))
    os.pwrite(descriptor, msgspec.json.encode(first).ljust(REPORT_BYTES), 0)
    return descriptor


def observe_health(folder: Path) -> HealthReport | None:
    """What a container said last; None if it said nothing that can be understood."""
    try:
        with (folder / _FILE).open("rb") as file:
            report = msgspec.json.decode(file.read(REPORT_BYTES), type=HealthReport)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    why = "".join(letter for letter in report.why if letter.isprintable())
    return msgspec.structs.replace(report, why=why[:300])


class Reports:
    """Tells of containers' reports that change: one watch for all of them, as a user has only a few."""

    def __init__(self) -> None:
        self._watch: FileWatch | None = None
        self._told: dict[int, Callable[[], None]] = {}

    @contextlib.contextmanager
    def watched(self, folder: Path, changed: Callable[[], None]) -> Iterator[None]:
        """Have a function called for a container's report now and after each change, for the time of the block.

        Raises:
            OSError: it cannot be watched.
        """
        if self._watch is None:
            self._watch = FileWatch()
            asyncio.get_running_loop().add_reader(self._watch.fileno(), self._tell, self._watch)
        number = self._watch.add(folder / _FILE)
        self._told[number] = changed
        changed()
        try:
            yield
        finally:
            self._told.pop(number, None)
            self._watch.remove(number)

    def _tell(self, watch: FileWatch) -> None:
        for number in dict.fromkeys(watch.changed()):
            if number in self._told:
                self._told[number]()
