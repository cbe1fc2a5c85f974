"""Answers containers' questions by UDP and TCP; none of them can take what another needs.

Each asker has so many questions that wait for other servers, and so many connections; what is beyond is dropped, and
a resolver asks again. How often anybody may ask at all, the packet filter says (core0/networks/ruleset.py).
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable

from core0.names import codec
from core0.names.codec import NXDOMAIN, REFUSED, SERVFAIL, Question, UnusableError
from core0.names.upstream import Upstream
from core0.names.zones import Asker, Found, Zones
from core0.wire.names import DOMAIN

_LARGEST_QUESTION = 4096
# Questions that are read before anything else is looked at.
_BATCH = 64
_MOST_WAITING_EACH, _MOST_WAITING = 32, 512
_MOST_CONNECTIONS_EACH, _MOST_CONNECTIONS = 8, 128
# Seconds that a connection may be silent, or not take its answer (RFC 7766 section 6.2.3).
_SILENCE = 10.0


class Server:
    """Answers on two sockets.

    Args:
        zones: the names that are known.
        upstream: who knows the others.
        udp: bound.
        tcp: bound.
    """

    def __init__(self, zones: Zones, upstream: Upstream, udp: socket.socket, tcp: socket.socket) -> None:
        self._zones = zones
        self._upstream = upstream
        self._udp = udp
        self._tcp = tcp
        self._waiting: Counter[str] = Counter()
        self._connections: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def begin(self) -> None:
        """Answer from now on."""
        self._udp.setblocking(False)
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._read)
        self._server = await asyncio.start_server(self._talk, sock=self._tcp, limit=_LARGEST_QUESTION)

    async def end(self) -> None:
        """Close the sockets; who waits gets no answer."""
        asyncio.get_running_loop().remove_reader(self._udp.fileno())
        self._udp.close()
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # UDP

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                message, sender = self._udp.recvfrom(_LARGEST_QUESTION)
            except BlockingIOError:
                return
            self._take(message, sender)

    def _take(self, message: bytes, sender: tuple[str, int]) -> None:
        decided = self._decide(sender[0], message, by_tcp=False)
        if isinstance(decided, bytes):
            self._send(decided, sender)
        elif decided:
            task = asyncio.create_task(self._send_later(decided, sender))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_later(self, coming: Awaitable[bytes], sender: tuple[str, int]) -> None:
        self._send(await coming, sender)

    def _send(self, reply: bytes, sender: tuple[str, int]) -> None:
        with contextlib.suppress(
            OSError
        ):  # the container is gone, or takes nothing: it asks again if it is there
            self._udp.sendto(reply, sender)

    # TCP

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        source = peer[0] if peer else ""
        crowded = self._connections.total() >= _MOST_CONNECTIONS
        if crowded or self._connections[source] >= _MOST_CONNECTIONS_EACH or not self._zones.asker(source):
            writer.transport.abort()
            return
        self._connections[source] += 1
        try:
            while await self._exchange(source, reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError):  # it ended, or was silent for too long
            writer.transport.abort()
        finally:
            _less(self._connections, source)
            writer.close()

    async def _exchange(
        self, source: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One question and its answer; returns whether another may follow."""
        async with asyncio.timeout(_SILENCE):
            length = int.from_bytes(await reader.readexactly(2))
            message = await reader.readexactly(length) if length <= _LARGEST_QUESTION else b""
        decided = self._decide(source, message, by_tcp=True)
        reply = decided if isinstance(decided, bytes) or decided is None else await decided
        if not reply:
            return False
        writer.write(len(reply).to_bytes(2) + reply)
        async with asyncio.timeout(_SILENCE):
            await writer.drain()
        return True

    # what is answered

    def _decide(self, source: str, message: bytes, *, by_tcp: bool) -> bytes | Awaitable[bytes] | None:
        """The answer, or what brings it; None for none."""
        asker = self._zones.asker(source)
        if asker is None:
            return None
        try:
            question = codec.parse(message)
        except UnusableError as error:
            return error.answer or None
        found = self._zones.find(asker, question)
        if found is None and not (asker.is_container and asker.zone.outside):
            return codec.answer(question, REFUSED)
        if found and not (found.elsewhere and asker.is_container and asker.zone.others):
            return _said(question, found)
        if self._waiting.total() >= _MOST_WAITING or self._waiting[source] >= _MOST_WAITING_EACH:
            return None
        self._waiting[source] += 1
        return self._ask(source, asker, message, question, by_tcp=by_tcp, outside=found is None)

    async def _ask(
        self, source: str, asker: Asker, message: bytes, question: Question, *, by_tcp: bool, outside: bool
    ) -> bytes:
        """The answer of another server, or ours that there is none."""
        try:
            if outside:
                reply = await self._upstream.ask(message, question, by_tcp=by_tcp)
            else:
                reply = await self._upstream.ask_all(asker.zone.others, message, question)
        finally:
            _less(self._waiting, source)
        if reply is None:
            nothing = Found(SERVFAIL) if outside else Found(NXDOMAIN, zone=DOMAIN)
            return _said(question, nothing)
        return reply if by_tcp else codec.limited(reply, question)


def _said(question: Question, found: Found) -> bytes:
    return codec.answer(question, found.code, found.records, zone=found.zone)


def _less(counter: Counter[str], key: str) -> None:
    """Count one less; who has none is forgotten."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
