"""One run of a process, from its start to its end: what is there for so long, and how it shows that it is ready."""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress

from corex.process.notify import Fields, Inbox
from corex.process.output import FLOOD_BYTES, Lines, Pipe
from corex.process.probe import look_at_port, look_by_command
from corex.process.reach import Kin
from corex.process.spawn import Child
from corex.process.stage import Stage, Transcript
from corex.process.world import World
from corex.wire.api import Stream
from corex.wire.process import ProcessSpec, Readiness

# Bytes of a line that are searched: an expression may take time that grows with them.
_SEARCHED = 4096
_LOOK_DEADLINE = 5.0  # seconds for one look at a port or by a command
_LONGEST_WORD = 200


class Signs:
    """What a run calls its life back by.

    Attributes:
        ready: it is ready; with the way it showed that.
        unready: it told that it is not, and why.
        overdue: it did not show in time that it is ready, or alive; with what was missing.
        told: it said in words how it is.
    """

    __slots__ = ("overdue", "ready", "told", "unready")

    def __init__(
        self,
        ready: Callable[[str], None],
        unready: Callable[[str], None],
        overdue: Callable[[str], None],
        told: Callable[[str], None],
    ) -> None:
        self.ready, self.unready, self.overdue, self.told = ready, unready, overdue, told


class Run:
    """One run of a process.

    Attributes:
        spec: what was started.
        kin: whom its signals reach; None until it is spawned.
        since: when it began, on the loop's clock.
        condemned: why Core-X ends it; empty if it does not.
        killed: why it was sent SIGKILL; empty if it was not.
    """

    __slots__ = (
        "_deadline",
        "_inbox",
        "_last_sign",
        "_looking",
        "_pattern",
        "_pipes",
        "_signs",
        "condemned",
        "killed",
        "kin",
        "since",
        "spec",
    )

    def __init__(self, spec: ProcessSpec, signs: Signs | None) -> None:
        self.spec = spec
        self.kin: Kin | None = None
        self.since = 0.0
        self.condemned = ""
        self.killed = ""
        self._signs = signs
        self._pipes: tuple[Pipe, ...] = ()
        self._inbox: Inbox | None = None
        self._pattern: re.Pattern[bytes] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._last_sign = 0.0

    def prepare(self, world: World) -> dict[str, str]:
        """What must be there before it starts; returns what is added to its environment."""
        ready = self.spec.ready
        if ready is None or not ready.notify:
            return {}
        self._inbox = Inbox(world.loop, self._is_ours, lambda fields: self._hear(fields, world))
        given = {"NOTIFY_SOCKET": self._inbox.address}
        if ready.watchdog is not None:
            given["WATCHDOG_USEC"] = str(int(ready.watchdog * 1e6))
        return given

    def begin(self, name: str, child: Child, kin: Kin, world: World, stage: Stage | None) -> None:
        """It was spawned, on a terminal if it has a stage."""
        self.kin, self.since = kin, world.loop.time()
        if stage is not None:
            stage.open(world.loop, child.stdin, child.stdout)
            transcript = Transcript(stage, self._lines(name, "stdout", world))
            self._pipes = (Pipe(world.loop, child.stdout, transcript),)
            return
        os.close(child.stdin)
        self._pipes = (
            self._pipe(name, child.stdout, "stdout", world),
            self._pipe(name, child.stderr, "stderr", world),
        )

    def await_ready(self, world: World) -> None:
        """Begin to look whether it is ready, for as long as it has for that."""
        ready, signs = self.spec.ready, self._signs
        if ready is None or signs is None:
            return
        self._deadline = world.loop.call_later(
            ready.timeout, signs.overdue, f"it was not ready within {ready.timeout:g} s"
        )
        if self._inbox is not None:
            self._inbox.listen()
        if ready.line is not None:
            self._pattern = re.compile(ready.line.encode("utf-8", "surrogatepass"))
        elif not ready.notify:
            self._looking = world.loop.create_task(self._look(ready, signs, world))

    def rest(self) -> None:
        """Look no more whether it is ready: it is, or it ends."""
        self._pattern = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def end(self) -> None:
        """Its process is gone, its output may still come."""
        for pipe in self._pipes:
            pipe.drain()
        self.rest()
        self.close_inbox()

    def close_inbox(self) -> None:
        """Hear nothing of it any more."""
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    def close(self) -> None:
        """Let go of its output and of what it tells."""
        self.close_inbox()
        for pipe in self._pipes:
            pipe.close()
        self._pipes = ()

    async def drained(self) -> None:
        """Until all that it wrote is in the log."""
        for pipe in self._pipes:
            await pipe.ended()

    def watch(self, world: World) -> None:
        """It is ready: from now on its watchdog must be fed."""
        ready = self.spec.ready
        if ready is not None and ready.watchdog is not None:
            self._last_sign = world.loop.time()
            self._deadline = world.loop.call_later(
                ready.watchdog, self._check_watchdog, ready.watchdog, world
            )

    def _check_watchdog(self, seconds: float, world: World) -> None:
        left = self._last_sign + seconds - world.loop.time()
        if left > 0:
            self._deadline = world.loop.call_later(left, self._check_watchdog, seconds, world)
        elif self._signs is not None:
            self._signs.overdue(f"its watchdog heard nothing for {seconds:g} s")

    async def _look(self, ready: Readiness, signs: Signs, world: World) -> None:
        deadline = min(_LOOK_DEADLINE, ready.timeout)
        while True:
            if ready.port is not None:
                trouble = await look_at_port(ready.port, ready.path, deadline)
                found = f"port {ready.port} {'answers' if ready.path else 'takes connections'}"
            else:
                trouble = await look_by_command(ready.argv, deadline, self.spec, world)
                found = "its command succeeded"
            if not trouble:
                self._looking = None
                signs.ready(found)
                return
            await asyncio.sleep(ready.interval)

    def _pipe(self, name: str, descriptor: int, stream: Stream, world: World) -> Pipe:
        return Pipe(world.loop, descriptor, self._lines(name, stream, world), most=FLOOD_BYTES)

    def _lines(self, name: str, stream: Stream, world: World) -> Lines:
        logs = world.logs

        def write(block: bytes, partial: bool) -> None:
            logs.write(name, stream, block, partial=partial)
            if self._pattern is not None:
                self._search(self._pattern, block.split(b"\n"))

        return Lines(write)

    def _search(self, pattern: re.Pattern[bytes], lines: Sequence[bytes]) -> None:
        if self._signs is not None and any(pattern.search(line, 0, _SEARCHED) for line in lines):
            self._pattern = None
            self._signs.ready("it wrote the line that says so")

    def _is_ours(self, pid: int) -> bool:
        return self.kin is not None and self.kin.has(pid)

    def _hear(self, fields: Fields, world: World) -> None:
        """MAINPID is passed over: whom Core-X started is the main process."""
        signs = self._signs
        if signs is None:
            return
        if "STATUS" in fields:
            signs.told(_shown(fields["STATUS"]))
        if fields.get("RELOADING") == "1":
            signs.unready("it reloads")
        if fields.get("STOPPING") == "1":
            signs.unready("it said that it is about to end")
        if fields.get("READY") == "1":
            signs.ready("it said so")
        if fields.get("WATCHDOG") == "1":
            self._last_sign = world.loop.time()
        elif fields.get("WATCHDOG") == "trigger":
            signs.overdue("it called its watchdog itself")


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_LONGEST_WORD]


async def drain(runs: Sequence[Run], seconds: float) -> None:
    """Wait for the output of runs, for some seconds at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for run in runs:
                await run.drained()
