"""HTTP/1.1 connections: h11 knows the protocol, asyncio moves the bytes, a route table answers.

h11 rather than aiohttp's server: importing it takes a seventh of the time, and an emulated node's boot waited for
that import longer than for any other (docs/decisions/0007-h11-on-the-node.md).

Sources: RFC 9110 and RFC 9112; h11's documentation of its states.
"""

import asyncio
import contextlib
import functools
import operator
import ssl
import time
import urllib.parse
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import h11
import msgspec

# Seconds that a connection may take for a request's head, idle time before it included.
HEAD_TIMEOUT = 60.0
HANDSHAKE_TIMEOUT = 10.0
MAX_HEAD = 16 << 10
_PIECE = 64 << 10
# Connections at a time whose other end has not shown yet who it is: each takes some 100 KiB.
MOST_STRANGERS = 32
# Connections at a time that wait for such a place.
_MOST_WAITING = 192
# Seconds that one of them is waited for while others wait for its place: a client may begin many at a time, and
# thirty handshakes take a slow machine that long.
_PATIENCE = 5.0
# Seconds without a connection until a server is at rest.
_REST = 1.0
# Seconds that a client which still sends may take to see an answer that did not want the rest.
_LINGER = 1.0


# Goes on with a connection by another protocol: what to read from, what to write to, and what was read already.
Switch = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


