"""Logs and events: pages by cursor, and lines as they come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from corex.http import problem
from corex.http.routes import NoBody, Request, Route, Stream
from corex.process.logs import Bell
from corex.rest.access import VIEWER
from corex.rest.container import Container, life_of
from corex.wire.api import EventPage, EventsQuery, LogPage, LogsQuery, ProcessLogsQuery

NDJSON = "application/x-ndjson"


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
            streams=(NDJSON,),
        ),
        Route(
            "GET",
            "/v1/logs",
            VIEWER,
            "All output",
            get_logs,
            LogsQuery,
            response=LogPage,
            streams=(NDJSON,),
        ),
        Route("GET", "/v1/events", VIEWER, "What happened", get_events, EventsQuery, response=EventPage),
    ]


async def get_process_logs(request: Request[Container, ProcessLogsQuery, NoBody]) -> LogPage | Stream:
    """A page, or the lines as they come."""
    query, logs = request.parameters, request.context.processes.world.logs
    ring = logs.ring(life_of(request.context, query.name).name)
    return await _page_or_stream(request, lambda after: ring.after_seq(after, query.limit))


async def get_logs(request: Request[Container, LogsQuery, NoBody]) -> LogPage | Stream:
    """A page, or the lines as they come."""
    query, logs = request.parameters, request.context.processes.world.logs
    return await _page_or_stream(request, lambda after: logs.after(after, query.limit))


async def get_events(request: Request[Container, EventsQuery, NoBody]) -> EventPage:
    """Waits for the first event for at most `wait` seconds."""
    query, events = request.parameters, request.context.processes.world.events
    with suppress(TimeoutError):
        async with asyncio.timeout(query.wait):
            while query.wait and not (events.bell.is_closed or events.after(query.after, 1).events):
                await events.bell.wait()
    return events.after(query.after, query.limit)


async def _page_or_stream(
    request: Request[Container, Any, NoBody], read: Callable[[int], LogPage]
) -> LogPage | Stream:
    query = request.parameters
    if not query.follow:
        return read(query.after)
    bell = request.context.processes.world.logs.bell
    return Stream(NDJSON, _follow(read, query.after, bell))


async def _follow(read: Callable[[int], LogPage], after: int, bell: Bell) -> AsyncIterator[bytes]:
    while True:
        page = read(after)
        if page.records:
            yield _lines(page.records)
            after = page.next
        elif bell.is_closed:
            return
        else:
            await bell.wait()


def _lines(records: Sequence[msgspec.Struct]) -> bytes:
    return msgspec.json.Encoder().encode_lines(records)
