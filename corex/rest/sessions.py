"""Routes of sessions: commands with a terminal or pipes that people attach to."""

from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Reply, Request, Route, Upgrade
from corex.http.websocket import WebSocket, upgrade
from corex.process import model
from corex.process.spawn import SpawnError
from corex.rest.access import OPERATOR, VIEWER
from corex.rest.container import CANNOT_RUN, Container, cannot_run, life_of, refuse
from corex.sessions.attach import attach, attach_kubernetes
from corex.sessions.manager import MOST, FullError
from corex.sessions.session import Session
from corex.wire import sessions as wire
from corex.wire.sessions import KUBERNETES_PROTOCOL, SESSION_PROTOCOL, SessionSpec, Window

# Seconds that a command of Kubernetes' clients waits for its one viewer.
_COMING = 10.0


def routes() -> list[Route]:
    """Rows of the table."""
    one = "/v1/sessions/{id}"
    gone = (problem.NOT_FOUND,)
    cannot_start = (CANNOT_RUN, problem.CONFLICT)
    return [
        Route("GET", "/v1/sessions", VIEWER, "All sessions", list_sessions, response=wire.SessionList),
        Route(
            "POST",
            "/v1/sessions",
            OPERATOR,
            "Run a command to attach to",
            post_session,
            request=SessionSpec,
            response=wire.Session,
            status=201,
            errors=cannot_start,
        ),
        Route(
            "GET", one, VIEWER, "One session", get_session, wire.BySession, response=wire.Session, errors=gone
        ),
        Route(
            "DELETE",
            one,
            OPERATOR,
            "Hang up and forget",
            delete_session,
            wire.BySession,
            status=204,
            errors=gone,
        ),
        Route(
            "POST",
            f"{one}/resize",
            OPERATOR,
            "Give its terminal another size",
            resize_session,
            wire.BySession,
            request=Window,
            response=wire.Session,
            errors=gone,
        ),
        Route(
            "GET",
            f"{one}/attach",
            VIEWER,
            "Attach to it",
            attach_session,
            wire.AttachQuery,
            errors=gone,
            upgrades=(SESSION_PROTOCOL,),
        ),
        Route(
            "GET",
            "/v1/processes/{name}/attach",
            VIEWER,
            "Attach to the terminal of a declared process",
            attach_process,
            wire.AttachProcessQuery,
            errors=(problem.NOT_FOUND, problem.CONFLICT),
            upgrades=(SESSION_PROTOCOL, KUBERNETES_PROTOCOL),
        ),
        Route(
            "GET",
            "/v1/exec",
            OPERATOR,
            "Run a command and attach to it, as Kubernetes' clients do",
            exec_session,
            wire.ExecQuery,
            errors=cannot_start,
            repeated=frozenset({"command"}),
            upgrades=(KUBERNETES_PROTOCOL,),
        ),
    ]


async def list_sessions(request: Request[Container, NoParameters, NoBody]) -> wire.SessionList:
    """In the order of their making."""
    return wire.SessionList([session.info() for session in request.context.sessions.all()])


async def post_session(request: Request[Container, NoParameters, SessionSpec]) -> Reply[wire.Session]:
    """Its output is kept from the beginning."""
    session = await _create(request.context, request.body)
    return Reply(session.info(), headers={"Location": f"/v1/sessions/{session.name}"})


async def get_session(request: Request[Container, wire.BySession, NoBody]) -> wire.Session:
    """One of them."""
    return _session(request.context, request.parameters.id).info()


async def delete_session(request: Request[Container, wire.BySession, NoBody]) -> None:
    """Its command is hung up."""
    request.context.sessions.remove(_session(request.context, request.parameters.id))


async def resize_session(request: Request[Container, wire.BySession, Window]) -> wire.Session:
    """Without a WebSocket."""
    session = _session(request.context, request.parameters.id)
    session.resize(request.body)
    return session.info()


async def attach_session(request: Request[Container, wire.AttachQuery, NoBody]) -> Upgrade:
    """By our own subprotocol."""
    container, query = request.context, request.parameters
    session = _session(container, query.id)
    may_write = OPERATOR in request.identity.roles

    async def serve(websocket: WebSocket, _subprotocol: str) -> None:
        viewer = container.sessions.enter(session, min(query.after, session.ring.end))
        try:
            await attach(websocket, session, viewer, query.client, may_write=may_write)
        finally:
            container.sessions.leave(session, viewer)

    return upgrade(request.raw, (SESSION_PROTOCOL,), serve)


async def attach_process(request: Request[Container, wire.AttachProcessQuery, NoBody]) -> Upgrade:
    """By either subprotocol; it goes on while the process is restarted, and ends when that has ended for good."""
    query = request.parameters
    life = life_of(request.context, query.name)
    stage, may_write = life.stage, OPERATOR in request.identity.roles
    if stage is None:
        raise problem.CONFLICT(
            f"cannot attach to {life.name}: it has no terminal",
            remedy="declare it with tty: true, and start it",
        )

    async def serve(websocket: WebSocket, subprotocol: str) -> None:
        viewer = stage.enter(min(query.after, stage.ring.end))
        try:
            if subprotocol == SESSION_PROTOCOL:
                await attach(websocket, stage, viewer, query.client, may_write=may_write)
            else:
                await attach_kubernetes(
                    websocket, stage, viewer, frozenset({wire.OUTPUT}), may_write=may_write
                )
        finally:
            stage.leave(viewer)

    return upgrade(request.raw, (SESSION_PROTOCOL, KUBERNETES_PROTOCOL), serve)


async def exec_session(request: Request[Container, wire.ExecQuery, NoBody]) -> Upgrade:
    """It ends with its WebSocket."""
    container, query = request.context, request.parameters
    # checked before anything is started
    upgrade(request.raw, (KUBERNETES_PROTOCOL,), _nothing)
    window = Window() if query.tty else None
    session = await _create(container, SessionSpec(query.command, window=window, keep=_COMING))
    if not query.stdin and not query.tty:
        session.end_input()
    streams = frozenset(
        stream for stream, wanted in ((wire.OUTPUT, query.stdout), (wire.ERRORS, query.stderr)) if wanted
    )

    async def serve(websocket: WebSocket, _subprotocol: str) -> None:
        viewer = container.sessions.enter(session, 0)
        try:
            await attach_kubernetes(websocket, session, viewer, streams, may_write=True)
        finally:
            container.sessions.remove(session)

    return upgrade(request.raw, (KUBERNETES_PROTOCOL,), serve)


async def _nothing(_websocket: WebSocket, _subprotocol: str) -> None:
    """Never called."""


async def _create(container: Container, spec: SessionSpec) -> Session:
    refuse(model.flaw_of_command(spec.argv, spec.env, spec.cwd))
    try:
        return await container.sessions.create(spec)
    except FullError:
        raise problem.CONFLICT(
            f"cannot make more than {MOST} sessions", remedy="delete some: DELETE /v1/sessions/ID"
        ) from None
    except SpawnError as error:
        raise cannot_run(error) from None


def _session(container: Container, name: str) -> Session:
    session = container.sessions.get(name)
    if session is None:
        raise problem.NOT_FOUND(
            f"cannot find session {name}: it ended and nobody came back, or was never made",
            remedy="see GET /v1/sessions",
        )
    return session
