"""Processes: declared by name, started, stopped, told signals."""

from collections.abc import Callable

from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Reply, Request, Route
from corex.process import model
from corex.process.life import Life
from corex.process.manager import Processes
from corex.process.plan import PlanError, etag_of
from corex.rest.access import OPERATOR, VIEWER
from corex.rest.container import Container, check_preconditions, life_of, no_plan, refuse
from corex.rest.follow import done_states, follow
from corex.rest.operations import location
from corex.wire.api import ByName, ByNameWait, ProcessInfo, ProcessList, SignalRequest
from corex.wire.operations import OperationKind
from corex.wire.process import ProcessSpec


def routes() -> list[Route]:
    """Their rows of the table."""
    return [*_process_routes(), *_verb_routes()]


def _process_routes() -> list[Route]:
    one = "/v1/processes/{name}"
    gone = (problem.NOT_FOUND,)
    busy = (problem.NOT_FOUND, problem.CONFLICT, problem.PRECONDITION_FAILED)
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
            errors=(problem.PRECONDITION_FAILED, problem.FULL),
        ),
        Route(
            "DELETE",
            one,
            OPERATOR,
            "Forget",
            delete_process,
            ByName,
            status=204,
            errors=(*busy, problem.FULL),
        ),
    ]


def _verb_routes() -> list[Route]:
    verbs = [
        ("start", "Want it to run", start_process),
        ("stop", "Want it stopped", stop_process),
        ("restart", "Stop it if it runs, then start it", restart_process),
        ("reset", "Forget its earlier failures", reset_process),
    ]
    table = [
        Route(
            "POST",
            f"/v1/processes/{{name}}/{verb}",
            OPERATOR,
            f"{summary}; 202 if that is still under way",
            handler,
            ByNameWait,
            response=ProcessInfo,
            errors=(problem.NOT_FOUND, problem.CONFLICT),
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
            "Send a signal to those that its scope names",
            signal_process,
            ByName,
            request=SignalRequest,
            status=204,
            errors=(problem.NOT_FOUND, problem.CONFLICT),
        ),
    ]


async def list_processes(request: Request[Container, NoParameters, NoBody]) -> ProcessList:
    """In the order of their declaration."""
    processes = request.context.processes
    return ProcessList([processes.info(life) for life in processes.all()])


async def get_process(request: Request[Container, ByName, NoBody]) -> Reply[ProcessInfo]:
    """One of them; the ETag is its specification's."""
    life = life_of(request.context, request.parameters.name)
    return Reply(request.context.processes.info(life), headers={"ETag": etag_of(life.spec)})


async def put_process(request: Request[Container, ByName, ProcessSpec]) -> Reply[ProcessInfo]:
    """Declares only: a new process is started by its own verb, a running one keeps its old specification."""
    processes, name = request.context.processes, request.parameters.name
    known = processes.get(name)
    check_preconditions(request, etag_of(known.spec) if known else None)
    refuse(model.flaw_of(request.body))
    try:
        is_new = processes.put(name, request.body)
    except PlanError as error:
        raise no_plan(error, f"/processes/{name}") from None
    headers = {"ETag": etag_of(request.body)} | ({"Location": f"/v1/processes/{name}"} if is_new else {})
    info = processes.info(life_of(request.context, name))
    return Reply(info, status=201 if is_new else 200, headers=headers)


async def delete_process(request: Request[Container, ByName, NoBody]) -> None:
    """Only of what does not run, and what no layer but that of single processes declares."""
    processes = request.context.processes
    life = life_of(request.context, request.parameters.name)
    check_preconditions(request, etag_of(life.spec))
    if life.state in model.ACTIVE:
        raise problem.CONFLICT(
            f"cannot delete {life.name}: it is {life.state}", remedy="stop it first, with wait="
        )
    try:
        processes.remove(life.name)
    except PlanError as error:
        raise problem.CONFLICT(
            f"cannot delete {life.name}: {error.reason}", remedy="change that first, then apply the plan"
        ) from None


async def start_process(request: Request[Container, ByNameWait, NoBody]) -> Reply[ProcessInfo]:
    """Idempotent; starts what it starts after, too."""
    return await _verb(request, "start", _startable(request).start)


def _startable(request: Request[Container, ByNameWait, NoBody]) -> Processes:
    """The container's processes; 409 if it is too late to start any."""
    processes = request.context.processes
    if processes.is_ending:
        raise problem.CONFLICT(
            "cannot start anything: the container is stopping", remedy="start the container"
        )
    return processes


async def stop_process(request: Request[Container, ByNameWait, NoBody]) -> Reply[ProcessInfo]:
    """Idempotent."""
    return await _verb(request, "stop", Life.stop)


async def restart_process(request: Request[Container, ByNameWait, NoBody]) -> Reply[ProcessInfo]:
    """A process that does not run is started."""
    return await _verb(request, "restart", _startable(request).restart)


async def reset_process(request: Request[Container, ByNameWait, NoBody]) -> Reply[ProcessInfo]:
    """For a process that failed and was mended: its next start does not wait."""
    return await _verb(request, "reset", Life.reset)


async def signal_process(request: Request[Container, ByName, SignalRequest]) -> None:
    """To the process, its group, or its tree."""
    life = life_of(request.context, request.parameters.name)
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


async def _verb(
    request: Request[Container, ByNameWait, NoBody], kind: OperationKind, verb: Callable[[Life], None]
) -> Reply[ProcessInfo]:
    container = request.context
    life = life_of(container, request.parameters.name)
    verb(life)
    if await life.wait(request.parameters.wait, done_states(kind, life.spec)):
        return Reply(container.processes.info(life))
    subject = f"/v1/processes/{life.name}"
    going_on = container.operations.begin(
        kind, subject, request.identity.name, follow(container.processes, kind, [life])
    )
    return Reply(container.processes.info(life), status=202, headers=location(going_on))
