"""The node's own processes: started, watched, started again with a growing delay.

PID 1 supervises with it, and so does the template process, whose fork the API process is.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from core0.linux import cgroups, namespaces, privileges
from core0.wire import paths

# What a confined process may open: its own code, loaded late for a traceback at most.
_READABLE = ("/usr",)
_LEFTOVERS = 1.0  # seconds that the kernel may take to end what was killed
_FIRST_DELAY, _LONGEST_DELAY, _STABLE = 0.1, 30.0, 60.0


class Service(NamedTuple):
    """One process of the node.

    Attributes:
        name: as in logs and its cgroup.
        run: its program, called in a fork of the supervisor, whose memory it shares as long as it is unchanged.
        listen: makes its listening socket, once, in the supervisor: who connects during a restart is not refused.
        limits: its cgroup's limit files.
        user: who it is. Another than root can gain no privilege any more and reads below /usr only.
    """

    name: str
    run: Callable[[socket.socket | None], None]
    listen: Callable[[], socket.socket] | None = None
    limits: Mapping[str, str] = MappingProxyType({})
    user: int = 0


def restart_delay(failures: int) -> float:
    """Seconds before the start that follows this many failures in a row: doubling from 0.1 to 30."""
    return min(_FIRST_DELAY * 2.0 ** min(failures - 1, 16), _LONGEST_DELAY) if failures > 0 else 0.0


def describe_status(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


class Supervised:
    """A service and what became of it."""

    def __init__(self, service: Service, due: float) -> None:
        self.service = service
        self.listener: socket.socket | None = None
        self.pid = 0
        self.started = 0.0
        self.failures = 0
        self.due = due


class Supervisor:
    """Starts services when due and learns of their ends from the reaper. The clock comes in as a parameter."""

    def __init__(self, services: Sequence[Service], now: float) -> None:
        self._all = [Supervised(service, now) for service in services]
        self._draining = False

    def start_due(self, now: float) -> list[str]:
        """Start every service that is not running and whose delay is over; returns a line per failure."""
        due = [one for one in self._all if not one.pid and one.due <= now and not self._draining]
        return [said for one in due if (said := self._start(one, now))]

    def _start(self, one: Supervised, now: float) -> str | None:
        try:
            end_leftovers(one.service)
            if one.service.listen and not one.listener:
                one.listener = one.service.listen()
            one.pid, one.started = start(one.service, one.listener), now
        except OSError as error:
            return self._failed(one, f"could not start: {error}", now)
        return None

    def _failed(self, one: Supervised, how: str, now: float) -> str:
        one.failures = 1 if one.pid and now - one.started >= _STABLE else one.failures + 1
        one.pid, delay = 0, restart_delay(one.failures)
        one.due = now + delay
        return f"Process {one.service.name} {how}; starting it again in {delay:.1f} s"

    def next_due(self) -> float | None:
        """When the next start is due, or None if everything runs."""
        return min((one.due for one in self._all if not one.pid), default=None)

    def ended(self, pid: int, status: int, now: float) -> str | None:
        """Take note of a process that ended; returns the line to log, or None if it was no service."""
        one = next((one for one in self._all if one.pid == pid), None)
        if one is None:
            return None
        return self._failed(one, f"ended: {describe_status(status)}", now)

    def drain(self) -> list[int]:
        """Start nothing any more; returns the pids that still run."""
        self._draining = True
        return [one.pid for one in self._all if one.pid]


def log(lines: Iterable[str]) -> None:
    """Print lines on the console, marked as the node's."""
    os.write(1, "".join(f"zn: {line}\n" for line in lines).encode())


def watch_children() -> socket.socket:
    """A socket that becomes readable whenever a child of this process ends."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def ended_children(
    reader: socket.socket, look: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[int, int]]:
    """Reap every child that has ended: its pid and wait status.

    Args:
        reader: of `watch_children`.
        look: gets each pid while /proc still has it.
    """
    with contextlib.suppress(BlockingIOError):
        while reader.recv(4096):
            pass
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        look(ended.si_pid)
        yield os.waitpid(ended.si_pid, 0)


def _group(service: Service) -> str:
    return f"{paths.CGROUP_SYSTEM}/{service.name}"


def end_leftovers(service: Service) -> None:
    """Kill what an earlier instance of a service left: a supervisor that died may have left its own."""
    group = _group(service)
    end = time.monotonic() + _LEFTOVERS
    while cgroups.is_populated(group) and time.monotonic() < end:
        cgroups.kill(group)
        time.sleep(0.01)


def start(service: Service, listener: socket.socket | None) -> int:
    """Fork a service into its own session and cgroup; returns its pid."""
    group = _group(service)
    cgroups.create(group, service.limits)
    gc.freeze()  # a collection in the fork would write into pages that are shared until then
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        pid = namespaces.fork_into(folder)
        if pid == 0:
            _be(service, listener)
    finally:
        os.close(folder)
    return pid


def _be(service: Service, listener: socket.socket | None) -> None:
    """The child's side of `start`. Never returns."""
    try:
        _leave_supervisor(listener)
        if service.user:
            _confine(service.user)
        service.run(listener)
    except BaseException:  # noqa: BLE001 — a fork must not run on as a second supervisor
        os.write(2, f"zn: process {service.name} failed\n{traceback.format_exc()}".encode())
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def _confine(user: int) -> None:
    """Give up root for good: capabilities, files (Landlock), what exec could give back."""
    privileges.bound_capabilities(())
    privileges.become_user(user, user)
    privileges.forbid_new_privileges()
    privileges.confine_files(_READABLE)


def _leave_supervisor(listener: socket.socket | None) -> None:
    """Give up what belongs to the supervisor: its signal handling, session and descriptors."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    kept = listener.fileno() if listener else -1
    last = os.sysconf("SC_OPEN_MAX")
    if kept > 2:
        os.set_inheritable(kept, True)
        os.closerange(3, kept)
        os.closerange(kept + 1, last)
    else:
        os.closerange(3, last)
