"""Bytes between clients and the processes that move them: nothing is kept here but the piece that is on its way."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from core0.wire import pieces
from core0.wire.control import Reply, receive
from corex.http import problem
from corex.http.connection import RawRequest

# Seconds that a client may take for its next bytes.
_PATIENCE = 60.0


async def pieces_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    """What comes from a connection; it is closed when the last piece was taken, or nobody wants more.

    Raises:
        ConnectionError: the other side ended before its end, so the client's answer shall be cut, too.
    """
    try:
        while piece := await pieces.read(reader):
            yield piece
        refusal = msgspec.json.decode(await receive(reader), type=Reply).refusal
        if refusal:
            raise ConnectionResetError(refusal.detail)
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("the stream is cut") from None
    finally:
        writer.close()


async def upload(raw: RawRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Send a request's body to a connection, until its end or until the other side answers; returns the answer.

    Raises:
        ProblemError: the client was silent for too long, or the other side ended without an answer.
        ConnectionError: the client left; what it sent has arrived.
    """
    answer = asyncio.ensure_future(receive(reader))
    try:
        while not answer.done():
            piece = await _next(raw, answer)
            if piece is None:
                break
            try:
                await pieces.write(writer, piece)
            except ConnectionError:  # the answer says why
                break
            if not piece:
                break
        return await answer
    except asyncio.IncompleteReadError:
        raise problem.UNAVAILABLE(
            "cannot import the stream: its receiver ended",
            remedy="see the node's events, then go on or begin again",
        ) from None
    finally:
        answer.cancel()
        writer.close()


async def _next(raw: RawRequest, answer: "asyncio.Future[bytes]") -> bytes | None:
    """The body's next piece; None if the answer came first."""
    reading = asyncio.ensure_future(raw.read())
    try:
        done, _ = await asyncio.wait(
            {reading, answer}, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise problem.TIMED_OUT(
                f"cannot read the body: nothing came for {_PATIENCE:.0f} s", remedy="go on where it stopped"
            )
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()
