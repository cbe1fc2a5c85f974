"""What processes tell of themselves, by the protocol of sd_notify(3).

Each process that wants to has its own socket, an abstract one (unix(7)): visible in the container's network namespace
without any path. Anybody in there can send to it, so the kernel says who did (SCM_CREDENTIALS), and what comes from
outside the process's own tree is dropped. Descriptors that come with a message are closed as soon as what was sent
before them has been taken, which is what BARRIER=1 waits for.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress

_LARGEST = 4096
_AT_ONCE = 32
_CREDENTIALS = struct.Struct("iII")
_MOST_DESCRIPTORS = 16
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS)

Fields = Mapping[str, str]


class Inbox:
    """One process's socket, read by the event loop.

    Args:
        loop: the event loop.
        is_ours: whether a process, by its id, may speak for this one.
        take: gets each message's fields.
    """

    __slots__ = ("_is_ours", "_loop", "_socket", "_take", "address")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, is_ours: Callable[[int], bool], take: Callable[[Fields], None]
    ) -> None:
        self.address = f"@core-x/{os.urandom(8).hex()}"  # the value of NOTIFY_SOCKET
        self._loop, self._is_ours, self._take = loop, is_ours, take
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + self.address[1:])

    def listen(self) -> None:
        """Begin to take messages: what was sent before waits in the socket."""
        self._loop.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """Listen no more."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, extra, flags, _ = self._socket.recvmsg(_LARGEST, _ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            sender = _sender_of(extra)
            if sender and not flags & socket.MSG_TRUNC and self._is_ours(sender):
                self._take(parse(data))
            if self._socket.fileno() < 0:
                return


def parse(data: bytes) -> dict[str, str]:
    """The fields of a message, NAME=VALUE one a line; other lines are passed over."""
    fields = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals and name:
            fields[name] = value
    return fields


def _sender_of(extra: list[tuple[int, int, bytes]]) -> int:
    """The sender's process id, 0 if the kernel does not say; closes descriptors that came."""
    sender = 0
    for level, kind, data in extra:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
        elif kind == socket.SCM_RIGHTS:
            for descriptor in struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4]):
                with suppress(OSError):
                    os.close(descriptor)
    return sender
