"""Logs and events: pages by cursor, and lines as they come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from corex.http import problem
from corex.http.routes import NoBody, Request, Route, Stream
from corex.process.events import Events
from corex.process.logs import Bell
from corex.process.sift import PatternError, Sieve, sieve
from corex.rest.access import OPERATOR, VIEWER
from corex.rest.container import Container, life_of
from corex.wire.api import EventPage, EventsQuery, LogGap, LogLine, LogPage, LogsQuery, ProcessLogsQuery

JSON, NDJSON, SSE, TEXT = "application/json", "application/x-ndjson", "text/event-stream", "text/plain"
# Seconds of silence after which a stream of server-sent events has a comment, for proxies and for people.
_SILENCE = 15.0
_STILL_HERE = b":\n\n"
_AT_ONCE = 1000
_LONGEST_NUMBER = 20
_encoder = msgspec.json.Encoder()


def routes() -> list[Route]:
    """Their rows of the table."""
    return [
        Route(
            "GET",
            "/v1/processes/{name}/logs",
            VIEWER,
            "One process's output",
            get_process_logs,
            ProcessLogsQuery,
            response=LogPage,
            errors=(problem.NOT_FOUND,),
            streams=(NDJSON, SSE, TEXT),
        ),
        Route(
            "GET",
            "/v1/logs",
            VIEWER,
            "All output",
            get_logs,
            LogsQuery,
            response=LogPage,
            repeated=frozenset({"process"}),
            streams=(NDJSON, SSE, TEXT),
        ),
        Route(
            "GET",
            "/v1/events",
            VIEWER,
            "What happened",
            get_events,
            EventsQuery,
            response=EventPage,
            streams=(SSE,),
        ),
    ]


async def get_process_logs(request: Request[Container, ProcessLogsQuery, NoBody]) -> LogPage | Stream:
    """A page, or the lines as they come."""
    query, logs = request.parameters, request.context.processes.world.logs
    ring = logs.ring(life_of(request.context, query.name).name)
    keep = _sieve(request, frozenset())
    show = _Shown(keep, number=lambda line: line.seq, with_name=False)
    return _page_or_stream(request, lambda after: ring.after_seq(after, query.limit), show, ring.last)


async def get_logs(request: Request[Container, LogsQuery, NoBody]) -> LogPage | Stream:
    """A page, or the lines as they come."""
    query, logs = request.parameters, request.context.processes.world.logs
    keep = _sieve(request, frozenset(query.process))
    show = _Shown(keep, number=lambda line: line.order, with_name=True)
    return _page_or_stream(request, lambda after: logs.after(after, query.limit), show, logs.last)


async def get_events(request: Request[Container, EventsQuery, NoBody]) -> EventPage | Stream:
    """Waits for the first event for at most `wait` seconds; as server-sent events they come as they happen."""
    query, events = request.parameters, request.context.processes.world.events
    if _wanted_type(request, (JSON, SSE)) == SSE:
        return Stream(SSE, _events(events, _resumed(request, query.after)))
    with suppress(TimeoutError):
        async with asyncio.timeout(query.wait):
            while query.wait and not (events.bell.is_closed or events.after(query.after, 1).events):
                await events.bell.wait()
    return events.after(query.after, query.limit)


async def _events(events: Events, after: int) -> AsyncIterator[bytes]:
    while True:
        page = events.after(after, _AT_ONCE)
        if page.lost:
            yield _event("lost", str(after + page.lost), msgspec.json.encode({"lost": page.lost}))
        for event in page.events:
            yield _event("event", str(event.seq), msgspec.json.encode(event))
        if page.next == after and events.bell.is_closed:
            return
        if page.next == after and not await _rung(events.bell):
            yield _STILL_HERE
        after = page.next


class _Shown:
    """Which records of a log are shown, and how."""

    def __init__(self, keep: Sieve | None, *, number: Callable[[LogLine], int], with_name: bool) -> None:
        self._keep, self._number, self._with_name = keep, number, with_name

    def page(self, page: LogPage) -> LogPage:
        """What is wanted of a page. Raises ProblemError: the pattern takes too long."""
        if self._keep is None:
            return page
        try:
            return LogPage(self._keep(page.records), page.next)
        except PatternError as error:
            raise _no_pattern(error) from None

    def lines(self, page: LogPage, kind: str) -> bytes:
        """A page's records in a format that has no end."""
        if kind == NDJSON:
            return _encoder.encode_lines(page.records)
        if kind == TEXT:
            return "".join(map(self._text, page.records)).encode()
        return b"".join(map(self._sent, page.records))

    def _text(self, record: LogLine | LogGap) -> str:
        if isinstance(record, LogGap):
            return f"[{record.lost} lines were overwritten before they were read]\n"
        end = "" if record.partial else "\n"
        return f"{record.process}: {record.text}{end}" if self._with_name else record.text + end

    def _sent(self, record: LogLine | LogGap) -> bytes:
        data = _encoder.encode(record)
        if isinstance(record, LogGap):
            return _event("gap", "", data)
        return _event("line", str(self._number(record)), data)


