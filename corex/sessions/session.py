"""One session: a command with its terminal or pipes, what it wrote, and who watches."""

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import msgspec

from corex.process.execute import start
from corex.process.logs import Bell
from corex.process.output import Inlet, Pipe
from corex.process.spawn import Child, Command
from corex.process.world import World
from corex.sessions.ring import CAPACITY, Ring
from corex.wire import sessions as wire
from corex.wire.api import Exit
from corex.wire.sessions import SessionSpec, Window

# How far a viewer may fall behind before its command waits for it: older output would be overwritten unsent.
LAG = CAPACITY // 2
# Seconds from the hang-up to SIGKILL.
HANGUP_GRACE = 5.0
# Seconds for output behind the end of the command, which something that it left may keep open for ever.
DRAIN_DEADLINE = 1.0
# Clients whose accepted input is remembered.
_CLIENTS = 64
_END_OF_FILE = b"\x04"  # termios(3), VEOF as it is by default
_SIZE = struct.Struct("HHHH")


class Viewer:
    """Who is attached: how far it has got, and whether it makes the command wait."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class _Sink:
    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.feed = take

    def end(self) -> None:
        pass


class Session:
    """A command that runs, or has ended and is remembered for a while."""

    def __init__(self, name: str, spec: SessionSpec, world: World) -> None:
        self.name, self.spec = name, spec
        self.since = world.wall_clock()
        self.window = spec.window
        self.pid: int | None = None
        self.exit: Exit | None = None
        self.ring = Ring()
        self.bell = Bell()
        self.viewers: set[Viewer] = set()
        self.done = False
        self._world = world
        self._accepted: OrderedDict[str, int] = OrderedDict()
        self._pipes: list[Pipe] = []
        self._input: Inlet | None = None
        self._terminal: int | None = None
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
        self._input = Inlet(loop, child.stdin, self.bell.ring)
        self._pipes = [Pipe(loop, child.stdout, _Sink(lambda data: self._take(wire.OUTPUT, data)))]
        if self.spec.window:
            self._terminal = child.stdout
        else:
            self._pipes.append(Pipe(loop, child.stderr, _Sink(lambda data: self._take(wire.ERRORS, data))))

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

    def _take(self, stream: int, data: bytes) -> None:
        self.ring.add(stream, data)
        self.bell.ring()
        self.pace()

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
        self._terminal = None
        for pipe in self._pipes:
            pipe.close()
        if self._input:
            self._input.close()
        self.done = True
        self.bell.ring()

    # What people say.

    def accepted(self, client: str) -> int:
        """How many bytes of a client's input have arrived."""
        return self._accepted.get(client, 0)

    def write(self, client: str, offset: int, data: bytes) -> None:
        """Take a client's input, which begins behind `offset` bytes that it sent before.

        What has arrived already is passed over, so that a client may send again what it does not know of.

        Raises:
            ValueError: bytes before these are missing.
        """
        known = self.accepted(client)
        if offset > known:
            raise ValueError(f"cannot take input from byte {offset} on: only {known} have arrived")
        fresh = data[known - offset :]
        self._accepted[client] = known + len(fresh)
        self._accepted.move_to_end(client)
        while len(self._accepted) > _CLIENTS:
            self._accepted.popitem(last=False)
        if self._input:
            self._input.write(fresh)

    @property
    def unread(self) -> int:
        """Bytes of input that the command has not taken yet."""
        return self._input.pending if self._input else 0

    def end_input(self) -> None:
        """No more input."""
        if self._input and self._terminal is not None:
            self._input.write(_END_OF_FILE)
        elif self._input:
            self._input.finish()

    def resize(self, window: Window) -> None:
        """Give the terminal another size, the last one counts; the kernel tells its processes by SIGWINCH."""
        if self._terminal is None or window == self.window:
            return
        self.window = window
        size = _SIZE.pack(window.rows, window.columns, 0, 0)
        with suppress(OSError):  # its command has just ended
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
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
