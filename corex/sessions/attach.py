"""What is said on a session's WebSocket, by each of the two subprotocols."""

import asyncio
import os
import struct
from collections.abc import Awaitable
from contextlib import suppress

import msgspec

from corex.http.websocket import GOING_AWAY, POLICY, TRY_LATER, WebSocket
from corex.process.logs import Bell
from corex.process.model import exit_code_of
from corex.process.stage import Stage, Viewer
from corex.wire import sessions as wire
from corex.wire.api import Exit
from corex.wire.sessions import FIRST_CREDIT, INPUT_AHEAD, FromClient, FromServer, Window

# Seconds that a client may keep output waiting that it has given no credit for.
STALL = 30.0
# Bytes of output in one message.
_PIECE = 32 * 1024
_HEAD = struct.Struct("!BQ")
# Kubernetes' channels; the last one names a channel that is over.
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_from_client = msgspec.json.Decoder(FromClient)


class KubernetesSize(msgspec.Struct, frozen=True, rename="pascal"):
    """A terminal's size as Kubernetes' clients send it."""

    width: int
    height: int


_size = msgspec.json.Decoder(KubernetesSize)


class WrongMessageError(Exception):
    """The client broke the subprotocol: the reason."""


async def attach(
    websocket: WebSocket, session: Stage, viewer: Viewer, client: str, *, may_write: bool
) -> None:
    """Serve one client by our own subprotocol, until the session ends or either side leaves."""
    own = _Own(websocket, session, viewer, client, may_write)
    await _both(websocket, own.send(), own.take())


async def attach_kubernetes(
    websocket: WebSocket, session: Stage, viewer: Viewer, streams: frozenset[int], *, may_write: bool
) -> None:
    """The same by Kubernetes' channels; `streams` are those whose output is wanted."""
    channels = _Channels(websocket, session, viewer, streams, may_write)
    await _both(websocket, channels.send(), channels.take())


