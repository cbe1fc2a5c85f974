"""One session: a command with its terminal or pipes, what it wrote, and who watches."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import msgspec

from corex.process.execute import start
from corex.process.output import Pipe
from corex.process.replay import CAPACITY
from corex.process.spawn import Child, Command
from corex.process.stage import Stage
from corex.process.world import World
from corex.wire import sessions as wire
from corex.wire.api import Exit
from corex.wire.sessions import SessionSpec

# How far a viewer may fall behind before its command waits for it: older output would be overwritten unsent.
LAG = CAPACITY // 2
# Seconds from the hang-up to SIGKILL.
HANGUP_GRACE = 5.0
# Seconds for output behind the end of the command, which something that it left may keep open for ever.
DRAIN_DEADLINE = 1.0


class _Sink:
    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.feed = take

    def end(self) -> None:
        pass


class Session(Stage):
    """A command that runs, or has ended and is remembered for a while."""

    def __init__(self, name: str, spec: SessionSpec, world: World) -> None:
        super().__init__(spec.window)
        self.name, self.spec = name, spec
        self.since = world.wall_clock()
        self.pid: int | None = None
        self._world = world
        self._pipes: list[Pipe] = []
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the command.

        Raises:
            SpawnError: it could not be started.
        """
        world, spec = self._world, self.spec
        size = (spec.window.rows, spec.window.columns) if spec.window else None
        child, ended = await start(Command(spec.argv, spec.env, spec.cwd, spec.user, terminal=size), world)
        self._open(child)
        ended.add_done_callback(lambda ended: self._exited(ended.result()))

    def _open(self, child: Child) -> None:
        loop = self._world.loop
        self.pid = child.pid
        self.open(loop, child.stdin, child.stdout if self.spec.window else None)
        self._pipes = [Pipe(loop, child.stdout, _Sink(lambda data: self.take(wire.OUTPUT, data)))]
        if not self.spec.window:
            self._pipes.append(Pipe(loop, child.stderr, _Sink(lambda data: self.take(wire.ERRORS, data))))

    def info(self) -> wire.Session:
        """What the outside sees."""
        return wire.Session(
            id=self.name,
            spec=msgspec.structs.replace(self.spec, window=self.window),
            state="ended" if self.done else "running",
            pid=self.pid,
            since=self.since,
            exit=self.exit,
            viewers=len(self.viewers),
            written=self.ring.end,
        )

    # What the command says.

    def pace(self) -> None:
        """Read from the command as long as nobody who watches is too far behind."""
        slowest = min((viewer.offset for viewer in self.viewers), default=self.ring.end)
        reads = self.done or self.pid is None or self.ring.end - slowest < LAG
        for pipe in self._pipes:
            pipe.go_on(reads)

    def _exited(self, ended: Exit) -> None:
        self.pid, self.exit = None, ended
        self._ending = self._world.loop.create_task(self._drain())

    async def _drain(self) -> None:
        self.pace()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_DEADLINE):
                for pipe in self._pipes:
                    await pipe.ended()
        self.shut()
        for pipe in self._pipes:
            pipe.close()
        self.done = True
        self.bell.ring()

    def hang_up(self) -> None:
        """End the command as a terminal that goes away does, and for certain some seconds later."""
        self._kill(signal.SIGHUP)
        if self.pid is not None:
            self._world.loop.call_later(HANGUP_GRACE, self._kill, signal.SIGKILL)

    def _kill(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
