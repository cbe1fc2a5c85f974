"""Sends log lines on to one target, as long as the plan has it.

It reads what everybody reads, the rings of the logs, by a cursor of its own for each process, and keeps one batch
besides. So it takes the same memory however slow the target is, and no process ever waits for it: what was
overwritten before it could be sent is a gap, and the target is told of it. A batch that may or may not have arrived
is sent again.
"""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec

from corex.forward.connect import Stream, open_stream, send_datagrams
from corex.forward.formats import DATAGRAM, Sayer, counted
from corex.forward.location import place_of
from corex.process.world import World
from corex.wire.api import LogGap, LogLine
from corex.wire.targets import TargetInfo, TargetSpec, TargetState

# Lines of a batch, and bytes of their text.
MOST_LINES, MOST_BYTES = 1000, 512 << 10
# Seconds from a line to its batch.
LINGER = 0.25
# Seconds until the first retry, and at most; each is longer by half.
FIRST_RETRY, LAST_RETRY = 0.5, 30.0
_GROWTH = 1.5
# Seconds that the end of the container waits for the last lines.
LAST_WORDS = 2.0
_TRY_AGAIN = (408, 425, 429)
_SERVER_ERROR, _GOOD = 500, range(200, 300)


class _Answer(msgspec.Struct):
    """What OTLP answers to an export."""

    partialSuccess: "_Partial | None" = None  # noqa: N815  # theirs


class _Partial(msgspec.Struct):
    rejectedLogRecords: int | str = 0  # noqa: N815  # theirs; JSON of protobuf has int64 as text


_answer = msgspec.json.Decoder(_Answer)


class BusyError(Exception):
    """The target cannot take it now."""


class Forwarder:
    """One target."""

    def __init__(
        self, container: str, name: str, spec: TargetSpec, world: World, known: Mapping[str, int]
    ) -> None:
        """Prepare.

        Args:
            container: its name.
            name: the target's.
            spec: what it is.
            world: where logs are.
            known: which lines are not to be sent, as positions of `Logs`.
        """
        self.name, self.spec, self.known = name, spec, known
        # How many lines there were when all was sent.
        self._seen = 0
        self.sent = self.lost = self.refused = 0
        self._world = world
        self._place = place_of(spec)
        self._sayer = Sayer(container, spec)
        self._stream: Stream | None = None
        self._state: TargetState = "idle"
        self._why = "nothing was to be sent yet"
        self._since = world.wall_clock()
        self._delay = FIRST_RETRY
        self._linger = LINGER
        # set when nothing is to be sent, or cannot be now
        self._at_rest = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = self._world.loop.create_task(self._run())

    def stop(self) -> None:
        """Send nothing more."""
        if self._task is not None:
            self._task.cancel()
        self._disconnect()

    async def finish(self) -> None:
        """Send what is left, for a moment."""
        if self._task is None or self._task.done():
            return
        self._linger = 0.0
        if self._seen < self._world.logs.last and self._state != "retrying":
            self._at_rest.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._at_rest.wait()
        self.stop()

    def info(self) -> TargetInfo:
        """What the outside sees."""
        counts = (self.sent, self.lost, self.refused)
        return TargetInfo(self.name, self.spec, self._state, self._why, self._since, *counts)

    async def _run(self) -> None:
        logs = self._world.logs
        while True:
            while self._seen >= logs.last:
                self._at_rest.set()
                if logs.bell.is_closed:
                    return
                await logs.bell.wait()
            await asyncio.sleep(self._linger)
            records, known, seen = self._batch()
            if records:
                await self._send_until_it_is_taken(records)
            self.known, self._seen = known, seen

    def _batch(self) -> tuple[list[LogLine | LogGap], dict[str, int], int]:
        """What is to be sent next, what is known then, and how many lines there were if that is all."""
        logs, known = self._world.logs, dict(self.known)
        records: list[LogLine | LogGap] = []
        size = 0
        for _, process, seq, record in logs.told_after(self.known, self.spec.processes):
            if size >= MOST_BYTES or len(records) >= MOST_LINES:
                return records, known, self._seen
            known[process] = seq
            records.append(record)
            if isinstance(record, LogGap):
                self.lost += record.lost
            else:
                size += len(record.text)
        return records, known, logs.last

    async def _send_until_it_is_taken(self, records: list[LogLine | LogGap]) -> None:
        now = self._world.wall_clock()
        lines = sum(isinstance(record, LogLine) for record in records)
        send = self._sender(records, now)
        while True:
            try:
                refused = await send()
            except (OSError, ValueError, BusyError) as error:  # ValueError: TLS takes no such host name
                self._disconnect()
                await self._wait(_words(error))
                continue
            self.sent += max(0, lines - refused)
            self.refused += min(refused, lines)
            self._delay = FIRST_RETRY
            if not refused:
                self._enter("sending", "it takes what it is sent")
            return

    def _sender(self, records: list[LogLine | LogGap], now: float) -> Callable[[], Awaitable[int]]:
        """What sends them; they are put into words once, however often that is tried."""
        if self.spec.type == "syslog":
            messages = self._sayer.syslog(records, now)
            return lambda: self._send_syslog(messages)
        body = self._sayer.loki(records, now) if self.spec.type == "loki" else self._sayer.otlp(records, now)
        return lambda: self._post(body, len(records))

    async def _send_syslog(self, messages: list[bytes]) -> int:
        read = self._world.spawner.read
        if self._place.scheme == "udp":
            await send_datagrams(self._place, messages, DATAGRAM, read)
        else:
            await (await self._connected()).send(counted(messages))
        return 0

    async def _post(self, body: bytes, count: int) -> int:
        """Lines that it did not want."""
        stream = await self._connected()
        status, said = await stream.post(self._place, self.spec.headers, body)
        if status in _GOOD:
            return _rejected(said) if self.spec.type == "otlp" else 0
        text = said[:200].decode("utf-8", "replace")
        if status in _TRY_AGAIN or status >= _SERVER_ERROR:
            raise BusyError(f"it answered {status}: {text!a}")
        self._enter("sending", f"it refused lines with {status}: {text!a}")
        return count

    async def _connected(self) -> Stream:
        if self._stream is not None and self._stream.is_over:
            self._disconnect()
        if self._stream is None:
            self._stream = await open_stream(self._place, self.spec.ca, self._world.spawner.read)
        return self._stream

    def _disconnect(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def _wait(self, trouble: str) -> None:
        self._at_rest.set()
        delay = self._delay * (0.75 + self._world.jitter() / 2)
        self._enter("retrying", f"{trouble}; the next try follows within {self._delay:.1f} s")
        self._delay = min(LAST_RETRY, self._delay * _GROWTH)
        await asyncio.sleep(delay)

    def _enter(self, state: TargetState, why: str) -> None:
        if state != self._state:
            self._since = self._world.wall_clock()
        self._state, self._why = state, why


def _words(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno)
    return str(error) or "it did not answer in time"


def _rejected(said: bytes) -> int:
    try:
        partial = _answer.decode(said).partialSuccess if said else None
        return max(0, int(partial.rejectedLogRecords)) if partial else 0
    except (msgspec.DecodeError, ValueError):
        return 0