class Response(msgspec.Struct, frozen=True):
    """An answer: a whole body, or pieces that are sent as they come, or another protocol.

    Attributes:
        status: HTTP status.
        headers: besides those of framing.
        body: the whole body, where there are no pieces.
        pieces: the body piece by piece.
        switch: what follows an answer of 101.
        release: called once when the answer was sent, or will not be: lets go of what the pieces come from.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    pieces: AsyncIterator[bytes] | None = None
    switch: Switch | None = None
    release: Callable[[], None] | None = None


class RawRequest:
    """A request as it came; the body is read on demand.

    Attributes:
        method: as sent.
        path: still percent-encoded, without the query.
        query: decoded names and values, in order.
        headers: names in lower case; the first of equal ones.
        remote: the client's address, empty on a Unix socket.
    """

    def __init__(self, connection: "Connection", head: h11.Request) -> None:
        target = head.target.decode("ascii")
        self.method = head.method.decode("ascii")
        self.path, _, query = target.partition("?")
        self._query = query
        self.query = tuple(urllib.parse.parse_qsl(query, keep_blank_values=True)) if query else ()
        self.headers: dict[str, str] = {}
        for name, value in head.headers:
            self.headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
        self.remote = connection.remote
        self._connection = connection

    def octets(self, name: str) -> bytes:
        """The bytes of a query's parameter, which need not be UTF-8; nothing without one."""
        pairs = urllib.parse.parse_qsl(self._query, keep_blank_values=True, errors="surrogateescape")
        return next((value.encode(errors="surrogateescape") for key, value in pairs if key == name), b"")

    @property
    def content_length(self) -> int | None:
        """The body's length as announced; None if it comes in chunks, or there is none."""
        length = self.headers.get("content-length")
        return int(length) if length else None

    @property
    def peer_certificate(self) -> Mapping[str, Any]:
        """The client certificate that TLS has verified, as `ssl.SSLSocket.getpeercert` gives it, or nothing."""
        return self._connection.peer_certificate

    def note_known(self) -> None:
        """Who asks has shown who it is: its connection stays, however many strangers come."""
        self._connection.note_known()

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end. Raises ConnectionError if the client leaves before."""
        return await self._connection.read_body()


App = Callable[[RawRequest], Awaitable[Response]]
# Answers a request that is not valid HTTP; called with the reason.
Malformed = Callable[[str], Response]


class Connection:
    """One connection, from its first request to its end."""

    def __init__(
        self,
        app: App,
        malformed: Malformed,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        note_known: Callable[[], None],
    ) -> None:
        self.note_known = note_known
        peer = writer.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else ""
        self.peer_certificate: Mapping[str, Any] = writer.get_extra_info("peercert") or {}
        self.idle = True
        self._app, self._malformed = app, malformed
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._body_ended = asyncio.Event()

    async def run(self) -> None:
        """Answer requests until either side ends the connection."""
        try:
            while await self._one():
                pass
            await self._linger()
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            self._writer.transport.abort()
        except asyncio.CancelledError:
            self._writer.transport.abort()  # TLS would wait for the client's goodbye, which may never come
            raise
        finally:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _one(self) -> bool:
        """Answer one request; False if it was the last."""
        self.idle = True
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                head = await self._event()
        except h11.RemoteProtocolError as error:
            await self._send(self._malformed(str(error)), head_only=False)
            return False
        if not isinstance(head, h11.Request):
            return False
        self.idle = False
        self._body_ended.clear()
        switch = await self._while_there(self._respond(RawRequest(self, head)))
        if switch:
            await switch(self._reader, self._writer, self._http.trailing_data[0])
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _event(self) -> object:
        """h11's next event, with more bytes from the client as it needs them."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(_PIECE))
        return event

    async def read_body(self) -> bytes:
        """The next piece of the request's body; empty at its end."""
        try:
            event = b"" if self._body_ended.is_set() else await self._event()
        except h11.RemoteProtocolError as error:
            raise ConnectionResetError(f"the body is cut: {error}") from None
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._body_ended.set()
        return b""

    async def _while_there(self, response: Awaitable[Switch | None]) -> Switch | None:
        """What comes of answering. Raises ConnectionResetError if the client leaves before."""
        answering = asyncio.ensure_future(response)
        leaving = asyncio.ensure_future(self._wait_for_leaving())
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone = not answering.done()
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        if gone:
            raise ConnectionResetError("the client left")
        return answering.result()

    async def _wait_for_leaving(self) -> None:
        """Wait until the client, whose request is complete, closes; what it sends before is kept for later."""
        await self._body_ended.wait()
        data = await self._reader.read(_PIECE)
        self._http.receive_data(data)
        if data:
            await asyncio.Event().wait()

    async def _respond(self, request: RawRequest) -> Switch | None:
        response = await self._app(request)
        if response.switch:
            head = h11.InformationalResponse(status_code=101, headers=list(response.headers.items()))
            await self._write(head)
        else:
            await self._send(response, head_only=request.method == "HEAD")
        return response.switch

    async def _send(self, response: Response, *, head_only: bool) -> None:
        try:
            await self._send_all(response, head_only=head_only)
        finally:
            if response.release:
                response.release()

    async def _send_all(self, response: Response, *, head_only: bool) -> None:
        headers = [("Date", _date()), *response.headers.items(), *_framing(response)]
        if self._leaves_body() and "Connection" not in response.headers:
            headers.append(
                ("Connection", "close")
            )  # the client must not send another request behind its body
        head = h11.Response(status_code=response.status, headers=headers)
        if response.pieces is None:
            body = [] if head_only or not response.body else [h11.Data(data=response.body)]
            await self._write(head, *body, h11.EndOfMessage())
            return
        await self._write(head)
        if not head_only:
            async for piece in response.pieces:
                await self._write(h11.Data(data=piece))
        await self._write(h11.EndOfMessage())

    def _leaves_body(self) -> bool:
        """Whether some of the request's body was not read."""
        if self._http.their_state is h11.SEND_BODY:
            with contextlib.suppress(h11.RemoteProtocolError):
                self._http.next_event()  # the end of the request, if it has no body
        return self._http.their_state is h11.SEND_BODY

    async def _write(self, *events: h11.Event) -> None:
        """Send events together: over TLS each write is a record and a packet of its own."""
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        await self._writer.drain()

    async def _linger(self) -> None:
        """Let a client that still sends see the answer: closing on unread bytes would reset the connection."""
        if self._http.their_state is not h11.SEND_BODY:
            return
        if self._writer.can_write_eof():  # TLS has no half-closed connections
            self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._reader.read(_PIECE):
                    pass


