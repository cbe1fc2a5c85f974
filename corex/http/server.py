"""Serving a built route table on given listening sockets, with limits on time and on connections.

Addresses are numeric: looking a name up would make the C library load its name service modules, which a
confined process cannot and a forked one must not.
"""

import asyncio
import socket
import ssl
from asyncio import sslproto
from collections.abc import Callable, Sequence

import msgspec

from corex.http import problem
from corex.http.connection import App, Connections, Response
from corex.http.routes import encode_problem

MAX_CONNECTIONS = 256
BACKLOG = 128
# Bytes that a connection over TLS reads at once, some records. asyncio's own 256 KiB are written to when a connection
# begins: 64 pages in a Core-X that had none of its own there.
sslproto.SSLProtocol.max_size = 64 << 10


class Serving(msgspec.Struct, frozen=True):
    """A running server."""

    listeners: tuple[asyncio.Server, ...]
    connections: Connections

    async def stop(self, grace: float) -> None:
        """Accept nothing more, let running requests end for at most `grace` seconds, close the rest."""
        for listener in self.listeners:
            listener.close()
        await self.connections.shutdown(grace)


def connections(app: App, at_rest: Callable[[], None] | None = None) -> Connections:
    """A factory of protocol objects, one per connection, for the running loop."""
    return Connections(app, _malformed, lambda: MAX_CONNECTIONS, at_rest)


def _malformed(reason: str) -> Response:
    """What is not HTTP is answered by a problem too, and never fills the log."""
    words = reason.partition("\n")[0][:200]
    headers = {"Connection": "close"}
    return encode_problem(problem.MALFORMED_REQUEST(f"cannot read the request: {words!a}", headers=headers))


class _Door(asyncio.Protocol):
    """Hands a connection on as soon as it is there: asyncio's own TLS tells of those that have it already."""

    def __init__(self, made: Connections, tls: ssl.SSLContext) -> None:
        self._made, self._tls = made, tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come, whoever it is."""
        if isinstance(transport, asyncio.Transport):
            self._made.let_in(transport, self._tls)


async def serve(
    app: App,
    listeners: Sequence[socket.socket],
    tls: ssl.SSLContext | None,
    at_rest: Callable[[], None] | None = None,
) -> Serving:
    """Serve `app` on listening sockets in the running loop.

    Args:
        app: the built route table.
        listeners: bound TCP or Unix stream sockets.
        tls: the server's context; None only for a Unix socket whose file mode is the access rule.
        at_rest: called when there has been no connection for a second.
    """
    made = connections(app, at_rest)
    loop = asyncio.get_running_loop()
    for listener in listeners:
        if listener.family != socket.AF_UNIX:
            # asyncio does it for sockets that know their protocol only, which accepted ones do not: a piece of a
            # stream would wait for the client's delayed acknowledgement, some 40 ms
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    door = (lambda: _Door(made, tls)) if tls else made
    started = [await loop.create_server(door, sock=listener, backlog=BACKLOG) for listener in listeners]
    return Serving(tuple(started), made)


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Args:
        address: numeric IPv4 or IPv6 address.
        port: 0 lets the kernel choose.

    Raises:
        ValueError: the address is not numeric.
        OSError: the kernel refuses, for example because the port is in use.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"cannot listen on {address!a}: it is no numeric address") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {address} port {port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
