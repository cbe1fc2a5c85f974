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
from contextlib import suppress
from random import SystemRandom
from time import time
from typing import NoReturn

import msgspec

from corex.console import assets
from corex.files.hands import Hands
from corex.files.resolve import Root
from corex.http.hosts import Hosts
from corex.http.routes import App
from corex.http.server import serve
from corex.http.tls import server_context
from corex.process import signals
from corex.process.clock import WallClock
from corex.process.events import Events
from corex.process.figures import Figures, open_proc
from corex.process.groups import Groups
from corex.process.health import UNHEALTHY, Monitor
from corex.process.logs import Logs
from corex.process.manager import Processes
from corex.process.memory import release
from corex.process.operations import Operations
from corex.process.reap import Reaper
from corex.process.spawn import Spawner
from corex.process.world import World
from corex.rest import api
from corex.rest.access import Access
from corex.rest.auditing import Audit
from corex.rest.container import Container
from corex.rest.kept import Kept
from corex.sessions.manager import Sessions
from corex.wire.boot import Boot
from corex.wire.health import REPORT_BYTES, HealthCheck, HealthReport

SERVER_GRACE = 1.0  # seconds for requests under way when the container ends
# Sent to Core-X, these are meant for the container's main process.
FORWARDED = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
_NOBODYS_GROUP = 65534

_log = logging.getLogger(__name__)


class Given(msgspec.Struct, frozen=True):
    """Descriptors that the node gave; None for what there is not.

    Attributes:
        root: the container's root folder, which children enter; without it, our own root.
        kept: the file that outlives this Core-X (`corex.rest.kept`).
        health: the file that takes reports on the container's health.
        cgroup: the container's own cgroup, which Core-X may divide.
    """

    root: int | None = None
    kept: int | None = None
    health: int | None = None
    cgroup: int | None = None


def tls_context(boot: Boot) -> ssl.SSLContext:
    """The server's TLS context; needs /proc, so it is made before the root changes."""
    return server_context(boot.certificate, boot.key)


def run(boot: Boot, *, tls: ssl.SSLContext, listener: socket.socket, given: Given) -> NoReturn:
    """Be Core-X until all declared processes have ended or SIGTERM comes, then exit with the main one's code.

    Call it in a single-threaded process that is PID 1 of its namespace, with descriptors 0 to 2 open, and without
    ignored signals: `preload` sees to that.

    Args:
        boot: the start message.
        tls: from `tls_context`.
        listener: a listening TCP socket for the REST interface.
        given: what else the node gave.
    """
    signals.unblock()
    # prlimit(2) sets the limits of whoever has all three group ids of the caller's, as the container's root has ours
    os.setresgid(-1, -1, _NOBODYS_GROUP)
    loop = asyncio.new_event_loop()
    code = loop.run_until_complete(_live(boot, tls, listener, given))
    sys.stdout.flush()
    sys.stderr.flush()
    # No tidy end of the interpreter: threads may wait in the kernel, and nothing is left to save.
    os._exit(code)


async def _live(boot: Boot, tls: ssl.SSLContext, listener: socket.socket, given: Given) -> int:
    processes = _make(boot.name, given)
    world = processes.world
    loop = world.loop
    _handle_signals(processes, next(iter(boot.processes), ""))
    kept = Kept(given.kept)
    processes.keep = kept.keep_layers
    processes.declare(boot.processes, boot.checks, boot.targets, kept.known.layers)
    monitor = _monitor(boot, processes, given.health)
    access = Access(boot.token_sha256, loop.time, kept.known.identities, kept.keep_identities)
    audit = Audit(time)
    container = Container(
        boot.name,
        access,
        processes,
        Sessions(world),
        loop.time(),
        Root(given.root),
        Hands(),
        Operations(time),
        audit,
        monitor,
    )
    hosts = Hosts((boot.name, *boot.names))
    app = App(api.table(), access, container, site=assets.site(), is_own=hosts, told=audit)
    audit.note("sys_startup")
    serving = await serve(app, [listener], tls, release)
    _log.info("Core-X runs container=%s processes=%d", boot.name, len(boot.processes))
    code = await processes.over
    audit.note("sys_shutdown")
    if monitor:
        monitor.stop()
    await processes.drained()
    await processes.forwarded()
    # Followers and those who wait for events get an orderly end of their answers.
    world.logs.bell.close()
    world.events.bell.close()
    await serving.stop(SERVER_GRACE)
    return code


def _make(name: str, given: Given) -> Processes:
    spawner = Spawner(given.root)
    spawner.start()
    loop = asyncio.get_running_loop()
    world = World(
        loop=loop,
        spawner=spawner,
        reaper=Reaper(),
        logs=Logs(time),
        events=Events(time),
        wall_clock=time,
        jitter=SystemRandom().random,
        alarms=WallClock(loop),
        figures=Figures(open_proc(given.root)),
        groups=Groups(given.cgroup),
    )
    processes = Processes(world, name)
    world.alarms.changed = processes.clock_was_set
    return processes


def _monitor(boot: Boot, processes: Processes, health_fd: int | None) -> Monitor[HealthCheck] | None:
    """What looks at the main process, if the container has a check."""
    check, main = boot.health, processes.get(next(iter(boot.processes), ""))
    if check is None or main is None:
        return None

    def tell(report: HealthReport) -> None:
        if health_fd is not None:
            os.pwrite(health_fd, msgspec.json.encode(report).ljust(REPORT_BYTES), 0)
        processes.health_changed(main.name)

    def fail(_trouble: str) -> bool:
        if not check.restart:
            return False
        if main.spec.restart == "never":
            processes.end(UNHEALTHY)
            return False
        main.restart()
        return True

    monitor = Monitor(check, main, processes.world, tell, fail)
    processes.watch_container(monitor)
    monitor.start()
    return monitor


def _handle_signals(processes: Processes, main: str) -> None:
    """SIGTERM and SIGINT end the container; what programs take for requests goes on to the main process."""

    def forward(number: int) -> Callable[[], None]:
        def send() -> None:
            life = processes.get(main)
            with suppress(ProcessLookupError, PermissionError):
                if life is not None:
                    life.signal(number)

        return send

    actions: dict[int, Callable[[], object]] = {number: forward(number) for number in FORWARDED}
    actions |= {
        signal.SIGCHLD: processes.world.reaper.reap,
        signal.SIGTERM: processes.end,
        signal.SIGINT: processes.end,
    }
    signals.handle(processes.world.loop, actions)
