"""Core-X's route table and its handlers."""

import asyncio
import functools
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from corex.http import problem
from corex.http.openapi import openapi_route
from corex.http.routes import (
    PUBLIC,
    NoBody,
    NoParameters,
    Reply,
    Request,
    Route,
    Stream,
    Table,
    build_table,
)
from corex.process import model
from corex.process.execute import execute
from corex.process.life import Life
from corex.process.logs import Bell
from corex.process.spawn import SpawnError
from corex.rest.access import OPERATOR, SCHEME, VIEWER
from corex.rest.container import CANNOT_RUN, Container, cannot_run, refuse
from corex.rest.identities import identity_routes
from corex.rest.sessions import session_routes
from corex.wire.api import (
    ByName,
    ByNameWait,
    EventPage,
    EventsQuery,
    ExecRequest,
    ExecResult,
    Health,
    LogPage,
    LogsQuery,
    ProcessInfo,
    ProcessList,
    ProcessLogsQuery,
    SignalRequest,
    State,
    System,
)
from corex.wire.process import ProcessSpec

NDJSON = "application/x-ndjson"
VERSION = "1"
_RUNS: frozenset[State] = frozenset({"running", "backoff", *model.SETTLED})


@functools.cache
def table() -> Table:
    """All routes, as requests look for them: the same for all forks of a process that has them."""
    return build_table(routes())


def routes() -> list[Route]:
    """The whole table, its OpenAPI document included."""
    table = [
        Route("GET", "/v1/health", PUBLIC, "Whether Core-X answers", get_health, response=Health),
        Route("GET", "/v1/system", VIEWER, "The container", get_system, response=System),
        *_process_routes(),
        *_verb_routes(),
        *_stream_routes(),
        Route(
            "POST",
            "/v1/exec",
            OPERATOR,
            "Run a command to its end",
            post_exec,
            request=ExecRequest,
            response=ExecResult,
            errors=(CANNOT_RUN,),
        ),
        *session_routes(),
        *identity_routes(),
    ]
    table.append(openapi_route(table, title="Core-X", version=VERSION, security=SCHEME))
    return table


def _process_routes() -> list[Route]:
    one = "/v1/processes/{name}"
    gone = (problem.NOT_FOUND,)
    busy = (problem.NOT_FOUND, problem.CONFLICT)
    return [
        Route("GET", "/v1/processes", VIEWER, "All processes", list_processes, response=ProcessList),
        Route("GET", one, VIEWER, "One process", get_process, ByName, response=ProcessInfo, errors=gone),
        Route(
            "PUT",
            one,
            OPERATOR,
            "Declare or replace; 201 if it is new",
            put_process,
            ByName,
            request=ProcessSpec,
            response=ProcessInfo,
            other_statuses=(201,),
        ),
        Route("DELETE", one, OPERATOR, "Forget", delete_process, ByName, status=204, errors=busy),
    ]


def _verb_routes() -> list[Route]:
    verbs = [
        ("start", "Want it to run", start_process),
        ("stop", "Want it stopped", stop_process),
        ("restart", "Stop it if it runs, then start it", restart_process),
    ]
    gone = (problem.NOT_FOUND,)
    table = [
        Route(
            "POST",
            f"/v1/processes/{{name}}/{verb}",
            OPERATOR,
            f"{summary}; 202 if that is still under way",
            handler,
            ByNameWait,
            response=ProcessInfo,
            errors=gone,
            other_statuses=(202,),
        )
        for verb, summary, handler in verbs
    ]
    return [
        *table,
        Route(
            "POST",
            "/v1/processes/{name}/signal",
            OPERATOR,
            "Send a signal to its process group",
            signal_process,
            ByName,
            request=SignalRequest,
            status=204,
            errors=(problem.NOT_FOUND, problem.CONFLICT),
        ),
    ]


def _stream_routes() -> list[Route]:
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


async def get_health(_request: Request[Container, NoParameters, NoBody]) -> Health:
    """Answers whoever can connect, so that a load balancer needs no token."""
    return Health("up")


