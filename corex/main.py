"""Core-X as PID 1 of a container: entered by the node's template process after isolation.

The template calls `preload` once, forks per container, calls `tls_context` while /proc is still mounted,
isolates, and calls `run`. After the fork nothing is imported from any disk.
"""

import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from random import SystemRandom
from time import time
from typing import NoReturn

from corex.http.routes import build_app
from corex.http.server import serve
from corex.http.tls import server_context
from corex.process.events import Events
from corex.process.figures import Figures, open_proc
from corex.process.life import World
from corex.process.logs import Logs
from corex.process.manager import Processes
from corex.process.reap import Reaper
from corex.process.spawn import Spawner
from corex.rest import api
from corex.rest.access import Access
from corex.wire.boot import Boot

SERVER_GRACE = 1.0  # seconds for requests under way when the container ends
_KEPT_IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores them; children get them back

_log = logging.getLogger(__name__)


def tls_context(boot: Boot) -> ssl.SSLContext:
    """The server's TLS context; needs /proc, so it is made before the root changes."""
    return server_context(boot.certificate, boot.key)


def run(boot: Boot, *, tls: ssl.SSLContext, listener: socket.socket, root_fd: int | None) -> NoReturn:
    """Be Core-X until all declared processes have ended or SIGTERM comes, then exit with the main one's code.

    Call it in a single-threaded process that is PID 1 of its namespace, with descriptors 0 to 2 open.

    Args:
        boot: the start message.
        tls: from `tls_context`.
        listener: a listening TCP socket for the REST interface.
        root_fd: descriptor of the container's root folder, which children enter; None for our own root.
    """
    _reset_signals()
    loop = asyncio.new_event_loop()
    code = loop.run_until_complete(_live(boot, tls, listener, root_fd))
    sys.stdout.flush()
    sys.stderr.flush()
    # No tidy end of the interpreter: threads may wait in the kernel, and nothing is left to save.
    os._exit(code)


def _reset_signals() -> None:
    """Undo what was ignored or blocked before us: children would inherit it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - _KEPT_IGNORED - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


async def _live(boot: Boot, tls: ssl.SSLContext, listener: socket.socket, root_fd: int | None) -> int:
    figures = Figures(open_proc(root_fd))
    processes = _make(root_fd, figures)
    loop = processes.world.loop
    _handle_signals(processes)
    container = api.Container(boot.name, processes, figures, loop.time())
    app = build_app(api.routes(), authenticate=Access(boot.token_sha256, loop.time), context=container)
    serving = await serve(app, [listener], tls)
    processes.declare(boot.processes)
    _log.info("Core-X runs container=%s processes=%d", boot.name, len(boot.processes))
    code = await processes.over
    await processes.drained()
    # Followers and those who wait for events get an orderly end of their answers.
    processes.world.logs.bell.close()
    processes.world.events.bell.close()
    await serving.stop(SERVER_GRACE)
    return code


def _make(root_fd: int | None, figures: Figures) -> Processes:
    spawner = Spawner(root_fd)
    spawner.start()
    world = World(
        loop=asyncio.get_running_loop(),
        spawner=spawner,
        reaper=Reaper(),
        logs=Logs(time),
        events=Events(time),
        wall_clock=time,
        jitter=SystemRandom().random,
    )
    return Processes(world, figures)


def _handle_signals(processes: Processes) -> None:
    loop = processes.world.loop
    loop.add_signal_handler(signal.SIGCHLD, processes.world.reaper.reap)
    stop = _once(lambda: loop.create_task(_stop(processes)))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def _stop(processes: Processes) -> None:
    code = await processes.stop_all()
    if not processes.over.done():
        processes.over.set_result(code)


def _once(act: Callable[[], object]) -> Callable[[], None]:
    done: list[object] = []

    def first_time() -> None:
        if not done:
            done.append(act())

    return first_time
