"""Serving a built route table on given listening sockets, with limits on time and on connections.

Addresses are numeric: looking a name up would make the C library load its name service modules, which a
confined process cannot and a forked one must not. aiohttp's low-level server is used, not its Application:
the route table already says all that an Application would, and a whole tenth of the imports is saved.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import msgspec

from corex.http import problem
from corex.http.lean import BaseRequest, HttpProcessingError, RequestHandler, Server, StreamResponse
from corex.http.routes import App, encode_problem

# Seconds that a connection may take for a request's head, idle time before it included.
HEAD_TIMEOUT = 60.0
HANDSHAKE_TIMEOUT = 10.0
MAX_CONNECTIONS = 256
BACKLOG = 128


class _Connection(RequestHandler):
    """One connection; what is not HTTP is answered by a problem too, and never fills the log."""

    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason = (message or "malformed").partition("\n")[0][:200]
        response = encode_problem(problem.MALFORMED_REQUEST(f"cannot read the request: {reason!a}"))
        response.force_close()
        return response


class _Server(Server):
    """Makes our connections, up to a limit."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()


class Serving(msgspec.Struct, frozen=True):
    """A running server."""

    listeners: tuple[asyncio.Server, ...]
    server: Server

    async def stop(self, grace: float) -> None:
        """Accept nothing more, let running requests end for at most `grace` seconds, close the rest."""
        for listener in self.listeners:
            listener.close()
        self.server.pre_shutdown()
        await self.server.shutdown(grace)


def connections(app: App) -> Server:
    """A factory of protocol objects, one per connection, for the running loop."""
    options: dict[str, Any] = {
        "keepalive_timeout": HEAD_TIMEOUT,
        "access_log": None,
        "auto_decompress": False,  # a small body could otherwise unpack to any size
        "lingering_time": 1.0,
    }
    return _Server(app, handler_cancellation=True, **options)


async def serve(app: App, listeners: Sequence[socket.socket], tls: ssl.SSLContext | None) -> Serving:
    """Serve `app` on listening sockets in the running loop.

    Args:
        app: the built route table.
        listeners: bound TCP or Unix stream sockets.
        tls: the server's context; None only for a Unix socket whose file mode is the access rule.
    """
    server = connections(app)
    loop = asyncio.get_running_loop()
    handshake = HANDSHAKE_TIMEOUT if tls else None
    started = [
        await loop.create_server(
            server, sock=listener, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=handshake
        )
        for listener in listeners
    ]
    return Serving(tuple(started), server)


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket.

    Args:
        address: numeric IPv4 or IPv6 address.
        port: 0 lets the kernel choose.

    Raises:
        ValueError: the address is not numeric.
        OSError: the kernel refuses, for example because the port is in use.
    """
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
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