async def get_system(request: Request[Container, NoParameters, NoBody]) -> System:
    """The container as Core-X sees it."""
    container = request.context
    lives = container.processes.all()
    world = container.processes.world
    return System(
        name=container.name,
        kernel=os.uname().release,
        python=sys.version.partition(" ")[0],
        uptime=round(world.loop.time() - container.started, 3),
        processes=len(lives),
        running=sum(life.state == "running" for life in lives),
        orphans=world.reaper.orphans,
        usage=container.figures.of(os.getpid()),
        health=container.health.report if container.health else None,
    )


async def list_processes(request: Request[Container, NoParameters, NoBody]) -> ProcessList:
    """In the order of their declaration."""
    processes = request.context.processes
    return ProcessList([processes.info(life) for life in processes.all()])


async def get_process(request: Request[Container, ByName, NoBody]) -> ProcessInfo:
    """One of them."""
    return request.context.processes.info(_life(request.context, request.parameters.name))


async def put_process(request: Request[Container, ByName, ProcessSpec]) -> Reply[ProcessInfo]:
    """Declares only: a new process is started by its own verb, a running one keeps its old specification."""
    processes, name = request.context.processes, request.parameters.name
    refuse(model.flaw_of(request.body))
    is_new = processes.put(name, request.body)
    headers = {"Location": f"/v1/processes/{name}"} if is_new else {}
    info = processes.info(_life(request.context, name))
    return Reply(info, status=201 if is_new else 200, headers=headers)


async def delete_process(request: Request[Container, ByName, NoBody]) -> None:
    """Only of what does not run: destroying is never a side effect."""
    life = _life(request.context, request.parameters.name)
    if life.state in model.ACTIVE:
        raise problem.CONFLICT(
            f"cannot delete {life.name}: it is {life.state}", remedy="stop it first, with wait="
        )
    request.context.processes.remove(life.name)


async def start_process(request: Request[Container, ByNameWait, NoBody]) -> Reply[ProcessInfo]:
    """Idempotent."""
    return await _verb(request, Life.start, _RUNS)


async def stop_process(request: Request[Container, ByNameWait, NoBody]) -> Reply[ProcessInfo]:
    """Idempotent."""
    return await _verb(request, Life.stop, model.SETTLED)


async def restart_process(request: Request[Container, ByNameWait, NoBody]) -> Reply[ProcessInfo]:
    """A process that does not run is started."""
    return await _verb(request, Life.restart, frozenset({"running", "backoff", "exited", "failed"}))


async def signal_process(request: Request[Container, ByName, SignalRequest]) -> None:
    """To the process and its group."""
    life = _life(request.context, request.parameters.name)
    try:
        number = model.signal_number(request.body.signal)
    except ValueError as error:
        raise problem.INVALID(f"cannot send the signal: {error}", pointer="/signal") from None
    try:
        life.signal(number)
    except ProcessLookupError:
        raise problem.CONFLICT(
            f"cannot signal {life.name}: it is {life.state}", remedy="start it first"
        ) from None
    except PermissionError:
        raise problem.CONFLICT(f"cannot signal {life.name}: the kernel refuses it to Core-X") from None


async def get_process_logs(request: Request[Container, ProcessLogsQuery, NoBody]) -> LogPage | Stream:
    """A page, or the lines as they come."""
    query, logs = request.parameters, request.context.processes.world.logs
    ring = logs.ring(_life(request.context, query.name).name)
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


async def post_exec(request: Request[Container, NoParameters, ExecRequest]) -> ExecResult:
    """The command's own failure is a result; that it could not be started is a problem."""
    body = request.body
    refuse(model.flaw_of_command(body.argv, body.env, body.cwd))
    try:
        return await execute(body, request.context.processes.world)
    except SpawnError as error:
        raise cannot_run(error) from None


def _life(container: Container, name: str) -> Life:
    life = container.processes.get(name)
    if life is None:
        raise problem.NOT_FOUND(
            f"cannot find process {name}: it is not declared", remedy="see GET /v1/processes"
        )
    return life


async def _verb(
    request: Request[Container, ByNameWait, NoBody], verb: Callable[[Life], None], done: frozenset[State]
) -> Reply[ProcessInfo]:
    life = _life(request.context, request.parameters.name)
    verb(life)
    is_done = await life.wait(request.parameters.wait, done)
    return Reply(request.context.processes.info(life), status=200 if is_done else 202)


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