def _date() -> str:
    """The time by this machine's clock (RFC 9110, sections 5.6.7 and 6.6.1)."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def _framing(response: Response) -> list[tuple[str, str]]:
    """h11 sends pieces in chunks by itself, unless their length is known already.

    204 and 304 have no body, and say no length of none (RFC 9110, 8.6).
    """
    has_no_length = response.pieces or response.status in (204, 304)
    return [] if has_no_length else [("Content-Length", str(len(response.body)))]


class Strangers:
    """Connections whose other end has not shown yet who it is: TLS and HTTP take memory of the container for each.

    A few have a place. The others wait for one before they begin TLS, which costs next to nothing; while somebody
    waits, nobody keeps a place for long without having shown anything. So no number of them takes more memory than
    those few. Who came last is the next to get a place: behind many who say nothing, it is whoever has a token.
    """

    def __init__(self) -> None:
        # Since when each has its place, on the loop's clock.
        self._since: dict[asyncio.WriteTransport, float] = {}
        self._queue: deque[tuple[asyncio.WriteTransport, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def admit(self, transport: asyncio.WriteTransport) -> None:
        """Wait for a place. Raises ConnectionAbortedError: too many came later."""
        loop = asyncio.get_running_loop()
        if len(self._since) < MOST_STRANGERS:
            self._since[transport] = loop.time()
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.append((transport, turn))
        if len(self._queue) > _MOST_WAITING:
            first, never = self._queue.popleft()
            first.abort()
            if not never.done():
                never.set_exception(ConnectionAbortedError())
        self._watch()
        await turn

    def replace(self, transport: asyncio.WriteTransport, by: asyncio.WriteTransport) -> None:
        """One goes on as another, in the same place."""
        since = self._since.pop(transport, None)
        if since is not None:
            self._since[by] = since

    def leave(self, transport: asyncio.WriteTransport) -> None:
        """One is known now, or gone."""
        if self._since.pop(transport, None) is None:
            return
        while self._queue and len(self._since) < MOST_STRANGERS:
            following, turn = self._queue.pop()
            if not turn.done():
                self._since[following] = asyncio.get_running_loop().time()
                turn.set_result(None)
        self._watch()

    def _watch(self) -> None:
        if self._queue and not self._timer:
            due = min(self._since.values()) + _PATIENCE
            self._timer = asyncio.get_running_loop().call_at(due, self._lose_patience)

    def _lose_patience(self) -> None:
        """As many as wait get a place, of those who have had theirs for longest."""
        self._timer = None
        late = asyncio.get_running_loop().time() - _PATIENCE
        for transport, since in sorted(self._since.items(), key=operator.itemgetter(1)):
            if since > late or not self._queue:
                break
            self.leave(transport)
            transport.abort()
        self._watch()


class Connections:
    """Makes the protocol object of each new connection, up to a number of them.

    Args:
        app: answers.
        malformed: answers what is not HTTP.
        most: how many there may be at a time.
        at_rest: called when there has been none for a second, if anybody wants to know.
    """

    def __init__(
        self,
        app: App,
        malformed: Malformed,
        most: Callable[[], int],
        at_rest: Callable[[], None] | None = None,
    ) -> None:
        self._app, self._malformed, self._most, self._at_rest = app, malformed, most, at_rest
        self._strangers = Strangers()
        self._open: dict[asyncio.Task[None], Connection] = {}
        self._arriving: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None

    def __call__(self) -> asyncio.StreamReaderProtocol:
        """A protocol object for the running loop."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=_PIECE), self._accept)

    def let_in(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        """Begin TLS with who has come, as soon as there is a place."""
        transport.pause_reading()  # what comes is for TLS
        if len(self._open) >= self._most():
            transport.abort()
            return
        arriving = asyncio.get_running_loop().create_task(self._let_in(transport, tls))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)

    async def _let_in(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        loop, protocol = asyncio.get_running_loop(), self()
        try:
            await self._strangers.admit(transport)
            encrypted = await loop.start_tls(
                transport, protocol, tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
            )
            if encrypted:  # asyncio has none where the other end hung up without a word
                self._strangers.replace(transport, encrypted)
                protocol.connection_made(encrypted)
        except OSError:  # no TLS, another one, too late, or gone
            pass
        except asyncio.CancelledError:
            transport.abort()
            raise
        finally:
            self._strangers.leave(transport)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, leave = asyncio.current_task(), functools.partial(self._strangers.leave, writer.transport)
        if task is None or len(self._open) >= self._most():
            writer.transport.abort()
            leave()
            return
        connection = Connection(self._app, self._malformed, reader, writer, leave)
        self._open[task] = connection
        self._rest()
        try:
            await connection.run()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            leave()
            del self._open[task]
            self._rest()

    def _rest(self) -> None:
        """Tell of it once for all connections of a time: many come one after the other."""
        if self._resting:
            self._resting.cancel()
            self._resting = None
        if self._at_rest and not self._open:
            self._resting = asyncio.get_running_loop().call_later(_REST, self._at_rest)

    async def shutdown(self, grace: float) -> None:
        """End idle connections at once, let requests under way end for at most `grace` seconds, end the rest."""
        for arriving in self._arriving:
            arriving.cancel()
        for task, connection in self._open.items():
            if connection.idle:
                task.cancel()
        tasks = list(self._open)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
