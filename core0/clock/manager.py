"""Keeps the node's clock right: chronyd, for as long as the node runs, with the servers that the node knows now.

The clock is never needed to be right for anybody to get in (core0.init.phases.set_clock); with chronyd it becomes so.
"""

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from pathlib import Path

from core0.clock import plan
from core0.linux import files, tools
from core0.linux.clock import synchronised_within
from core0.wire import paths
from core0.wire.clock import ClockConfig
from core0.wire.control import Report
from core0.wire.types import Check

# Seconds before chronyd starts again, doubling.
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
# Seconds that chronyd has to write its drift and end.
_FAREWELL = 2.0


class Clock:
    """The node's clock.

    Args:
        report: where to tell what happened.
        leased: the NTP servers that the node's links know now.
    """

    def __init__(self, report: Report, leased: Callable[[], tuple[str, ...]]) -> None:
        self._report = report
        self._leased = leased
        self._config = ClockConfig()
        self._changed = asyncio.Event()

    def configure(self, config: ClockConfig) -> None:
        """Keep it so from now on."""
        if config != self._config:
            self._config = config
            self._changed.set()

    def look(self) -> None:
        """See which NTP servers the node knows now."""
        self._changed.set()

    def check(self) -> Check:
        """How it stands with the clock. A clock that nobody corrects is no failure: the node works with it."""
        if not self._config.enabled:
            return Check("clock", ok=True, why="it goes by the machine's own clock, as the config says")
        return Check("clock", ok=True, why=plan.in_words(synchronised_within(), self._servers()))

    def _servers(self) -> tuple[str, ...]:
        return plan.servers(self._config, self._leased())

    async def run(self) -> None:
        """Run chronyd for ever. Ends by cancellation only."""
        delay = _FIRST_DELAY
        while True:
            self._changed.clear()
            if not self._config.enabled:
                await self._changed.wait()
            elif await self._serve(self._servers()):
                delay = _FIRST_DELAY
            else:
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_DELAY)

    async def _serve(self, asked: tuple[str, ...]) -> bool:
        """Run chronyd with these servers; False if it could not be run or ended by itself."""
        try:
            process = await self._start(asked)
        except OSError as error:
            self._report(
                "clock", "chronyd", f"Failed: cannot start it: {error.strerror or error}; it is tried again"
            )
            return False
        hearing = asyncio.create_task(self._hear(process), name="chronyd's log")
        looking = asyncio.create_task(self._until_others(asked), name="time servers")
        try:
            await asyncio.wait({hearing, looking}, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                return True
            self._report("clock", "chronyd", f"{await _how(process)}; it starts again")
            return False
        finally:
            looking.cancel()
            await _end(process)
            hearing.cancel()

    async def _start(self, asked: tuple[str, ...]) -> Process:
        await asyncio.to_thread(_prepare, plan.configuration(asked, paths.CLOCK))
        # -d: in the foreground, its log on standard error; -F 1: with its own filter of system calls
        words = (
            tools.tool("chronyd"),
            "-d",
            "-F",
            "1",
            "-u",
            paths.CLOCK_USER_NAME,
            "-f",
            paths.CLOCK_CONFIG,
        )
        return await asyncio.create_subprocess_exec(
            *words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=tools.environment(), cwd="/"
        )

    async def _hear(self, process: Process) -> None:
        """Tell what is notable of chronyd's log until that ends."""
        assert process.stderr  # noqa: S101 — it is a pipe
        with contextlib.suppress(ValueError):  # a line without end: nothing that it says
            async for line in process.stderr:
                if said := plan.notable(line.decode(errors="replace")):
                    self._report("clock", "chronyd", said)

    async def _until_others(self, asked: tuple[str, ...]) -> None:
        """Return when other servers are to be asked, or none."""
        while self._config.enabled and self._servers() == asked:
            await self._changed.wait()
            self._changed.clear()


def _prepare(configuration: str) -> None:
    tools.mount_tools()
    Path(paths.CLOCK).mkdir(0o700, exist_ok=True)
    os.chown(paths.CLOCK, paths.CLOCK_USER, paths.CLOCK_USER)
    files.replace(paths.CLOCK_CONFIG, configuration.encode())


async def _how(process: Process) -> str:
    """How a process ended whose log has; one that only closed that, or said a line without end, is ended later."""
    try:
        async with asyncio.timeout(_FAREWELL):
            return f"Ended with {await process.wait()}"
    except TimeoutError:
        return "Says nothing more that can be read"


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_FAREWELL):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
