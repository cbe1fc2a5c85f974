"""The route table: each row names method, path, role, types and handler; dispatch follows from it.

A request passes these steps, in this order: find the row, authenticate (unless the row is public), check the
role, decode parameters and body strictly, call the handler, encode what it returns. Before authentication
nothing but 401 is answered, unknown paths included. Errors are problems (`corex.http.problem`).

The records here are msgspec structs though most never meet JSON: a dataclass compiles its methods at import,
0.5 to 0.9 ms each and ten times that on an emulated node, where a struct takes 0.02 ms.
"""

import asyncio
import logging
import os
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from corex.http import problem
from corex.http.connection import RawRequest, Response, Switch
from corex.http.problem import ProblemError

ContextT = TypeVar("ContextT")
ParametersT = TypeVar("ParametersT")
BodyT = TypeVar("BodyT")
ResultT = TypeVar("ResultT")

# The role of a route that answers without authentication.
PUBLIC = "public"
MAX_BODY = 1 << 20
# The parameter that has seconds wherever it is one: 30, 1.5 or 30s.
_WAIT = "wait"
BODY_TIMEOUT = 30.0  # seconds for a whole body to arrive

_SECURITY_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_log = logging.getLogger(__name__)


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For routes without parameters: a query string is refused."""


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `Request.body` is where the route takes none."""


class Upload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `Request.body` is where the route takes bytes of any length: the handler reads them from `raw`."""


OCTETS = "application/octet-stream"


class Identity(msgspec.Struct, frozen=True):
    """Who asks: a name for the log and the roles held."""

    name: str
    roles: frozenset[str]


NOBODY = Identity("nobody", frozenset())


class Request(msgspec.Struct, Generic[ContextT, ParametersT, BodyT], frozen=True):
    """What a handler gets: the application's context, the caller, decoded parameters and body."""

    context: ContextT
    identity: Identity
    parameters: ParametersT
    body: BodyT
    raw: RawRequest


class Reply(msgspec.Struct, Generic[ResultT], frozen=True):
    """A handler's answer with another status or more headers than the route's own."""

    body: ResultT
    status: int | None = None
    headers: Mapping[str, str] = {}


class Stream(msgspec.Struct, frozen=True):
    """A handler's answer that is sent piece by piece until the iterator ends or the client leaves.

    Attributes:
        content_type: its media type.
        pieces: its body.
        status: HTTP status.
        headers: more of them; with Content-Length the pieces have so many bytes.
        release: called once when it was sent, or will not be.
    """

    content_type: str
    pieces: AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = {}
    release: Callable[[], None] | None = None


class Upgrade(msgspec.Struct, frozen=True):
    """A handler's answer that goes on by another protocol."""

    headers: Mapping[str, str]
    switch: Switch


Handler = Callable[[Request[Any, Any, Any]], Awaitable[Any]]
Authenticate = Callable[[RawRequest], Identity]


class Route(msgspec.Struct, frozen=True, eq=False):
    """One row of the table.

    Attributes:
        method: GET, PUT, POST or DELETE.
        path: template; `{name}` stands for one percent-decoded segment.
        role: the role that a caller must hold, or `PUBLIC`.
        summary: one line for the OpenAPI document.
        handler: called with a `Request`; returns the response type, a `Reply`, a `Stream` or an `Upgrade`.
        parameters: struct of the path's and the query's parameters.
        request: type of the JSON body, None for none, `Upload` for bytes.
        response: type of the JSON answer, None for an empty one.
        status: of an ordinary answer.
        other_statuses: of answers of the same type with another meaning, which the summary explains.
        errors: problem types that this route adds to those that each route may give.
        streams: media types that the route may send instead of JSON.
        repeated: query parameters that may be given more than once, which makes them a list.
        upgrades: WebSocket subprotocols that it speaks, and nothing else, if it has any.
    """

    method: str
    path: str
    role: str
    summary: str
    handler: Handler
    parameters: type[msgspec.Struct] = NoParameters
    request: Any = None
    response: Any = None
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    errors: tuple[problem.ProblemType, ...] = ()
    streams: tuple[str, ...] = ()
    repeated: frozenset[str] = frozenset()
    upgrades: tuple[str, ...] = ()

    @property
    def segments(self) -> tuple[str, ...]:
        """The template's segments, without the leading slash."""
        return tuple(self.path.split("/")[1:])


class Table(msgspec.Struct, frozen=True):
    """Routes that were checked, as requests look for them.

    Attributes:
        rows: the routes by how many segments their paths have; with each, those of its path.
        decoders: what reads the bodies of those that take JSON.
    """

    rows: Mapping[int, Sequence[tuple[tuple[str, ...], Route]]]
    decoders: Mapping[Route, msgspec.json.Decoder[Any]]


