"""What people watch and type into: the output of a command, its input, the size of its terminal."""

import asyncio
import fcntl
import struct
import termios
from collections import OrderedDict
from contextlib import suppress

from corex.process.logs import Bell
from corex.process.output import Inlet, Sink
from corex.process.replay import Ring
from corex.wire.api import Exit
from corex.wire.sessions import OUTPUT, Window

# Clients whose accepted input is remembered.
_CLIENTS = 64
_END_OF_FILE = b"\x04"  # termios(3), VEOF as it is by default
_SIZE = struct.Struct("HHHH")


class Viewer:
    """Who is attached, and how far it has got."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class Stage:
    """A command as those see it who are attached.

    Attributes:
        window: the size of its terminal, None if it has pipes.
        ring: the newest of what it wrote.
        bell: rings when anything changes.
        viewers: who is attached.
        done: whether no output follows.
        exit: how it ended, once it has.
    """

    def __init__(self, window: Window | None) -> None:
        self.window = window
        self.ring = Ring()
        self.bell = Bell()
        self.viewers: set[Viewer] = set()
        self.done = False
        self.exit: Exit | None = None
        self._accepted: OrderedDict[str, int] = OrderedDict()
        self._input: Inlet | None = None
        self._terminal: int | None = None

    def open(self, loop: asyncio.AbstractEventLoop, stdin: int, terminal: int | None) -> None:
        """The command has begun: its standard input is the stage's now, its terminal is lent."""
        self._input, self._terminal = Inlet(loop, stdin, self.bell.ring), terminal

    def shut(self) -> None:
        """The command takes no more input, and its terminal is gone."""
        self._terminal = None
        if self._input:
            self._input.close()
            self._input = None

    def enter(self, offset: int) -> Viewer:
        """Somebody is attached from an offset of its output on."""
        viewer = Viewer(offset)
        self.viewers.add(viewer)
        self.pace()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Somebody is attached no more."""
        self.viewers.discard(viewer)
        self.pace()

    def take(self, stream: int, data: bytes) -> None:
        """It wrote something."""
        self.ring.add(stream, data)
        self.bell.ring()
        self.pace()

    def pace(self) -> None:
        """Somebody has read, or something was written; here the command waits for nobody."""

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
        if self.window is None or window == self.window:
            return
        self.window = window
        if self._terminal is not None:
            size = _SIZE.pack(window.rows, window.columns, 0, 0)
            with suppress(OSError):  # its command has just ended
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)
        self.bell.ring()


class Transcript:
    """Takes what comes from a terminal for its stage, and for a log, whose lines have no carriage return."""

    def __init__(self, stage: Stage, log: Sink) -> None:
        self._stage, self._log = stage, log
        self._held = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; of a line's end both may not have come yet."""
        self._stage.take(OUTPUT, data)
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        plain = data.removesuffix(self._held).replace(b"\r\n", b"\n")
        if plain:
            self._log.feed(plain)

    def end(self) -> None:
        """The terminal is gone."""
        self._stage.shut()
        self._log.end()