async def _both(websocket: WebSocket, sending: Awaitable[None], taking: Awaitable[None]) -> None:
    """Send and take until the first of them ends."""
    tasks = [asyncio.ensure_future(sending), asyncio.ensure_future(taking)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        done = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    try:
        for task in done:
            task.result()
    except WrongMessageError as error:
        await websocket.close(POLICY, str(error))
    except TimeoutError:
        await websocket.close(TRY_LATER, f"no credit came for {STALL:.0f} s: come back from the last offset")


class _Own:
    """One client of ours."""

    def __init__(
        self, websocket: WebSocket, session: Stage, viewer: Viewer, client: str, may_write: bool
    ) -> None:
        self._websocket, self._session, self._viewer = websocket, session, viewer
        self._client, self._may_write = client, may_write
        self._credit = FIRST_CREDIT
        self._told_accepted = session.accepted(client)
        self._told_window = session.window

    async def send(self) -> None:
        """Say what happens, in order."""
        session, viewer = self._session, self._viewer
        await self._say(wire.Hello(viewer.offset, self._told_accepted, self._told_window))
        while True:
            await self._say_changes()
            lost = session.ring.start - viewer.offset
            if lost > 0:
                await self._say(wire.Lost(lost))
                viewer.offset += lost
            piece = session.ring.after(viewer.offset, min(_PIECE, self._credit))
            if piece and piece.data:
                await self._websocket.send(_HEAD.pack(piece.stream, piece.offset) + piece.data)
                self._credit -= len(piece.data)
                viewer.offset += len(piece.data)
                session.pace()
            elif session.done and viewer.offset >= session.ring.end:
                await self._say(wire.Ended(session.exit or Exit()))
                return
            elif session.bell.is_closed:
                await self._websocket.close(GOING_AWAY, "the session was ended")
                return
            elif not self._has_news():
                async with asyncio.timeout(STALL if piece else None):
                    await session.bell.wait()

    def _has_news(self) -> bool:
        return self._told_window != self._session.window or self._told_accepted != self._acceptable()

    def _acceptable(self) -> int:
        """How much input the client may know to have arrived: more would invite it to send more."""
        session = self._session
        return session.accepted(self._client) if session.unread < INPUT_AHEAD // 2 else self._told_accepted

    async def _say_changes(self) -> None:
        window, accepted = self._session.window, self._acceptable()
        if window and window != self._told_window:
            self._told_window = window
            await self._say(wire.Resized(window))
        if accepted != self._told_accepted:
            self._told_accepted = accepted
            await self._say(wire.Accepted(accepted))

    async def _say(self, what: FromServer) -> None:
        await self._websocket.send(msgspec.json.encode(what).decode())

    async def take(self) -> None:
        """Do what the client says."""
        while True:
            message = await self._websocket.receive()
            if isinstance(message, bytes):
                self._write(message)
            else:
                self._obey(message)
            self._session.bell.ring()

    def _write(self, message: bytes) -> None:
        self._check_right()
        if len(message) < _HEAD.size or message[0] != wire.INPUT:
            raise WrongMessageError(
                "a binary message is no input: its head is byte 0 and an offset of 8 bytes"
            )
        _, offset = _HEAD.unpack_from(message)
        if offset + len(message) - _HEAD.size - self._told_accepted > INPUT_AHEAD:
            raise WrongMessageError(
                f"more than {INPUT_AHEAD} bytes of input came without waiting for 'accepted'"
            )
        try:
            self._session.write(self._client, offset, message[_HEAD.size :])
        except ValueError as error:
            raise WrongMessageError(str(error)) from None

    def _obey(self, message: str) -> None:
        try:
            said = _from_client.decode(message)
        except msgspec.DecodeError as error:
            raise WrongMessageError(f"a message is not understood: {error}"[:120]) from None
        if isinstance(said, wire.Credit):
            self._credit += said.bytes
            return
        self._check_right()
        if isinstance(said, wire.Resize):
            self._session.resize(said.window)
        else:
            self._session.end_input()

    def _check_right(self) -> None:
        if not self._may_write:
            raise WrongMessageError("this token may watch and nothing else")


class _Channels:
    """One of Kubernetes' clients: what it reads is what paces it."""

    def __init__(
        self,
        websocket: WebSocket,
        session: Stage,
        viewer: Viewer,
        streams: frozenset[int],
        may_write: bool,
    ) -> None:
        self._websocket, self._session, self._viewer = websocket, session, viewer
        self._streams, self._may_write = streams, may_write
        # theirs have no name, and come once
        self._client, self._sent = os.urandom(8).hex(), 0

    async def send(self) -> None:
        """Output, and at the end what became of the command."""
        session, viewer, bell = self._session, self._viewer, self._session.bell
        while True:
            piece = session.ring.after(viewer.offset, _PIECE)
            if piece:
                viewer.offset = piece.offset + len(piece.data)
                if piece.stream in self._streams:
                    await self._websocket.send(bytes((piece.stream,)) + piece.data)
                session.pace()
            elif session.done:
                await self._websocket.send(bytes((_ERROR,)) + kubernetes_status(session.exit or Exit()))
                return
            elif bell.is_closed:
                await self._websocket.close(GOING_AWAY, "the session was ended")
                return
            else:
                await bell.wait()

    async def take(self) -> None:
        """Input, sizes, and ends of channels."""
        while True:
            message = await self._websocket.receive()
            data = message.encode() if isinstance(message, str) else message
            if not data:
                continue
            if not self._may_write:
                raise WrongMessageError("this token may watch and nothing else")
            self._obey(data[0], data[1:])
            await _read(self._session)

    def _obey(self, channel: int, data: bytes) -> None:
        session = self._session
        if channel == _STDIN:
            session.write(self._client, self._sent, data)
            self._sent += len(data)
        elif channel == _RESIZE:
            with suppress(msgspec.DecodeError):  # kubectl sends 0 by 0 for a terminal that has no size
                size = _size.decode(data)
                session.resize(msgspec.convert({"rows": size.height, "columns": size.width}, Window))
        elif channel == _CLOSE and data == bytes((_STDIN,)):
            session.end_input()
        else:
            raise WrongMessageError(f"channel {channel} is none that a client may use")


async def _read(session: Stage) -> None:
    """Wait until a command has taken most of its input."""
    bell: Bell = session.bell
    while session.unread > INPUT_AHEAD and not bell.is_closed:
        await bell.wait()


def kubernetes_status(ended: Exit) -> bytes:
    """How a command ended, as a Status of Kubernetes' (k8s.io/apimachinery, meta/v1), in JSON."""
    if ended.code == 0:
        return msgspec.json.encode({"metadata": {}, "status": "Success"})
    code = exit_code_of(ended)
    status = {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
    return msgspec.json.encode(status)
