"""A typed client of Core-X's REST interface: TLS pinned by the certificate's fingerprint, a bearer token."""

import asyncio
import io
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import IO, Any, Generic, Self, TypeVar
from urllib.parse import quote, quote_from_bytes, urlencode

import aiohttp
import msgspec
from yarl import URL

from corex.client.pin import Pin
from corex.client.session import Attachment, UnreachableError, WrongCertificateError
from corex.http.problem import CONTENT_TYPE, Problem
from corex.wire.api import (
    CheckInfo,
    CheckList,
    EventPage,
    ExecRequest,
    ExecResult,
    Health,
    LogGap,
    LogLine,
    LogPage,
    LogSieve,
    ProcessInfo,
    ProcessList,
    SignalRequest,
    System,
)
from corex.wire.auditing import AuditPage
from corex.wire.files import FileInfo, FolderPage, Removed, Unpacked
from corex.wire.identities import IdentityInfo, IdentityList, IdentitySpec, Ticket, TicketRequest
from corex.wire.operations import Operation, OperationList
from corex.wire.plan import Difference, Layer, LayerInfo, LayerList, Plan
from corex.wire.process import ProcessSpec
from corex.wire.sessions import KUBERNETES_PROTOCOL, ExecQuery, Session, SessionList, SessionSpec, Window
from corex.wire.targets import TargetInfo, TargetList

AnswerT = TypeVar("AnswerT")
# What is uploaded: bytes, pieces as they come, or a file that is open.
Content = bytes | AsyncIterable[bytes] | IO[bytes]
_NOT_OPEN = "cannot ask Core-X: the client is not open; use it in 'async with'"
_EVERY_LINE = LogSieve()
# Seconds between pings of a WebSocket.
HEARTBEAT = 20.0

# Seconds that storage may work on what was asked for without a word.
_LONG_WORK = 600.0

_UNAUTHORIZED = 401

CONNECT_TIMEOUT = 10.0  # seconds for TCP and TLS together
ANSWER_TIMEOUT = 30.0  # seconds between two pieces of an answer, besides what the request itself asks to wait


@dataclass(frozen=True)
class Endpoint:
    """Where a Core-X answers and how to know it.

    Attributes:
        address: `host:port`, IPv6 in brackets.
        fingerprint: SHA-256 of its certificate (DER), 64 hexadecimal digits.
        token: the operator's bearer token; not in the representation, which may be logged.
    """

    address: str
    fingerprint: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Tagged(Generic[AnswerT]):
    """A resource with its ETag, for changes that shall happen only if it is still that."""

    value: AnswerT
    etag: str


