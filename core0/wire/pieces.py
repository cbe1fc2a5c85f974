"""Bytes of any length over the control socket: what a call's connection carries once its reply was good.

A piece is a length (4 bytes, big endian) and that many bytes; an empty one is the end. Who closes without it has not
sent all. Then follows a last reply (`core0.wire.control`), from the one that took the bytes or had them.
"""

import asyncio
import socket
import struct

import msgspec

from core0.wire.control import Reply

LONGEST = 1 << 20
_LENGTH = struct.Struct(">I")


def send(to: socket.socket, data: bytes) -> None:
    """Send one piece over a blocking socket."""
    to.sendall(_LENGTH.pack(len(data)))
    to.sendall(data)


def send_reply(to: socket.socket, reply: Reply) -> None:
    """Send a reply over a blocking socket."""
    send(to, msgspec.json.encode(reply))


def part(to: socket.socket, reply: Reply, patience: float) -> None:
    """Give the last reply to one that may still send: closing on unread bytes would take it back.

    Args:
        to: the other side, a blocking socket.
        reply: the last.
        patience: seconds that it may be silent before it closes.

    Raises:
        OSError: it has left, or was silent.
    """
    send_reply(to, reply)
    to.settimeout(patience)
    while to.recv(LONGEST):
        pass


def receive(way: socket.socket) -> bytes | None:
    """One piece from a blocking socket: empty at the end, None if the other side closed before, or sent nonsense."""
    head = _exactly(way, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    return _exactly(way, length) if length <= LONGEST else None


def _exactly(way: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = way.recv(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


async def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send one piece."""
    writer.write(_LENGTH.pack(len(data)) + data)
    await writer.drain()


async def read(reader: asyncio.StreamReader) -> bytes:
    """One piece, empty at the end.

    Raises:
        asyncio.IncompleteReadError: the other side closed before the end.
        ConnectionError: the piece is over the limit.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > LONGEST:
        raise ConnectionError(f"cannot receive a piece of {length} bytes: the limit is {LONGEST}")
    return await reader.readexactly(length)