class App(msgspec.Struct, frozen=True):
    """A route table with all that it needs, called by the server for each request.

    Attributes:
        table: the routes.
        authenticate: says who asks.
        context: what handlers work on.
        max_body: bytes that a request's body may have.
        site: answers requests for public files, and nothing to all others, if there are any.
        is_own: whether a Host header names this server; None takes any.
        told: is told of each answer: the request, who asked, the route that was meant, and the status.
    """

    table: Table
    authenticate: Authenticate
    context: Any
    max_body: int = MAX_BODY
    site: Callable[[RawRequest], Response | None] | None = None
    is_own: Callable[[str], bool] | None = None
    told: Callable[[RawRequest, Identity, Route | None, int], None] | None = None

    async def __call__(self, raw: RawRequest) -> Response:
        """Answer one request; never raises but for cancellation and lost connections."""
        seen = _Seen()
        response = await self._answer_or_refuse(raw, seen)
        if self.told:
            self.told(raw, seen.identity, seen.route, response.status)
        return response

    async def _answer_or_refuse(self, raw: RawRequest, seen: "_Seen") -> Response:
        try:
            return await self._answer(raw, seen)
        except ProblemError as error:
            return encode_problem(error)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001  # the boundary: one broken request must not end the server
            instance = os.urandom(6).hex()
            _log.exception("Request failed instance=%s method=%s", instance, raw.method)
            failure = problem.INTERNAL(
                "cannot answer the request: internal error",
                remedy=f"look for {instance} in the server's log",
                instance=instance,
            )
            return encode_problem(failure)

    async def _answer(self, raw: RawRequest, seen: "_Seen") -> Response:
        self._check_host(raw.headers.get("host", ""))
        if self.site and (file := self.site(raw)):
            return file
        found = match(self.table, raw.method, raw.path)
        identity = NOBODY
        if not (isinstance(found, Match) and found.route.role == PUBLIC):
            identity = seen.identity = self.authenticate(raw)
            raw.note_known()
        if isinstance(found, ProblemError):
            raise found
        route = seen.route = found.route
        if route.role != PUBLIC and route.role not in identity.roles:
            raise problem.FORBIDDEN(f"cannot allow this to {identity.name}: it needs the role {route.role}")
        parameters = _decode_parameters(route, found.values, raw)
        body = await self._decode_body(route, raw)
        result = await route.handler(Request(self.context, identity, parameters, body, raw))
        return _encode(route, result)

    def _check_host(self, host: str) -> None:
        if self.is_own and not self.is_own(host):
            raise problem.MISDIRECTED(
                f"cannot answer for {host[:200]!a}: nobody here goes by that name",
                remedy="ask by the address, or give the container that name: zn container create --dns-name",
            )

    async def _decode_body(self, route: Route, raw: RawRequest) -> object:
        if route.request is Upload:
            _check_media_type(raw, OCTETS)
            return Upload()
        data = await read_body(raw, self.max_body if route.request is not None else 0)
        if route.request is None:
            return NoBody()
        _check_media_type(raw, "application/json")
        try:
            return self.table.decoders[route].decode(data)
        except msgspec.ValidationError as error:
            raise problem.invalid(error) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise problem.MALFORMED_JSON(
                f"cannot read the body: {error}", remedy="send one JSON document in UTF-8"
            ) from None


class _Seen:
    """What is known of a request so far."""

    __slots__ = ("identity", "route")

    def __init__(self) -> None:
        self.identity = NOBODY
        self.route: Route | None = None


def _check_media_type(raw: RawRequest, wanted: str) -> None:
    media_type = raw.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != wanted or "content-encoding" in raw.headers:
        raise problem.UNSUPPORTED_TYPE(
            f"cannot read a body of type {media_type[:80] or 'unknown'!a}",
            remedy=f"send {wanted} without a content encoding",
        )


def build_table(routes: Sequence[Route]) -> Table:
    """Check routes and prepare what looking for them takes.

    Raises:
        ValueError: two rows with the same method and path, or a lax request type.
    """
    rows: dict[int, list[tuple[tuple[str, ...], Route]]] = {}
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for route in routes:
        segments = route.segments
        shape = (route.method, tuple("{}" if part.startswith("{") else part for part in segments))
        if shape in seen:
            raise ValueError(f"cannot build the routes: {route.method} {route.path} is there twice")
        seen.add(shape)
        _check_strict(route)
        rows.setdefault(len(segments), []).append((segments, route))
    decoders = {route: msgspec.json.Decoder(route.request) for route in routes if route.request is not None}
    return Table(rows, decoders)