class RefusedError(Exception):
    """Core-X refused a request; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        where = f" (at {problem.pointer})" if problem.pointer else ""
        remedy = f"; {problem.remedy}" if problem.remedy else ""
        super().__init__(f"{problem.detail}{where}{remedy}")
        self.problem = problem


class NotAllowedError(RefusedError):
    """Core-X does not take the token."""


class Client:
    """Use it as an asynchronous context manager.

    All that asks raises UnreachableError if Core-X does not answer, WrongCertificateError if somebody else does, and
    RefusedError with the problem if it refuses; of a token that it does not take, NotAllowedError.
    "Refused as" names types of problems besides those that every request can meet: unauthenticated, forbidden,
    invalid, timed-out, too-large, misdirected, rate-limited, internal.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._pin = Pin(bytes.fromhex(endpoint.fingerprint))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            f"https://{self._endpoint.address}",
            headers={"Authorization": f"Bearer {self._endpoint.token}"},
            connector=aiohttp.TCPConnector(ssl=self._pin),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._pin.end()
            await asyncio.sleep(0)  # in which asyncio closes their sockets

    async def health(self) -> Health:
        """Whether Core-X answers."""
        return await self._ask("GET", "/v1/health", Health)

    async def system(self) -> System:
        """The container as Core-X sees it."""
        return await self._ask("GET", "/v1/system", System)

    async def processes(self) -> list[ProcessInfo]:
        """All processes."""
        return (await self._ask("GET", "/v1/processes", ProcessList)).processes

    async def process(self, name: str) -> ProcessInfo:
        """One process. Refused as not-found."""
        return (await self.process_with_etag(name)).value

    async def process_with_etag(self, name: str) -> Tagged[ProcessInfo]:
        """One process, with the ETag of its specification. Refused as not-found."""
        return await self._ask_tagged(_path(name), ProcessInfo)

    async def put(
        self, name: str, spec: ProcessSpec, *, etag: str | None = None, new: bool = False
    ) -> ProcessInfo:
        """Declare a process or replace its specification, if it has an ETag, or is new, for the next start.

        Refused as precondition-failed, full.
        """
        return await self._ask("PUT", _path(name), ProcessInfo, body=spec, etag=etag, new=new)

    async def delete(self, name: str, *, etag: str | None = None) -> None:
        """Forget a process that does not run, if it has an ETag.

        Refused as not-found, conflict, precondition-failed, full.
        """
        await self._ask("DELETE", _path(name), None, etag=etag)

    async def start(self, name: str, wait: float = 0) -> ProcessInfo:
        """Want a process to run; the answer waits up to `wait` seconds until it does.

        Refused as not-found, conflict.
        """
        return await self._verb(name, "start", wait)

    async def stop(self, name: str, wait: float = 0) -> ProcessInfo:
        """Want it stopped; the answer waits up to `wait` seconds until it is. Refused as not-found, conflict."""
        return await self._verb(name, "stop", wait)

    async def restart(self, name: str, wait: float = 0) -> ProcessInfo:
        """Stop it if it runs, then start it. Refused as not-found, conflict."""
        return await self._verb(name, "restart", wait)

    async def reset(self, name: str, wait: float = 0) -> ProcessInfo:
        """Forget a process's earlier failures; one that waits for its restart is started now.

        Refused as not-found, conflict.
        """
        return await self._verb(name, "reset", wait)

    async def signal(self, name: str, signal: str) -> None:
        """Send a signal to those that a process's scope names. Refused as not-found, conflict."""
        await self._ask("POST", f"{_path(name)}/signal", None, body=SignalRequest(signal))

    async def plan(self) -> Tagged[Plan]:
        """What all layers say together, with its ETag."""
        return await self._ask_tagged("/v1/plan", Plan)

    async def apply(self, *, etag: str | None = None, dry_run: bool = False, wait: float = 0) -> Difference:
        """Make all what the plan says, if it is still the one of an ETag; what that did, or would do.

        Refused as precondition-failed, conflict.
        """
        query = {"dry_run": "true"} if dry_run else {"wait": str(wait)}
        return await self._ask("POST", "/v1/plan/apply", Difference, query=query, etag=etag, extra=wait)

    async def operations(self) -> list[Operation]:
        """Long work, the oldest first."""
        return (await self._ask("GET", "/v1/operations", OperationList)).operations

    async def operation(self, operation: str, wait: float = 0) -> Operation:
        """One of them; the answer waits up to `wait` seconds for its end. Refused as not-found."""
        return await self._ask("GET", _operation_path(operation), Operation, query={"wait": wait}, extra=wait)

    async def cancel(self, operation: str) -> None:
        """Cancel an operation, or forget one that has ended. Refused as not-found, conflict."""
        await self._ask("DELETE", _operation_path(operation), None)

    async def layers(self) -> list[LayerInfo]:
        """All layers, the lowest first."""
        return (await self._ask("GET", "/v1/layers", LayerList)).layers

    async def layer(self, name: str) -> LayerInfo:
        """One layer. Refused as not-found."""
        return await self._ask("GET", _layer_path(name), LayerInfo)

    async def put_layer(
        self, name: str, layer: Layer, *, etag: str | None = None, new: bool = False, dry_run: bool = False
    ) -> Difference:
        """Add or replace a layer, if it has an ETag, or is new; what applying the plan would do then.

        Refused as precondition-failed, full.
        """
        query = {"dry_run": "true"} if dry_run else {}
        path = _layer_path(name)
        return await self._ask("PUT", path, Difference, query=query, body=layer, etag=etag, new=new)

    async def delete_layer(self, name: str, *, etag: str | None = None) -> Difference:
        """Take a layer away, if it has an ETag; what applying the plan would do then.

        Refused as not-found, precondition-failed, full.
        """
        return await self._ask("DELETE", _layer_path(name), Difference, etag=etag)

    async def checks(self) -> list[CheckInfo]:
        """All checks."""
        return (await self._ask("GET", "/v1/checks", CheckList)).checks

    async def check(self, name: str) -> CheckInfo:
        """One check. Refused as not-found."""
        return await self._ask("GET", f"/v1/checks/{quote(name, safe='')}", CheckInfo)

    async def targets(self) -> list[TargetInfo]:
        """Where log lines are sent, and how it goes."""
        return (await self._ask("GET", "/v1/targets", TargetList)).targets

    async def target(self, name: str) -> TargetInfo:
        """One of them. Refused as not-found."""
        return await self._ask("GET", f"/v1/targets/{quote(name, safe='')}", TargetInfo)

    async def logs(
        self,
        name: str | Sequence[str] | None = None,
        after: int = 0,
        limit: int = 1000,
        wanted: LogSieve = _EVERY_LINE,
    ) -> LogPage:
        """A page of logs.

        Args:
            name: a process, whose own log is read by its `seq`; several, or None for all, which are read by `order`.
            after: the cursor: the number of the last line that is known.
            limit: how many lines are looked at.
            wanted: which of them are sent; gaps always are.

        Refused as not-found.
        """
        return await self._ask("GET", _logs_path(name, wanted, after=after, limit=limit), LogPage)

    async def follow(
        self, name: str | Sequence[str] | None = None, after: int = 0, wanted: LogSieve = _EVERY_LINE
    ) -> AsyncGenerator[LogLine | LogGap, None]:
        """Lines and declared gaps as they come, until Core-X ends; as in `logs`.

        A pattern that takes too long with what comes is refused then.

        Who stops earlier closes the connection with `contextlib.aclosing` around this.

        Refused as not-found.
        """
        decoder = msgspec.json.Decoder(LogLine | LogGap)
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT)
        path = _logs_path(name, wanted, after=after, follow="true")
        cursor = after
        async with await self._send("GET", path, {}, None, timeout) as answer:
            rest = b""
            async for piece in self._pieces(answer):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    record = decoder.decode(line)
                    if isinstance(record, LogGap):
                        cursor += record.lost
                    else:
                        cursor = record.seq if isinstance(name, str) else record.order
                    yield record
        if wanted.match is not None:
            # the answer had begun when the pattern took too long; a page says so
            with suppress(UnreachableError):
                await self.logs(name, cursor, wanted=wanted)

    async def events(self, after: int = 0, wait: float = 0, limit: int = 1000) -> EventPage:
        """Events after a cursor; with none yet, the answer waits for one up to `wait` seconds."""
        query = {"after": after, "wait": wait, "limit": limit}
        return await self._ask("GET", "/v1/events", EventPage, query=query, extra=wait)

    async def execute(self, request: ExecRequest) -> ExecResult:
        """Run a command to its end. Refused as cannot-run."""
        return await self._ask("POST", "/v1/exec", ExecResult, body=request, extra=request.timeout)

    async def stat(self, path: str | bytes) -> FileInfo:
        """What is at a path of the container; of a link the link itself.

        Refused as not-found, conflict, unavailable.
        """
        return await self._ask("GET", _fs("stat", path), FileInfo)

    async def folder(self, path: str | bytes, after: str = "", limit: int = 1000) -> FolderPage:
        """A page of a folder; `after` is the `next` of the page before.

        Refused as not-found, conflict, unavailable.
        """
        return await self._ask("GET", _fs("folder", path, limit=limit) + f"&after={after}", FolderPage)

    async def read_file(self, path: str | bytes) -> bytes:
        """A whole file. Refused as not-found, conflict, unavailable, range."""
        async with self.open_file(path) as pieces:
            return b"".join([piece async for piece in pieces])

    @asynccontextmanager
    async def open_file(self, path: str | bytes, start: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """A file's content from a byte on, piece by piece. Refused as not-found, conflict, unavailable, range."""
        async with self._stream(_fs("file", path), {"Range": f"bytes={start}-"} if start else {}) as pieces:
            yield pieces

    async def write_file(
        self,
        path: str | bytes,
        data: Content,
        *,
        mode: str | None = None,
        owner: str | None = None,
        etag: str | None = None,
        new: bool = False,
    ) -> FileInfo:
        """Write a file as a whole, if it has an ETag, or is new.

        Refused as not-found, conflict, unavailable, precondition-failed, full.
        """
        where = _fs("file", path, mode=mode, owner=owner)
        return await self._upload(where, data, FileInfo, _only_if(etag, new=new))

    async def delete_file(self, path: str | bytes, *, etag: str | None = None) -> None:
        """Delete what is no folder, if it has an ETag.

        Refused as not-found, conflict, unavailable, precondition-failed.
        """
        await self._ask("DELETE", _fs("file", path), None, etag=etag)

    async def make_folder(
        self, path: str | bytes, *, mode: str = "0755", owner: str | None = None, parents: bool = False
    ) -> FileInfo:
        """Make a folder, if it is not there. Refused as not-found, conflict, unavailable, full."""
        where = _fs("folder", path, mode=mode, owner=owner, parents=str(parents).lower())
        return await self._ask("PUT", where, FileInfo)

    async def delete_folder(self, path: str | bytes, *, recursive: bool = False, wait: float = 30) -> Removed:
        """Delete a folder, with all that is in it if that is asked for; an operation after `wait` seconds.

        Refused as not-found, conflict, unavailable.
        """
        where = _fs("folder", path, recursive=str(recursive).lower(), wait=wait)
        return await self._ask("DELETE", where, Removed, extra=wait)

    @asynccontextmanager
    async def open_archive(self, path: str | bytes) -> AsyncIterator[AsyncIterator[bytes]]:
        """A folder as a tar, piece by piece. Refused as not-found, conflict, unavailable."""
        async with self._stream(_fs("archive", path), {}) as pieces:
            yield pieces

    async def unpack(
        self,
        path: str | bytes,
        data: Content,
        *,
        owner: str | None = None,
        keep_owner: bool = False,
    ) -> Unpacked:
        """Unpack a tar into a folder. Refused as not-found, conflict, unavailable, full."""
        where = _fs("archive", path, owner=owner, keep_owner=str(keep_owner).lower())
        return await self._upload(where, data, Unpacked, {})

    @asynccontextmanager
    async def _stream(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        answer = await self._send("GET", path, {}, None, _timeout(), headers)
        try:
            yield self._pieces(answer)
        finally:
            answer.close()

    async def _pieces(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in answer.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _upload(
        self,
        path: str,
        data: Content,
        kind: type[AnswerT],
        only_if: Mapping[str, str],
    ) -> AnswerT:
        if self._session is None:
            raise RuntimeError(_NOT_OPEN)
        # what is refused need not be sent
        headers = {**only_if, "Content-Type": "application/octet-stream", "Expect": "100-continue"}
        data = io.BytesIO(data) if isinstance(data, bytes) else data
        try:
            async with self._session.put(
                URL(path, encoded=True), data=data, headers=headers, timeout=_timeout(_LONG_WORK)
            ) as answer:
                if answer.status >= 400:
                    raise _refusal(await self._problem(answer))
                return msgspec.json.decode(await answer.read(), type=kind)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def identities(self) -> list[IdentityInfo]:
        """Who may ask."""
        return (await self._ask("GET", "/v1/identities", IdentityList)).identities

    async def own_identity(self) -> IdentityInfo:
        """As whom, and in which role, this client's token asks."""
        found = await self._ask("GET", "/v1/identities", IdentityList)
        return next(one for one in found.identities if one.name == found.own)

    async def put_identity(self, name: str, spec: IdentitySpec) -> IdentityInfo:
        """Let somebody ask, or change what they may. Refused as conflict, full."""
        return await self._ask("PUT", f"/v1/identities/{quote(name, safe='')}", IdentityInfo, body=spec)

    async def delete_identity(self, name: str) -> None:
        """Let somebody ask no more. Refused as not-found, conflict, full."""
        await self._ask("DELETE", f"/v1/identities/{quote(name, safe='')}", None)

    async def ticket(self, path: str) -> Ticket:
        """What opens one WebSocket of a path, as its query's `ticket`, for who cannot send a token."""
        return await self._ask("POST", "/v1/tickets", Ticket, body=TicketRequest(path))

    async def metrics(self) -> str:
        """Figures as OpenMetrics' text."""
        answer = await self._send("GET", "/v1/metrics", {}, None, _timeout())
        return (await self._body(answer)).decode()

    async def openapi(self) -> dict[str, Any]:
        """The interface as an OpenAPI 3.1 document."""
        return await self._ask("GET", "/v1/openapi.json", dict[str, Any])

    async def audit(self, after: int = 0, limit: int = 1000) -> AuditPage:
        """Who did what, from where, after a cursor."""
        return await self._ask("GET", "/v1/audit", AuditPage, query={"after": after, "limit": limit})

    async def sessions(self) -> list[Session]:
        """All sessions."""
        return (await self._ask("GET", "/v1/sessions", SessionList)).sessions

    async def create_session(self, spec: SessionSpec) -> Session:
        """Run a command to attach to. Refused as cannot-run, conflict."""
        return await self._ask("POST", "/v1/sessions", Session, body=spec)

    async def session(self, session: str) -> Session:
        """One session. Refused as not-found."""
        return await self._ask("GET", _session_path(session), Session)

    async def delete_session(self, session: str) -> None:
        """Hang a session up. Refused as not-found."""
        await self._ask("DELETE", _session_path(session), None)

    async def resize_session(self, session: str, window: Window) -> Session:
        """Give its terminal another size. Refused as not-found."""
        return await self._ask("POST", f"{_session_path(session)}/resize", Session, body=window)

    def attach(self, session: str, after: int = 0) -> Attachment:
        """Be attached to a session: an asynchronous context manager. Refused as not-found."""
        return Attachment(self, f"{_session_path(session)}/attach", after=after)

    def attach_process(self, name: str, after: int = 0) -> Attachment:
        """Be attached to the terminal of a declared process: an asynchronous context manager.

        Refused as not-found, conflict.
        """
        return Attachment(self, f"{_path(name)}/attach", after=after)

    async def kubernetes_exec(self, query: ExecQuery) -> aiohttp.ClientWebSocketResponse:
        """Run a command that ends with the WebSocket, which speaks Kubernetes' `v5.channel.k8s.io`.

        Refused as cannot-run, conflict.
        """
        given = msgspec.to_builtins(query)
        words = {
            name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()
        }
        return await self.websocket(f"/v1/exec?{urlencode(words, doseq=True)}", {}, KUBERNETES_PROTOCOL)

    async def websocket(
        self, path: str, query: Mapping[str, str], subprotocol: str
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket of Core-X's.

        Raises:
            RefusedError: Core-X refused it.
            UnreachableError: it did not answer.
        """
        if self._session is None:
            raise RuntimeError(_NOT_OPEN)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._session.ws_connect(
                    path, params=query, protocols=(subprotocol,), heartbeat=HEARTBEAT, max_msg_size=0
                )
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refused_websocket(path, error.status) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _refused_websocket(self, path: str, status: int) -> RefusedError:
        """Why there is no WebSocket: the refusal's document is gone with its connection."""
        try:
            await self._ask("GET", path, None)  # the same thing without a WebSocket
        except RefusedError as refused:
            if refused.problem.status == status:
                return refused
        detail = f"cannot open a WebSocket: the answer has status {status}"
        return RefusedError(Problem("about:blank", "No WebSocket", status, detail))

    async def _verb(self, name: str, verb: str, wait: float) -> ProcessInfo:
        query = {"wait": wait}
        return await self._ask("POST", f"{_path(name)}/{verb}", ProcessInfo, query=query, extra=wait)

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[AnswerT] | None,
        *,
        body: msgspec.Struct | None = None,
        query: Mapping[str, float | str] | None = None,
        extra: float = 0,
        etag: str | None = None,
        new: bool = False,
    ) -> AnswerT:
        values = {name: str(value) for name, value in (query or {}).items()}
        answer = await self._send(method, path, values, body, _timeout(extra), _only_if(etag, new=new))
        return await self._decoded(answer, kind)

    async def _ask_tagged(self, path: str, kind: type[AnswerT]) -> Tagged[AnswerT]:
        answer = await self._send("GET", path, {}, None, _timeout())
        return Tagged(await self._decoded(answer, kind), answer.headers["ETag"])

    async def _decoded(self, answer: aiohttp.ClientResponse, kind: type[AnswerT] | None) -> AnswerT:
        data = await self._body(answer)
        nothing: Any = None
        return nothing if kind is None else msgspec.json.decode(data, type=kind)

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        try:
            return await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: msgspec.Struct | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # of the socket, not of this call
        only_if: Mapping[str, str] = MappingProxyType({}),
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError(_NOT_OPEN)
        data = None if body is None else msgspec.json.encode(body)
        headers = {**only_if} if body is None else {**only_if, "Content-Type": "application/json"}
        try:
            answer = await self._session.request(
                method,
                URL(path, encoded=True),
                params=query or None,
                data=data,
                headers=headers,
                timeout=timeout,
            )
            if answer.status >= 400:
                raise _refusal(await self._problem(answer))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        return answer

    async def _problem(self, answer: aiohttp.ClientResponse) -> Problem:
        data = await answer.read()
        if answer.content_type == CONTENT_TYPE:
            return msgspec.json.decode(data, type=Problem)
        where = self._endpoint.address
        raise UnreachableError(f"cannot understand {where}: status {answer.status}; is it Core-X's address?")

    def _unreachable(self, error: Exception) -> UnreachableError | WrongCertificateError:
        where = self._endpoint.address
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            got = error.got.hex()
            return WrongCertificateError(
                f"cannot trust {where}: its certificate is {got}, expected {self._endpoint.fingerprint}; "
                "do not go on unless the container was made anew"
            )
        reason = str(error) or "no answer in time"
        return UnreachableError(f"cannot reach Core-X at {where}: {reason}; is the container running?")


def _timeout(extra: float = 0) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=ANSWER_TIMEOUT + extra)


def _refusal(problem: Problem) -> RefusedError:
    return NotAllowedError(problem) if problem.status == _UNAUTHORIZED else RefusedError(problem)


def _only_if(etag: str | None, *, new: bool) -> dict[str, str]:
    return ({"If-Match": etag} if etag else {}) | ({"If-None-Match": "*"} if new else {})


def _fs(what: str, path: str | bytes, **parameters: object) -> str:
    """A route of files with its query; names are bytes."""
    quoted = quote_from_bytes(path if isinstance(path, bytes) else os.fsencode(path), safe="/")
    given = urlencode({name: value for name, value in parameters.items() if value is not None})
    return f"/v1/fs/{what}?path={quoted}" + (f"&{given}" if given else "")


def _operation_path(operation: str) -> str:
    return f"/v1/operations/{quote(operation, safe='')}"


def _layer_path(name: str) -> str:
    return f"/v1/layers/{quote(name, safe='')}"


def _path(name: str) -> str:
    return f"/v1/processes/{quote(name, safe='')}"


def _session_path(session: str) -> str:
    return f"/v1/sessions/{quote(session, safe='')}"


def _logs_path(name: str | Sequence[str] | None, wanted: LogSieve, **parameters: object) -> str:
    """A route of logs with its query."""
    path, several = (f"{_path(name)}/logs", ()) if isinstance(name, str) else ("/v1/logs", name or ())
    given = {**parameters, **msgspec.to_builtins(wanted), "process": several}
    query = urlencode({key: value for key, value in given.items() if value is not None}, doseq=True)
    return f"{path}?{query}"
