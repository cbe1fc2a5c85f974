"""Being attached to a session: its output in order, input that arrives once, over connections that come and go."""

import asyncio
import secrets
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

import aiohttp
import msgspec

from corex.wire import sessions as wire
from corex.wire.api import Exit
from corex.wire.sessions import FIRST_CREDIT, INPUT_AHEAD, SESSION_PROTOCOL, FromClient, FromServer, Window

# Seconds between attempts to come back, and until it is given up.
AGAIN_AFTER, GIVE_UP_AFTER = 0.5, 30.0
_HEAD = struct.Struct("!BQ")
_PIECE = 32 * 1024
_POLICY, _TRY_LATER = 1008, 1013
_decoder = msgspec.json.Decoder(FromServer)


class BrokenError(Exception):
    """Core-X ended the attachment: the reason."""


class UnreachableError(Exception):
    """Core-X did not answer, or something else did."""


class WrongCertificateError(Exception):
    """Who answers has another certificate than the one that is pinned."""


class Opener(Protocol):
    """What opens WebSockets."""

    async def websocket(
        self, path: str, query: Mapping[str, str], subprotocol: str
    ) -> aiohttp.ClientWebSocketResponse:
        """One, with a subprotocol. Raises UnreachableError, WrongCertificateError."""


class Attachment:
    """Use it as an asynchronous context manager, and read `output` until it ends."""

    def __init__(self, opener: Opener, path: str, *, after: int = 0) -> None:
        """Prepare; `path` is of the WebSocket."""
        self.exit: Exit | None = None
        self.lost = 0
        self.offset = after
        self._opener, self._path = opener, path
        # Under the same name Core-X knows what arrived of an earlier connection.
        self._name = secrets.token_hex(8)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._sent = self._accepted = 0
        self._unaccepted: deque[tuple[int, bytes]] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._ends_input = False
        self._window: Window | None = None

    async def __aenter__(self) -> Self:
        self._socket = await self._open()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        query = {"after": str(self.offset), "client": self._name}
        return await self._opener.websocket(self._path, query, SESSION_PROTOCOL)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces of output, each with its stream (`corex.wire.sessions.OUTPUT` or `ERRORS`), to the command's end.

        A connection that breaks is made anew; nothing is read twice. Afterwards `exit` says how the command ended.

        Raises:
            BrokenError: Core-X refuses to go on.
            UnreachableError: there was no way back to it for half a minute.
        """
        credit = FIRST_CREDIT
        while True:
            if self._socket is None:
                self._socket = await self._come_back()
                credit = FIRST_CREDIT
            message = await self._socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                stream, offset = _HEAD.unpack_from(message.data)
                data = message.data[_HEAD.size :]
                self.offset = offset + len(data)
                yield stream, data
                credit -= len(data)
                if credit < FIRST_CREDIT // 2:
                    await self._say(wire.Credit(FIRST_CREDIT - credit))
                    credit = FIRST_CREDIT
            elif message.type is aiohttp.WSMsgType.TEXT:
                await self._take(_decoder.decode(message.data))
                if self.exit is not None:
                    return
            else:
                self._check_close(message)
                self._socket = None

    async def _take(self, said: FromServer) -> None:
        match said:
            case wire.Hello(after, accepted):
                self.lost += after - self.offset
                self.offset = after
                self._note_accepted(accepted)
                await self._catch_up()
            case wire.Lost(count):
                self.lost += count
                self.offset += count
            case wire.Accepted(count):
                self._note_accepted(count)
            case wire.Ended(ended):
                self.exit = ended

    def _note_accepted(self, count: int) -> None:
        self._accepted = max(self._accepted, count)
        while self._unaccepted and self._unaccepted[0][0] + len(self._unaccepted[0][1]) <= count:
            self._unaccepted.popleft()
        self._room.set()

    async def _catch_up(self) -> None:
        """Send what a connection that broke may not have carried."""
        for offset, data in tuple(self._unaccepted):
            await self._send(offset, data)
        if self._window:
            await self._say(wire.Resize(self._window))
        if self._ends_input:
            await self._say(wire.EndOfInput())

    async def _come_back(self) -> aiohttp.ClientWebSocketResponse:
        deadline = asyncio.get_running_loop().time() + GIVE_UP_AFTER
        while True:
            try:
                return await self._open()
            except UnreachableError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(AGAIN_AFTER)

    def _check_close(self, message: aiohttp.WSMessage) -> None:
        code = self._socket.close_code if self._socket else None
        if message.type is aiohttp.WSMsgType.CLOSE and code not in (None, _TRY_LATER):
            raise BrokenError(str(message.extra or f"closed with {code}"))

    async def write(self, data: bytes) -> None:
        """Send input; waits while Core-X has not accepted much of what was sent before."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            while self._sent - self._accepted > INPUT_AHEAD - _PIECE:
                self._room.clear()
                await self._room.wait()
            offset, self._sent = self._sent, self._sent + len(piece)
            self._unaccepted.append((offset, piece))
            await self._send(offset, piece)

    async def end_input(self) -> None:
        """No more input."""
        self._ends_input = True
        await self._say(wire.EndOfInput())

    async def resize(self, window: Window) -> None:
        """Give the terminal another size."""
        self._window = window
        await self._say(wire.Resize(window))

    async def _send(self, offset: int, data: bytes) -> None:
        """Over a connection that is broken nothing goes: `output` makes it anew and sends it again."""
        if self._socket is not None:
            with suppress(ConnectionError, aiohttp.ClientError):
                await self._socket.send_bytes(_HEAD.pack(wire.INPUT, offset) + data)

    async def _say(self, what: FromClient) -> None:
        if self._socket is not None:
            with suppress(ConnectionError, aiohttp.ClientError):
                await self._socket.send_str(msgspec.json.encode(what).decode())