def _event(name: str, number: str, data: bytes) -> bytes:
    """One server-sent event (HTML, section 9.2); JSON has no line ends in it."""
    identified = f"id: {number}\n" if number else ""
    return f"{identified}event: {name}\ndata: ".encode() + data + b"\n\n"


def _sieve(request: Request[Container, Any, NoBody], processes: frozenset[str]) -> Sieve | None:
    query = request.parameters
    if query.match is not None and OPERATOR not in request.identity.roles:
        who = request.identity.name
        raise problem.FORBIDDEN(f"cannot allow parameter 'match' to {who}: it needs the role {OPERATOR}")
    try:
        return sieve(query, processes)
    except PatternError as error:
        raise _no_pattern(error) from None


def _no_pattern(error: PatternError) -> problem.ProblemError:
    return problem.INVALID(
        f"cannot use parameter 'match': {error}", remedy="write another one; it is matched by Python's re"
    )


def _wanted_type(request: Request[Container, Any, NoBody], known: Sequence[str]) -> str:
    """The first of the media types that the client accepts and that are known; the first known one without any."""
    accepted = request.raw.headers.get("accept", "").split(",")
    types = [one.partition(";")[0].strip().lower() for one in accepted]
    return next((one for one in types if one in known), known[0])


def _resumed(request: Request[Container, Any, NoBody], after: int) -> int:
    """The cursor of a client that comes back for server-sent events."""
    known = request.raw.headers.get("last-event-id", "")
    return int(known) if known.isascii() and known.isdigit() and len(known) < _LONGEST_NUMBER else after


def _page_or_stream(
    request: Request[Container, Any, NoBody], read: Callable[[int], LogPage], show: _Shown, last: int
) -> LogPage | Stream:
    query = request.parameters
    kind = _wanted_type(request, (JSON, NDJSON, SSE, TEXT))
    after = _resumed(request, query.after) if kind == SSE else query.after
    if query.tail is not None:
        after = max(after, last - query.tail)
    first = show.page(read(after))
    bell = request.context.processes.world.logs.bell
    if kind in (SSE, NDJSON) or query.follow:
        kind = NDJSON if kind == JSON else kind
        return Stream(kind, _follow(read, after, show, kind, bell))
    return Stream(kind, once(show.lines(first, kind))) if kind == TEXT else first


async def once(piece: bytes) -> AsyncIterator[bytes]:
    """A stream of one piece."""
    yield piece


async def _follow(
    read: Callable[[int], LogPage], after: int, show: _Shown, kind: str, bell: Bell
) -> AsyncIterator[bytes]:
    while True:
        page = read(after)
        if page.records:
            try:
                shown = show.lines(show.page(page), kind)
            except (
                problem.ProblemError
            ):  # the pattern takes too long with these lines: the answer has begun already
                return
            if shown:
                yield shown
            after = page.next
            await asyncio.sleep(0)  # who is far behind shall keep nobody else waiting until it is not
        elif bell.is_closed:
            return
        elif not await _rung(bell) and kind == SSE:
            yield _STILL_HERE


async def _rung(bell: Bell) -> bool:
    """Wait for a bell, for so long that whoever listens may want to know that somebody is still here."""
    try:
        async with asyncio.timeout(_SILENCE):
            await bell.wait()
    except TimeoutError:
        return False
    return True
