"""The API process: TLS, authentication, REST. PID 1 has confined it before."""

import asyncio
import contextlib
import gc
import signal
import socket
import ssl

from core0.api.app import Api
from core0.api.daemon import Daemon
from core0.wire import paths
from core0.wire.control import Identity
from corex.http import problem
from corex.http.server import serve
from corex.http.tls import server_context

_RETRY = 0.2


def main(listener: socket.socket) -> None:
    """Serve until PID 1 says stop."""
    gc.enable()
    asyncio.run(_run(listener))


async def _run(listener: socket.socket) -> None:
    daemon, life = Daemon(), await _Life.begin()
    identity = await _identity(daemon)
    context = tls_context(identity)
    serving = await serve(Api(daemon), [listener], context)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    ends = {asyncio.create_task(stopped.wait()), asyncio.create_task(_stay(daemon, identity, life))}
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    await serving.stop(1.0)
    for end in done:
        end.result()


async def _stay(daemon: Daemon, identity: Identity, life: "_Life") -> None:
    """Tell each node daemon that the API serves. Ends when one has another identity: the next process shows that."""
    while True:
        with contextlib.suppress(problem.ProblemError):  # it has ended again: so has its life
            await daemon.call("serving", type(None))
        await life.wait_ended()
        life = await _Life.begin()
        if (await _identity(daemon)).certificate != identity.certificate:
            life.close()
            return


class _Life:
    """The life of a node daemon: a connection that ends with it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls) -> "_Life":
        """Connect to the node daemon that is there, or the next one."""
        while True:
            try:
                return cls(*await asyncio.open_unix_connection(paths.NODE_SOCKET))
            except OSError:
                await asyncio.sleep(_RETRY)

    async def wait_ended(self) -> None:
        """Wait until it ends."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()
        self.close()

    def close(self) -> None:
        """Look at it no more."""
        self._writer.close()


async def _identity(daemon: Daemon) -> Identity:
    """The node's identity, as soon as the node daemon is there."""
    while True:
        try:
            return await daemon.call("identity", Identity)
        except problem.ProblemError as error:
            if error.problem.status != problem.UNAVAILABLE.status:
                raise
        await asyncio.sleep(_RETRY)


class _Outspoken(ssl.SSLObject):
    """Server's end of a TLS connection that says by its alert why a handshake failed.

    asyncio drops the connection with the alert unsent (`SSLProtocol._on_handshake_complete`). Asking for more input
    first makes it send what is there; whatever comes next, or the handshake's deadline, ends the connection.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        if self._failure:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert is to be sent") from error


def tls_context(identity: Identity) -> ssl.SSLContext:
    """TLS 1.3 with the node's certificate; who has the operator's is trusted.

    A client certificate is optional in the handshake, so that who has none gets a problem document that says
    what to do, not just an alert. One that is not the operator's, or is expired, ends the handshake.
    """
    context = server_context(identity.certificate, identity.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.sslobject_class = _Outspoken
    if identity.operator_certificate:
        context.load_verify_locations(cadata=identity.operator_certificate)
    return context
