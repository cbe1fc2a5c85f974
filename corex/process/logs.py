"""The newest output of each process, capped in bytes, read by cursor; what was overwritten is a declared gap.

A log keeps chunks, not lines: what one read from a pipe brings stays the bytes that it is, with one head, and is
split when somebody reads it; whole chunks leave at the old end. A line has two numbers, both without holes: `seq` in
its process's log, `order` in the container. A page from a cursor to `next` covers exactly `next - after` numbers, so
lines received plus declared gaps are always lines written.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import msgspec

from corex.process.output import MAX_LINE
from corex.wire.api import LogGap, LogLine, LogPage, Stream

RING_BYTES = 256 * 1024  # of one process, overhead included
# Of one chunk: a reader splits whole ones, and a ring lets them go as a whole. No line is longer.
CHUNK_BYTES = MAX_LINE
_CHUNK_OVERHEAD = 300


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Lines that arrived together.

    Attributes:
        order: the container's number of the first line; the rest follow without holes.
        seq: the process's number of the first line.
        count: how many lines there are.
        time: seconds since 1970 UTC.
        stream: where they were written to.
        block: the lines with a line end between two of them.
        partial: the last one goes on in the stream's next chunk.
    """

    order: int
    seq: int
    count: int
    time: float
    stream: Stream
    block: bytes
    partial: bool

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, about."""
        return _CHUNK_OVERHEAD + len(self.block)


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
        self.last = chunk.seq + chunk.count - 1
        while self._size > self._capacity and len(self._chunks) > 1:
            self._size -= self._chunks.popleft().size

    def after_seq(self, after: int, limit: int) -> LogPage:
        """The lines after the process's number `after`."""
        lines = self._lines(lambda chunk: after - chunk.seq + 1)
        return page(lines, after, self.last, limit, lambda line: line.seq)

    def after_order(self, after: int) -> Iterator[LogLine]:
        """The lines after the container's number `after`."""
        return self._lines(lambda chunk: after - chunk.order + 1)

    def told_after(self, after: int) -> Iterator["Told"]:
        """The lines after the process's number `after`, with a gap before those that follow overwritten ones."""
        at = after
        for line in self._lines(lambda chunk: after - chunk.seq + 1):
            if line.seq > at + 1:
                yield Told(line.order, self.process, line.seq - 1, LogGap(line.seq - 1 - at))
            yield Told(line.order, self.process, line.seq, line)
            at = line.seq
        if self.last > at:  # of a log that was dropped, and has nothing new yet
            yield Told(0, self.process, self.last, LogGap(self.last - at))

    def _lines(self, known: Callable[[Chunk], int]) -> Iterator[LogLine]:
        """The lines that are not known; `known` says how many of a chunk's are, none or less for none."""
        # From the new end, where followers read; a reader from far behind pays for the walk.
        chosen: list[Chunk] = []
        for chunk in reversed(self._chunks):
            if known(chunk) >= chunk.count:
                break
            chosen.append(chunk)
        for chunk in reversed(chosen):
            yield from self._expand(chunk, max(0, known(chunk)))

    def _expand(self, chunk: Chunk, known: int) -> Iterator[LogLine]:
        texts = chunk.block.decode("utf-8", "backslashreplace").split("\n")
        order, seq, time, process, stream = chunk.order, chunk.seq, chunk.time, self.process, chunk.stream
        for at in range(known, chunk.count - 1):
            yield LogLine(order + at, seq + at, time, process, stream, texts[at])
        at = chunk.count - 1
        yield LogLine(order + at, seq + at, time, process, stream, texts[at], chunk.partial)


class Told(NamedTuple):
    """A record of one process's log.

    Attributes:
        order: the container's number of the line, or of the first one after the gap.
        process: whose log it is.
        seq: the process's number up to which this tells.
        record: the line or the gap.
    """

    order: int
    process: str
    seq: int
    record: LogLine | LogGap


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
        here = number(line)
        if here > at + 1:
            records.append(LogGap(here - at - 1))
        records.append(line)
        at, taken = here, taken + 1
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

    def positions(self) -> dict[str, int]:
        """Each process's number of its newest line; who is not among them has written none."""
        return {**self._forgotten, **{name: ring.last for name, ring in self._rings.items()}}

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

    def write(self, process: str, stream: Stream, block: bytes, *, partial: bool = False) -> None:
        """Append lines that arrived together, with a line end between two of them.

        Args:
            process: who wrote them.
            stream: where to.
            block: the lines; none is longer than `CHUNK_BYTES`.
            partial: whether the last one is not complete.
        """
        ring, now = self.ring(process), self._wall_clock()
        for part in _parts(block):
            count = part.count(b"\n") + 1
            ring.append(Chunk(self._order + 1, ring.last + 1, count, now, stream, part, partial))
            self._order += count
        self.bell.ring()

    def after(self, after: int, limit: int) -> LogPage:
        """The lines of all processes after the container's number `after`."""
        each = [ring.after_order(after) for ring in self._rings.values()]
        lines = heapq.merge(*each, key=lambda line: line.order)
        return page(iter(lines), after, self._order, limit, lambda line: line.order)

    def told_after(self, known: Mapping[str, int], only: Collection[str] = ()) -> Iterator[Told]:
        """What single processes wrote after what is known of each, in the container's order, and each one's own gaps.

        Args:
            known: as `positions` were.
            only: of these processes; of all if there are none.
        """
        for name, last in self._forgotten.items():
            lost = last - known.get(name, 0)
            if lost > 0 and (not only or name in only):
                yield Told(0, name, last, LogGap(lost))
        chosen = [ring for name, ring in self._rings.items() if not only or name in only]
        each = [ring.told_after(known.get(ring.process, 0)) for ring in chosen]
        yield from heapq.merge(*each, key=lambda told: told.order)


def _parts(block: bytes) -> Iterator[bytes]:
    """A block cut at line ends into chunks' pieces."""
    start = 0
    while len(block) - start > CHUNK_BYTES:
        cut = block.rfind(b"\n", start, start + CHUNK_BYTES + 1)
        yield block[start:cut]
        start = cut + 1
    yield block[start:] if start else block