def _check_strict(route: Route) -> None:
    for kind in (route.request, route.parameters):
        config = getattr(kind, "__struct_config__", None)
        if config is not None and not config.forbid_unknown_fields:
            raise ValueError(
                f"cannot build the routes: {kind.__name__} of {route.path} allows unknown fields"
            )


class Match(msgspec.Struct, frozen=True):
    """A row of the table and the values of its path's parameters."""

    route: Route
    values: Mapping[str, str]


def match(table: Table, method: str, raw_path: str) -> Match | ProblemError:
    """Find the row for a method and a still percent-encoded path; or the 404 or 405 problem."""
    parts = tuple(raw_path.split("/")[1:])
    if "%" in raw_path:
        parts = tuple(map(urllib.parse.unquote, parts))
    rows = table.rows.get(len(parts), ())
    on_path = [found for segments, route in rows if (found := _match_path(segments, route, parts))]
    wanted = "GET" if method == "HEAD" else method
    for found in on_path:
        if found.route.method == wanted:
            return found
    if not on_path:
        return problem.NOT_FOUND(
            f"cannot find {raw_path[:200]!a}", remedy="see /v1/openapi.json for what there is"
        )
    allowed = ", ".join(sorted({found.route.method for found in on_path}))
    return problem.METHOD_NOT_ALLOWED(
        f"cannot {method[:20]} {raw_path[:200]!a}", remedy=f"use {allowed}", headers={"Allow": allowed}
    )


def _match_path(segments: tuple[str, ...], route: Route, parts: tuple[str, ...]) -> Match | None:
    values: dict[str, str] = {}
    for template, part in zip(segments, parts, strict=True):
        if template.startswith("{"):
            values[template[1:-1]] = part
        elif template != part:
            return None
    return Match(route, values)


def _decode_parameters(route: Route, values: Mapping[str, str], raw: RawRequest) -> msgspec.Struct:
    given: dict[str, object] = dict(raw.query)
    names = [name for name, _ in raw.query]
    for name in given.keys() & route.repeated:
        given[name] = [value for other, value in raw.query if other == name]
    wait = given.get(_WAIT)
    if isinstance(wait, str) and wait[-2:-1].isdecimal():
        given[_WAIT] = wait.removesuffix("s")
    once = (name for name in given if name not in route.repeated)
    twice = [name for name in once if name in values or names.count(name) > 1]
    if twice:
        raise problem.INVALID(f"cannot accept the request: parameter {twice[0][:80]!a} is given twice")
    try:
        return msgspec.convert({**given, **values}, route.parameters, strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).replace("Object", "The query", 1).replace(" - at `$.", ", parameter `")
        raise problem.INVALID(
            f"cannot accept the parameters: {reason}", remedy="see the route in /v1/openapi.json"
        ) from None


async def read_body(raw: RawRequest, limit: int) -> bytes:
    """The whole body.

    Raises:
        ProblemError: more than `limit` bytes, or not complete in time.
    """
    length = raw.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while piece := await raw.read():
                body += piece
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise problem.TIMED_OUT(
            f"cannot read the body: not complete after {BODY_TIMEOUT:.0f} s", headers={"Connection": "close"}
        ) from None
    return bytes(body)


def _too_large(limit: int) -> ProblemError:
    what = f"it has more than {limit} bytes" if limit else "this route takes none"
    return problem.TOO_LARGE(f"cannot accept the body: {what}", headers={"Connection": "close"})


def encode_problem(error: ProblemError) -> Response:
    """The answer for a problem."""
    headers = {"Content-Type": problem.CONTENT_TYPE, **_SECURITY_HEADERS, **error.headers}
    return Response(error.problem.status, headers, msgspec.json.encode(error.problem))


def _encode(route: Route, result: Any) -> Response:
    if isinstance(result, Stream):
        headers = {"Content-Type": result.content_type, **_SECURITY_HEADERS, **result.headers}
        return Response(result.status, headers, pieces=result.pieces, release=result.release)
    if isinstance(result, Upgrade):
        return Response(101, result.headers, switch=result.switch)
    reply = result if isinstance(result, Reply) else Reply(result)
    headers = {**_SECURITY_HEADERS, **reply.headers}
    status = reply.status or route.status
    if reply.body is None:
        return Response(status, headers)
    return Response(status, {**headers, "Content-Type": "application/json"}, msgspec.json.encode(reply.body))
