"""What the template process does once, so that its forks need nothing more from any disk.

Everything is imported, and one conversation over TLS and a socket pair makes the libraries build what they
build lazily. What exists then is taken out of the garbage collector's view: a collection in a fork would
write into pages that all forks share.
"""

import asyncio
import encodings.idna  # noqa: F401  # looked up by name when a host name is encoded
import gc
import hashlib
import logging
import socket
import ssl
import stringprep  # noqa: F401  # by encodings.idna
import time
import traceback

import msgspec

from corex import main  # noqa: F401  # what a fork runs
from corex.console import assets
from corex.files.hands import Hands
from corex.files.resolve import Root
from corex.http import server
from corex.http.hosts import Hosts
from corex.http.routes import App
from corex.http.tls import prepare, server_context
from corex.process.clock import WallClock
from corex.process.events import Events
from corex.process.figures import Figures
from corex.process.groups import Groups
from corex.process.logs import Logs
from corex.process.manager import Processes
from corex.process.memory import share_heap
from corex.process.operations import Operations
from corex.process.reap import Reaper
from corex.process.signals import stop_ignoring
from corex.process.spawn import Spawner
from corex.process.world import World
from corex.rest import api
from corex.rest.access import Access
from corex.rest.auditing import Audit
from corex.rest.container import Container
from corex.sessions.manager import Sessions
from corex.wire.boot import Boot

_TOKEN = "warm-up"  # noqa: S105  # of an application that exists during the warm-up only
_REQUESTS = (
    ("GET", "/", b""),
    ("GET", "/v1/openapi.json", b""),
    ("GET", "/v1/processes", b""),
    ("GET", "/v1/nothing", b""),
    ("GET", "/v1/logs?limit=1", b""),
    ("GET", "/v1/system", b""),
    ("POST", "/v1/exec", b'{"argv": []}'),
)


def preload(certificate: str, key: str, console: str = assets.FOLDER) -> None:
    """Import, warm up, freeze. Afterwards the process has one thread, no event loop, and ignores no signal.

    Args:
        certificate: PEM of a pair that nobody else ever has: OpenSSL looks up what keys and handshakes need when it
            first meets them, which takes it some milliseconds.
        key: its key, PEM. The conversation never leaves the process, and the pair is of no use after it.
        console: the folder with the web console's files.
    """
    share_heap()
    assets.prepare(console)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_converse(server_context(certificate, key)))
    finally:
        loop.close()
    _format_an_error()
    stop_ignoring()
    msgspec.json.Decoder(Boot)  # msgspec looks at a type when it first meets it
    prepare()
    gc.collect()
    gc.freeze()


def _format_an_error() -> None:
    try:
        raise RuntimeError("warm-up")
    except RuntimeError as error:
        traceback.format_exception(error)
        logging.Formatter().format(logging.makeLogRecord({"msg": "warm-up"}))


async def _converse(tls: ssl.SSLContext) -> None:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    loop = asyncio.get_running_loop()
    factory = server.connections(_application())
    accepted = loop.create_task(loop.connect_accepted_socket(factory, ours, ssl=tls))
    reader, writer = await asyncio.open_connection(sock=theirs, ssl=_believing(), server_hostname="localhost")
    for request in _REQUESTS:
        await _ask(reader, writer, *request)
    await accepted
    writer.close()
    await writer.wait_closed()
    await factory.shutdown(0)


def _application() -> App:
    loop = asyncio.get_running_loop()
    logs, events = Logs(time.time), Events(time.time)
    alarms, figures, groups = WallClock(loop), Figures(None), Groups(None)
    world = World(loop, Spawner(None), Reaper(), logs, events, time.time, time.time, alarms, figures, groups)
    audit = Audit(time.time)
    access = Access(hashlib.sha256(_TOKEN.encode()).hexdigest(), loop.time)
    container = Container(
        "warm-up",
        access,
        Processes(world),
        Sessions(world),
        loop.time(),
        Root(None),
        Hands(),
        Operations(time.time),
        audit,
    )
    return App(api.table(), access, container, site=assets.site(), is_own=Hosts(()), told=audit)


def _believing() -> ssl.SSLContext:
    """A client's context that asks for no proof: it talks to itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes
) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {_TOKEN}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
