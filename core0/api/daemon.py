"""The API process's way to the node daemon: calls over its Unix socket, one connection per call under way."""

import asyncio
from typing import TypeVar

import msgspec

from core0.wire import paths
from core0.wire.control import Call, Refusal, Reply, Verb, receive, send
from corex.http import problem

T = TypeVar("T")
# The daemon answers at once, but for waits that the caller asked for (60 s at most).
_DEADLINE = 90.0
_TYPES = {kind.name: kind for kind in problem.TYPES}


class Daemon:
    """Calls to the node daemon; idle connections are kept for the next call."""

    def __init__(self, path: str = paths.NODE_SOCKET) -> None:
        self._path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(
        self, verb: Verb, kind: type[T], *, name: str = "", body: object = None, new: bool = False
    ) -> T:
        """Carry out a verb.

        Raises:
            ProblemError: with the daemon's refusal; 503 if the daemon is starting again.
        """
        request = Call(verb, name, msgspec.Raw(msgspec.json.encode(body)), new)
        try:
            async with asyncio.timeout(_DEADLINE):
                reply = await self._exchange(request)
        except TimeoutError:  # an OSError, too, with nothing to say
            raise _unavailable(f"no answer within {_DEADLINE:.1f} s") from None
        except asyncio.IncompleteReadError:
            raise _unavailable("it ended the connection") from None
        except OSError as error:
            raise _unavailable(str(error)) from None
        if reply.refusal:
            raise _problem(reply.refusal)
        return msgspec.json.decode(reply.result, type=kind)

    async def open(
        self, verb: Verb, *, name: str = "", body: object = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Carry out a verb whose bytes follow on its own connection, in pieces (`core0.wire.pieces`).

        There is no deadline: whoever waits for it may leave.

        Raises:
            ProblemError: as of `call`.
        """
        request = Call(verb, name, msgspec.Raw(msgspec.json.encode(body)))
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise _unavailable(str(error)) from None
        try:
            await send(writer, request)
            settle(await receive(reader))
        except asyncio.IncompleteReadError:
            writer.close()
            raise _unavailable("it ended the connection") from None
        except BaseException:
            writer.close()
            raise
        return reader, writer

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()

    async def _exchange(self, request: Call) -> Reply:
        reader, writer = await self._connection()
        try:
            await send(writer, request)
            reply = msgspec.json.decode(await receive(reader), type=Reply)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return reply

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_unix_connection(self._path)


def settle(data: bytes) -> msgspec.Raw:
    """The result that a reply brings. Raises ProblemError with its refusal."""
    reply = msgspec.json.decode(data, type=Reply)
    if reply.refusal:
        raise _problem(reply.refusal)
    return reply.result


def _unavailable(cause: str) -> problem.ProblemError:
    return problem.UNAVAILABLE(
        f"cannot ask the node daemon: {cause}",
        remedy="it starts again by itself; try again in a second, or read the node's console",
    )


def _problem(refusal: Refusal) -> problem.ProblemError:
    kind = _TYPES.get(refusal.type, problem.INTERNAL)
    return kind(refusal.detail, remedy=refusal.remedy, pointer=refusal.pointer or None)
