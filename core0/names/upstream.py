"""Asks other name servers: each question with a number and a port of its own, and a deadline (RFC 5452).

A question goes on as it came but for its number. Only an answer from where it was asked, to the same question and
with its number, is taken; it goes back as it is.
"""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator, Sequence

from core0.names.codec import NOERROR, REFUSED, SERVFAIL, Question, code_of, fits, renumbered
from core0.wire.names import PORT

# Resolvers in containers ask again after 5 s (resolv.conf(5)): they have an answer before.
_DEADLINE, _PATIENCE, _TRIES = 4.5, 1.4, 3
_LARGEST = 65535


class Upstream:
    """The name servers of the outside. The one that answered last is asked first.

    Args:
        port: where they answer.
    """

    def __init__(self, port: int = PORT) -> None:
        self._port = port
        self._servers: tuple[str, ...] = ()
        self._best = ""

    def use(self, servers: Sequence[str]) -> None:
        """Ask these from now on."""
        self._servers = tuple(servers)

    async def ask(self, message: bytes, question: Question, *, by_tcp: bool) -> bytes | None:
        """The answer of the first server that has one; None if none answers in time."""
        refused: bytes | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEADLINE):
                for server in self._in_turn():
                    try:
                        reply = await self._ask(server, message, question, by_tcp=by_tcp)
                    except OSError:  # in time is no answer, or nobody listens there: the next one may know
                        continue
                    if code_of(reply) not in (SERVFAIL, REFUSED):
                        self._best = server
                        return reply
                    refused = reply
        return refused

    def _in_turn(self) -> Iterator[str]:
        """Whom to ask, in this order: every server, or the only one again."""
        first = sorted(self._servers, key=lambda server: server != self._best)
        for number in range(max(_TRIES, len(first)) if first else 0):
            yield first[number % len(first)]

    async def ask_all(self, servers: Sequence[str], message: bytes, question: Question) -> bytes | None:
        """Ask several at once: the first answer that has the name; None if no server has it."""
        asking = [
            asyncio.create_task(self._ask(server, message, question, by_tcp=False)) for server in servers
        ]
        try:
            for coming in asyncio.as_completed(asking):
                with contextlib.suppress(OSError):  # that node is away: another may have it
                    reply = await coming
                    if code_of(reply) == NOERROR:
                        return reply
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return None

    async def _ask(self, server: str, message: bytes, question: Question, *, by_tcp: bool) -> bytes:
        """One server's answer. Raises OSError; TimeoutError is one."""
        number = secrets.randbits(16)
        asked = renumbered(message, number)
        address = _address(server, self._port)
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        kind = socket.SOCK_STREAM if by_tcp else socket.SOCK_DGRAM
        with socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as connection:
            async with asyncio.timeout(_PATIENCE):
                talk = _by_tcp if by_tcp else _by_udp
                reply = await talk(connection, address, asked, question, number)
        return renumbered(reply, question.number)


def _address(server: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """A server's address, without asking anybody; a link's own address says which link."""
    text, _, link = server.partition("%")
    return (text, port, 0, socket.if_nametoindex(link)) if link else (text, port)


async def _by_udp(
    connection: socket.socket, address: tuple[object, ...], asked: bytes, question: Question, number: int
) -> bytes:
    """Others may send to the port, too: connected, the kernel takes what the server sends, and we what fits."""
    loop = asyncio.get_running_loop()
    connection.connect(address)
    await loop.sock_sendall(connection, asked)
    while True:
        reply = await loop.sock_recv(connection, _LARGEST)
        if fits(reply, question, number):
            return reply


async def _by_tcp(
    connection: socket.socket, address: tuple[object, ...], asked: bytes, question: Question, number: int
) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, address)
    await loop.sock_sendall(connection, len(asked).to_bytes(2) + asked)
    received = b""
    while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2]):
        piece = await loop.sock_recv(connection, _LARGEST)
        if not piece:
            raise ConnectionError("the name server ended the connection before its answer")
        received += piece
    reply = received[2 : 2 + int.from_bytes(received[:2])]
    if not fits(reply, question, number):
        raise ConnectionError("the name server answered another question")
    return reply
