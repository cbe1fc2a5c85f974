"""The serial console as lines in memory, with verbs that wait for what a machine prints."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from core0.wire.console import Phase, parse_phase

Found = TypeVar("Found")

# SeaBIOS and iPXE draw with terminal codes (ECMA-48 sequences, and ESC c to clear).
_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_a-z])")
# SeaBIOS begins each boot with this line: the machine's serial port is its only screen.
_FIRMWARE = re.compile(r"SeaBIOS \(version")
# After one of these lines no phase will ever come.
_HOPELESS = re.compile(
    r"Kernel panic|No bootable device|Nothing to boot|Initramfs unpacking failed|No more network devices"
)


class ConsoleError(Exception):
    """What was waited for did not come; the message ends with the last console lines."""


class Console:
    """Everything that one machine has printed, and a way to wait for more. Any number may wait."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._lines: list[str] = []
        self._partial = b""
        self._news = asyncio.Event()
        self.closed = False

    @property
    def lines(self) -> tuple[str, ...]:
        """All lines so far, without terminal codes and line ends; the unfinished last one included."""
        return (*self._lines, _clean(self._partial)) if self._partial else tuple(self._lines)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The boot phases reported so far, in order."""
        return tuple(phase for line in self.lines if (phase := parse_phase(line)))

    @property
    def boot_line(self) -> int:
        """Index of the line with which the latest boot began, 0 if none is seen."""
        starts = (
            index for index in range(len(self._lines) - 1, -1, -1) if _FIRMWARE.search(self._lines[index])
        )
        return next(starts, 0)

    def tail(self, count: int = 25) -> str:
        """The last lines as one indented block, for error messages."""
        last = self.lines[-count:]
        return "\n".join(f"  | {line}" for line in last) or "  | (the console is empty)"

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the serial port."""
        *complete, self._partial = (self._partial + data).split(b"\n")
        self._lines.extend(_clean(line) for line in complete)
        self._announce()

    def reopen(self) -> None:
        """The machine starts again: its lines follow those of its earlier lives."""
        if self._partial:
            self.feed(b"\n")
        self.closed = False

    def close(self) -> None:
        """No more bytes will come: whoever still waits fails at once."""
        self.closed = True
        self._announce()

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """Feed from a stream until it ends."""
        try:
            while data := await reader.read(65536):
                self.feed(data)
        except ConnectionError:
            pass  # QEMU was killed with bytes unread: the same end
        finally:
            self.close()

    async def wait_for(
        self, find: Callable[[str], Found | None], what: str, deadline: float, start: int
    ) -> Found:
        """The first result of `find` over the lines from index `start` on.

        Args:
            find: called once per line; anything but None ends the wait. It may raise ConsoleError to give up.
            what: what is awaited, for the message.
            deadline: seconds of real time, already scaled.
            start: index of the first line to look at.

        Raises:
            ConsoleError: it did not come in time, or the console closed before.
        """
        try:
            async with asyncio.timeout(deadline):
                return await self._first(find, what, start)
        except TimeoutError:
            raise ConsoleError(self._complaint(what, f"nothing within {deadline:.0f} s")) from None

    async def wait_for_line(self, pattern: str, deadline: float, start: int = 0) -> str:
        """The first line in which the regular expression is found. See `wait_for`."""
        expression = re.compile(pattern)
        return await self.wait_for(
            lambda line: line if expression.search(line) else None, f"line {pattern!r}", deadline, start
        )

    async def wait_for_phase(self, name: str, deadline: float, start: int = 0) -> Phase:
        """The phase's report once it is done; a failed phase or a dead boot ends the wait at once."""
        what = f"phase {name}"

        def find(line: str) -> Phase | None:
            phase = parse_phase(line)
            if phase and phase.state == "failed":
                raise ConsoleError(self._complaint(what, f"phase {phase.name} failed: {phase.detail}"))
            if _HOPELESS.search(line):
                raise ConsoleError(self._complaint(what, f"the boot ended with {line.strip()!r}"))
            return phase if phase and phase.name == name else None

        return await self.wait_for(find, what, deadline, start)

    async def _first(self, find: Callable[[str], Found | None], what: str, index: int) -> Found:
        while True:
            news = self._news
            for line in self._lines[index:]:
                if (found := find(line)) is not None:
                    return found
            index = len(self._lines)
            if self.closed:
                raise ConsoleError(self._complaint(what, "the machine has ended"))
            await news.wait()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _complaint(self, what: str, cause: str) -> str:
        return f"cannot see {what} of machine {self._machine}: {cause}; its console ends with\n{self.tail()}"


def read_log(machine: str, log: Path) -> Console:
    """The console of a machine as its log file has it so far, closed: for looking back, not for waiting."""
    console = Console(machine)
    console.feed(log.read_bytes())
    console.close()
    return console


def _clean(line: bytes) -> str:
    return _TERMINAL_CODES.sub("", line.decode("utf-8", "backslashreplace")).strip("\r")
