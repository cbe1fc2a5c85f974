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

import msgspec

from corex.http.routes import App
from corex.http.server import serve
from corex.http.tls import server_context
from corex.process import signals
from corex.process.events import Events
from corex.process.figures import Figures, open_proc
from corex.process.health import UNHEALTHY, Monitor
from corex.process.life import World
from corex.process.logs import Logs
from corex.process.manager import Processes
from corex.process.memory import release
from corex.process.reap import Reaper
from corex.process.spawn import Spawner
from corex.rest import api
from corex.rest.access import Access
from corex.rest.container import Container
from corex.sessions.manager import Sessions
from corex.wire.boot import Boot
from corex.wire.process import REPORT_BYTES, HealthReport

SERVER_GRACE = 1.0  # seconds for requests under way when the container ends

_log = logging.getLogger(__name__)


def tls_context(boot: Boot) -> ssl.SSLContext:
    """The server's TLS context; needs /proc, so it is made before the root changes."""
    return server_context(boot.certificate, boot.key)


def run(
    boot: Boot,
    *,
    tls: ssl.SSLContext,
    listener: socket.socket,
    root_fd: int | None,
    health_fd: int | None = None,
) -> NoReturn:
    """Be Core-X until all declared processes have ended or SIGTERM comes, then exit with the main one's code.

    Call it in a single-threaded process that is PID 1 of its namespace, with descriptors 0 to 2 open, and without
    ignored signals: `preload` sees to that.

    Args:
        boot: the start message.
        tls: from `tls_context`.
        listener: a listening TCP socket for the REST interface.
        root_fd: descriptor of the container's root folder, which children enter; None for our own root.
        health_fd: descriptor of the file that takes reports on the container's health, if the node wants them.
    """
    signals.unblock()
    loop = asyncio.new_event_loop()
    code = loop.run_until_complete(_live(boot, tls, listener, root_fd, health_fd))
    sys.stdout.flush()
    sys.stderr.flush()
    # No tidy end of the interpreter: threads may wait in the kernel, and nothing is left to save.
    os._exit(code)


async def _live(
    boot: Boot, tls: ssl.SSLContext, listener: socket.socket, root_fd: int | None, health_fd: int | None
) -> int:
    figures = Figures(open_proc(root_fd))
    processes = _make(root_fd, figures)
    loop = processes.world.loop
    _handle_signals(processes)
    processes.declare(boot.processes)
    monitor = _monitor(boot, processes, health_fd)
    looking = loop.create_task(monitor.run()) if monitor else None
    access = Access(boot.token_sha256, loop.time)
    container = Container(
        boot.name, access, processes, Sessions(processes.world), figures, loop.time(), monitor
    )
    app = App(api.table(), access, container)
    serving = await serve(app, [listener], tls, release)
    _log.info("Core-X runs container=%s processes=%d", boot.name, len(boot.processes))
    code = await processes.over
    if looking:
        looking.cancel()
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


def _monitor(boot: Boot, processes: Processes, health_fd: int | None) -> Monitor | None:
    """What looks at the main process, if the container has a check."""
    main = processes.get(next(iter(boot.processes), ""))
    if boot.health is None or main is None:
        return None

    async def end() -> None:
        await processes.stop_all()
        if not processes.over.done():
            processes.over.set_result(UNHEALTHY)

    def tell(report: HealthReport) -> None:
        if health_fd is not None:
            os.pwrite(health_fd, msgspec.json.encode(report).ljust(REPORT_BYTES), 0)

    return Monitor(boot.health, main, processes.world, tell, end)


def _handle_signals(processes: Processes) -> None:
    loop = processes.world.loop
    stop = _once(lambda: loop.create_task(_stop(processes)))
    signals.handle(
        loop, {signal.SIGCHLD: processes.world.reaper.reap, signal.SIGTERM: stop, signal.SIGINT: stop}
    )


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
