"""WebSockets (RFC 6455): wsproto knows the frames, asyncio moves the bytes.

Messages come and go whole. There is no compression: what a terminal shows and what somebody types would share it, and
each connection would keep its windows (RFC 7692, section 8).
"""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, generate_accept_token

from corex.http import problem
from corex.http.connection import RawRequest
from corex.http.routes import Upgrade

MAX_MESSAGE = 1 << 20
# Seconds without a word from the client until it is asked for one, and until it counts as gone.
PING_AFTER, GONE_AFTER = 20.0, 60.0
# Seconds that a client may take to read what fills its connection.
SEND_DEADLINE = 30.0
# Seconds that a client may take to answer a close.
CLOSE_DEADLINE = 2.0
VERSION = "13"
_PIECE = 64 << 10
_KEY_BYTES = 16
# RFC 6455, section 7.4.1; the last one is never sent.
NORMAL, GOING_AWAY, TOO_BIG, POLICY, TRY_LATER = 1000, 1001, 1009, 1008, 1013
_NO_CLOSE = 1006
_LONGEST_REASON = 123


class ClosedError(Exception):
    """The WebSocket is over: by a close of the client's, with its code and reason, or without a word (1006)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code}: {reason}" if reason else f"closed with {code}")
        self.code = code


class WebSocket:
    """The server's end of one, whose handshake is done."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, read: bytes) -> None:
        """Go on with a connection from which `read` came already."""
        self._reader, self._writer = reader, writer
        self._frames = Connection(ConnectionType.SERVER, trailing_data=read)
        self._pieces: list[str | bytes] = []
        self._size = 0

    async def receive(self) -> str | bytes:
        """The next whole message.

        Raises:
            ClosedError: there is none any more.
        """
        while True:
            event = next(self._frames.events(), None)  # what follows a whole message is for later
            if event is None:
                self._frames.receive_data(await self._read() or None)
                continue
            message = await self._take(event)
            if message is not None:
                return message

    async def _take(self, event: Event) -> str | bytes | None:
        """A message, if the event ends one."""
        if isinstance(event, Message):
            return await self._gather(event)
        if isinstance(event, Ping):
            await self._send(event.response())
        elif isinstance(event, CloseConnection):
            if event.code != _NO_CLOSE:
                await self._send(event.response())
            raise ClosedError(int(event.code), event.reason or "")
        return None

    async def _gather(self, event: Message[Any]) -> str | bytes | None:
        piece = event.data if isinstance(event.data, str) else bytes(event.data)
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > MAX_MESSAGE:
            await self.close(TOO_BIG, f"a message has more than {MAX_MESSAGE} bytes")
            raise ClosedError(TOO_BIG, "a message was too big")
        if not event.message_finished:
            return None
        pieces, self._pieces, self._size = self._pieces, [], 0
        return "".join(map(str, pieces)) if isinstance(piece, str) else b"".join(map(_bytes, pieces))

    async def _read(self) -> bytes:
        """Bytes of the client, empty at their end; who is silent for too long is gone."""
        silent = 0.0
        while True:
            try:
                async with asyncio.timeout(PING_AFTER):
                    data = await self._reader.read(_PIECE)
            except TimeoutError:
                silent += PING_AFTER
                if silent >= GONE_AFTER:
                    raise ClosedError(_NO_CLOSE, f"it was silent for {GONE_AFTER:.0f} s") from None
                await self._send(Ping())
                continue
            except OSError as error:
                raise ClosedError(_NO_CLOSE, error.strerror or "the connection broke") from None
            if not data and self._frames.state is ConnectionState.CLOSED:
                raise ClosedError(_NO_CLOSE, "")
            return data

    async def send(self, message: str | bytes) -> None:
        """Send a whole message, as text or as bytes.

        Raises:
            ClosedError: the client has closed, or did not read for too long.
        """
        await self._send(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    async def _send(self, event: Event) -> None:
        try:
            self._writer.write(self._frames.send(event))
            async with asyncio.timeout(SEND_DEADLINE):
                await self._writer.drain()
        except (LocalProtocolError, ConnectionError) as error:
            raise ClosedError(_NO_CLOSE, str(error)) from None
        except TimeoutError:
            self._writer.transport.abort()
            raise ClosedError(_NO_CLOSE, f"it did not read for {SEND_DEADLINE:.0f} s") from None

    async def close(self, code: int, reason: str = "") -> None:
        """Say goodbye, and wait a moment for the answer."""
        short = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        with contextlib.suppress(ClosedError, TimeoutError):
            await self._send(CloseConnection(code=code, reason=short))
            async with asyncio.timeout(CLOSE_DEADLINE):
                while data := await self._read():
                    self._frames.receive_data(data)
                    if any(isinstance(event, CloseConnection) for event in self._frames.events()):
                        return


def _bytes(piece: str | bytes) -> bytes:
    return piece if isinstance(piece, bytes) else piece.encode()


def upgrade(
    raw: RawRequest, subprotocols: Sequence[str], serve: Callable[[WebSocket, str], Awaitable[None]]
) -> Upgrade:
    """Answer a request for a WebSocket.

    Args:
        raw: the request.
        subprotocols: what the route speaks; the first of the client's that is among them is taken.
        serve: gets the WebSocket and the subprotocol; when it returns the WebSocket is closed.

    Raises:
        ProblemError: 426 if the request is for none, 403 if another site's page asks, 422 for no subprotocol in
            common.
    """
    headers = raw.headers
    connection = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in connection:
        raise _upgrade_required("the request asks for no WebSocket")
    if headers.get("sec-websocket-version", "") != VERSION:
        raise _upgrade_required(f"it asks for another version of WebSocket than {VERSION}")
    _check_origin(headers)
    key = headers.get("sec-websocket-key", "")
    try:
        whole = len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise problem.INVALID("cannot open the WebSocket: Sec-WebSocket-Key is no base64 of 16 bytes")
    offered = [word.strip() for word in headers.get("sec-websocket-protocol", "").split(",")]
    chosen = next((word for word in offered if word in subprotocols), "")
    if not chosen:
        raise problem.INVALID(
            "cannot open the WebSocket: it offers no subprotocol that is spoken here",
            remedy=f"offer {' or '.join(subprotocols)} in Sec-WebSocket-Protocol",
        )

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, read: bytes) -> None:
        await _serve(WebSocket(reader, writer, read), chosen, serve)

    answer = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": generate_accept_token(key.encode()).decode(),
        "Sec-WebSocket-Protocol": chosen,
    }
    return Upgrade(answer, switch)


async def _serve(
    websocket: WebSocket, subprotocol: str, serve: Callable[[WebSocket, str], Awaitable[None]]
) -> None:
    try:
        await serve(websocket, subprotocol)
    except ClosedError:
        return
    except asyncio.CancelledError:
        await websocket.close(GOING_AWAY, "Core-X ends")
        raise
    await websocket.close(NORMAL)


def _check_origin(headers: Mapping[str, str]) -> None:
    """Browsers say whose page asks, and ask for pages of others all the same (RFC 6455, section 10.2).

    That the host is one of ours was looked at before.
    """
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"https://{headers.get('host', '').lower()}":
        raise problem.FORBIDDEN(f"cannot open the WebSocket for a page of {origin[:200]!a}")


def _upgrade_required(why: str) -> problem.ProblemError:
    headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": VERSION}
    remedy = "ask for a WebSocket (RFC 6455)"
    return problem.UPGRADE_REQUIRED(f"cannot answer by HTTP: {why}", remedy=remedy, headers=headers)
