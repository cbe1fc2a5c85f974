"""The newest output of each process, capped in bytes, read by cursor; what was overwritten is a declared gap.

A log keeps chunks, not lines: what one read from a pipe brings stays one list of lines with one head, and
whole chunks leave at the old end. A line has two numbers, both without holes: `seq` in its process's log,
`order` in the container. A page from a cursor to `next` covers exactly `next - after` numbers, so lines
received plus declared gaps are always lines written.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from corex.wire.api import LogGap, LogLine, LogPage, Stream

RING_BYTES = 256 * 1024  # of one process, overhead included
CHUNK_LINES = 1024
_LINE_OVERHEAD = 40  # bytes that CPython adds to each line: the object's head and its place in the list
_CHUNK_OVERHEAD = 300


@dataclass(frozen=True)
class Chunk:
    """Lines that arrived together.

    Attributes:
        order: the container's number of the first line; the rest follow without holes.
        seq: the process's number of the first line.
        time: seconds since 1970 UTC.
        stream: where they were written to.
        lines: without line ends.
        partial: the last one goes on in the stream's next chunk.
    """

    order: int
    seq: int
    time: float
    stream: Stream
    lines: Sequence[bytes]
    partial: bool

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return _CHUNK_OVERHEAD + sum(map(len, self.lines)) + _LINE_OVERHEAD * len(self.lines)


class Bell:
    """Wakes all that wait for the next ring; once it is closed nobody waits any more."""

    def __init__(self) -> None:
        self.is_closed = False
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake those who wait now."""
        if not self.is_closed:
            self._event.set()
            self._event = asyncio.Event()

    def close(self) -> None:
        """Nothing follows."""
        self.is_closed = True
        self._event.set()

    async def wait(self) -> None:
        """Until the next ring after this call, or the end."""
        await self._event.wait()


class Ring:
    """One process's log."""

    def __init__(self, process: str, capacity: int = RING_BYTES, last: int = 0) -> None:
        self.process = process
        self.last = last
        self._capacity = capacity
        self._chunks: deque[Chunk] = deque()
        self._size = 0

    def append(self, chunk: Chunk) -> None:
        """Take the newest lines; older ones make room, all but the newest chunk."""
        self._chunks.append(chunk)
        self._size += chunk.size
        self.last = chunk.seq + len(chunk.lines) - 1
        while self._size > self._capacity and len(self._chunks) > 1:
            self._size -= self._chunks.popleft().size

    def after_seq(self, after: int, limit: int) -> LogPage:
        """The lines after the process's number `after`."""
        lines = self._lines(lambda chunk: chunk.seq + len(chunk.lines) - 1 > after)
        return page(
            (line for line in lines if line.seq > after), after, self.last, limit, lambda line: line.seq
        )

    def after_order(self, after: int) -> Iterator[LogLine]:
        """The lines after the container's number `after`."""
        lines = self._lines(lambda chunk: chunk.order + len(chunk.lines) - 1 > after)
        return (line for line in lines if line.order > after)

    def _lines(self, wanted: Callable[[Chunk], bool]) -> Iterator[LogLine]:
        # From the new end, where followers read; a reader from far behind pays for the walk.
        chosen: list[Chunk] = []
        for chunk in reversed(self._chunks):
            if not wanted(chunk):
                break
            chosen.append(chunk)
        for chunk in reversed(chosen):
            yield from self._expand(chunk)

    def _expand(self, chunk: Chunk) -> Iterator[LogLine]:
        last = len(chunk.lines) - 1
        for at, line in enumerate(chunk.lines):
            text = line.decode("utf-8", "backslashreplace")
            partial = chunk.partial and at == last
            yield LogLine(
                chunk.order + at, chunk.seq + at, chunk.time, self.process, chunk.stream, text, partial
            )


def page(
    lines: Iterator[LogLine], after: int, last: int, limit: int, number: Callable[[LogLine], int]
) -> LogPage:
    """A page of at most `limit` lines, with a gap wherever numbers are missing up to its end.

    Args:
        lines: ascending, all with numbers over `after`.
        after: the reader's cursor.
        last: the newest number given out.
        limit: lines at most.
        number: which of a line's numbers the cursor counts.
    """
    records: list[LogLine | LogGap] = []
    at, taken = after, 0
    for line in lines:
        if taken == limit:
            return LogPage(records, at)
        if number(line) > at + 1:
            records.append(LogGap(number(line) - at - 1))
        records.append(line)
        at, taken = number(line), taken + 1
    if last > at:
        records.append(LogGap(last - at))
    return LogPage(records, max(at, last))


class Logs:
    """All logs of a container."""

    def __init__(self, wall_clock: Callable[[], float], capacity: int = RING_BYTES) -> None:
        self.bell = Bell()
        self._rings: dict[str, Ring] = {}
        self._forgotten: dict[str, int] = {}
        self._order = 0
        self._wall_clock = wall_clock
        self._capacity = capacity

    @property
    def last(self) -> int:
        """The container's number of the newest line: how many were written."""
        return self._order

    def ring(self, process: str) -> Ring:
        """The log of a process, made on first use."""
        ring = self._rings.get(process)
        if ring is None:
            ring = self._rings[process] = Ring(process, self._capacity, self._forgotten.pop(process, 0))
        return ring

    def forget(self, process: str) -> None:
        """Drop a process's log; its numbers go on if it comes again, so that old cursors stay right."""
        ring = self._rings.pop(process, None)
        if ring is not None:
            self._forgotten[process] = ring.last

    def write(self, process: str, stream: Stream, lines: Sequence[bytes], *, partial: bool = False) -> None:
        """Append lines that arrived together; `partial` if the last one is not complete."""
        ring, now = self.ring(process), self._wall_clock()
        for start in range(0, len(lines), CHUNK_LINES):
            part = lines[start : start + CHUNK_LINES]
            is_last = start + CHUNK_LINES >= len(lines)
            ring.append(Chunk(self._order + 1, ring.last + 1, now, stream, part, partial and is_last))
            self._order += len(part)
        self.bell.ring()

    def after(self, after: int, limit: int) -> LogPage:
        """The lines of all processes after the container's number `after`."""
        each = [ring.after_order(after) for ring in self._rings.values()]
        lines = heapq.merge(*each, key=lambda line: line.order)
        return page(iter(lines), after, self._order, limit, lambda line: line.order)
