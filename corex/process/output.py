"""Reading what processes write: whole lines for the log, or everything up to a limit for a command."""

import asyncio
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

# At once, so that no writer keeps the others waiting; a pipe's capacity by default (pipe(7)).
READ_BYTES = 64 * 1024
# What a pipe may hold, and what is read of it at once, when its writer is quicker than we are.
FLOOD_BYTES = 256 * 1024
MAX_LINE = 16 * 1024  # a longer line becomes several records


class Sink(Protocol):
    """Takes the bytes of one stream."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes, never empty."""

    def end(self) -> None:
        """The stream is over."""


class Lines:
    """Cuts a stream behind whole lines and hands those on, with a mark for an incomplete last one.

    What is handed on is one block, without the last line end: whoever reads it splits it, if anybody does.
    """

    def __init__(self, write: Callable[[bytes, bool], None]) -> None:
        self._write = write
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Hand on all lines that are complete now."""
        whole = self._rest + data
        end = whole.rfind(b"\n")
        self._rest = whole[end + 1 :]
        if end >= 0:
            self._hand_on(whole[:end])
        while len(self._rest) >= MAX_LINE:
            self._write(self._rest[:MAX_LINE], True)
            self._rest = self._rest[MAX_LINE:]

    def end(self) -> None:
        """Hand on what has no line end."""
        if self._rest:
            self._write(self._rest, False)
            self._rest = b""

    def _hand_on(self, block: bytes) -> None:
        if not _has_long_line(block):
            self._write(block, False)
            return
        for line in block.split(b"\n"):
            for start in range(0, max(len(line), 1), MAX_LINE):
                self._write(line[start : start + MAX_LINE], start + MAX_LINE < len(line))


def _has_long_line(block: bytes) -> bool:
    """Whether a line of it is over the limit: looks at one line end in each stretch of that length."""
    at = 0
    while len(block) - at > MAX_LINE:
        end = block.rfind(b"\n", at, at + MAX_LINE + 1)
        if end < 0:
            return True
        at = end + 1
    return False


class Capture:
    """Keeps the first bytes of a stream; the rest is read and dropped, so that the writer never blocks."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.truncated = False
        self._limit = limit

    def feed(self, data: bytes) -> None:
        """Keep what fits."""
        room = self._limit - len(self.data)
        self.truncated = self.truncated or len(data) > room
        self.data += data[:room]

    def end(self) -> None:
        """Nothing follows."""


class Pipe:
    """The reading end of a process's output, a pipe or a terminal, read by the event loop until its end.

    Args:
        loop: the event loop.
        descriptor: the end; it is closed at the stream's end.
        sink: takes what is read.
        most: bytes that it takes at once; a pipe that is found full is made so large (F_SETPIPE_SZ, fcntl(2)).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, sink: Sink, *, most: int = READ_BYTES
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._sink = sink
        self._ended = asyncio.Event()
        self._reads = True
        self._at_once, self._most = READ_BYTES, most
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._read)

    async def ended(self) -> None:
        """Until no writer is left, or `close`."""
        await self._ended.wait()

    def go_on(self, reads: bool) -> None:
        """Read what comes, or leave it where it is: whoever writes waits then."""
        if self._ended.is_set() or reads is self._reads:
            return
        self._reads = reads
        if reads:
            self._loop.add_reader(self._descriptor, self._read)
        else:
            self._loop.remove_reader(self._descriptor)

    def drain(self) -> None:
        """Take what is in the pipe now, at most its capacity."""
        if not self._ended.is_set():
            self._read()

    def close(self) -> None:
        """Take what is there and read no more; whoever still writes gets SIGPIPE."""
        self.drain()
        self._end()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, self._at_once)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if data:
            if len(data) == self._at_once < self._most:
                self._grow()
            self._sink.feed(data)
        else:
            self._end()

    def _grow(self) -> None:
        self._at_once = self._most
        with suppress(OSError):  # its user's pipes have as much as they may (pipe(7), pipe-user-pages-soft)
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, self._most)

    def _end(self) -> None:
        if self._ended.is_set():
            return
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._ended.set()
        self._sink.end()


class Feed:
    """Writes a text to a command's standard input as fast as it reads, then closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, data: bytes) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._rest = memoryview(data)
        self._is_open = True
        os.set_blocking(descriptor, False)
        loop.add_writer(descriptor, self._write)

    def close(self) -> None:
        """Write no more."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)

    def _write(self) -> None:
        try:
            self._rest = self._rest[os.write(self._descriptor, self._rest[:READ_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._rest = self._rest[:0]
        if not self._rest:
            self.close()


class Inlet:
    """Writes what people type to a command's standard input, as fast as it reads."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, on_written: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._on_written = on_written
        self._waiting = bytearray()
        self._is_open, self._is_last = True, False
        os.set_blocking(descriptor, False)

    @property
    def pending(self) -> int:
        """Bytes that the command has not taken yet."""
        return len(self._waiting)

    def write(self, data: bytes) -> None:
        """Hand bytes on, behind those that wait already; after the end they go nowhere."""
        if not self._is_open or self._is_last:
            return
        if not self._waiting:
            self._loop.add_writer(self._descriptor, self._write)
        self._waiting += data

    def finish(self) -> None:
        """Close it behind what waits."""
        self._is_last = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Write no more."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            self._waiting.clear()
            self._on_written()

    def _write(self) -> None:
        try:
            written = os.write(self._descriptor, self._waiting[:READ_BYTES])
        except BlockingIOError:
            return
        except OSError:  # EPIPE, or EIO of a terminal: nobody reads any more
            self.close()
            return
        del self._waiting[:written]
        if not self._waiting:
            self._loop.remove_writer(self._descriptor)
            if self._is_last:
                self.close()
        self._on_written()
