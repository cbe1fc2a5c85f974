"""QEMU's process: started tied to ours or on its own, watched by pidfd, and never confused with a stranger.

A tied machine dies with us even when we are killed with SIGKILL (`ci.qemu.tether`). A detached one outlives
us, for `zn up`; its process identifier and start time name it beyond doubt (pidfd_open(2), proc_pid_stat(5)).
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.qemu import tether

_PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}


class StartError(Exception):
    """A process could not be started; the message has its own words."""


class NoProgramError(StartError):
    """This host does not have the program."""


def require(program: str) -> None:
    """Raise NoProgramError, which names the package to install, unless this host has a program."""
    if shutil.which(program) is None:
        package = _PACKAGES.get(program, program)
        raise NoProgramError(
            f"cannot start {program}: this machine does not have it; install Debian's package {package}"
        )


@dataclass(frozen=True)
class Identity:
    """A process that is this one and no later one with the same number.

    Attributes:
        pid: the process identifier.
        started: its start, in clock ticks since the host's boot.
    """

    pid: int
    started: int


def identify(pid: int) -> Identity | None:
    """The identity of a living process, or None if it has ended (a zombie has)."""
    try:
        # the name in parentheses may hold spaces; the state follows it
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


def is_alive(identity: Identity) -> bool:
    """Whether exactly this process still runs."""
    return identify(identity.pid) == identity


def send(identity: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False if it has ended. A pidfd names it from the look to the signal."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


async def wait_ended(identity: Identity, deadline: float) -> bool:
    """Wait for the process to end; False if it still runs after `deadline` seconds."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return True
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        async with asyncio.timeout(deadline):
            await ended.wait()
    except TimeoutError:
        return not is_alive(identity)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True


class Tied:
    """A process that the kernel kills when this one ends. Whoever starts it must `release` it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process identifier."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process.returncode is None:
            self._process.kill()

    async def ended(self, deadline: float) -> bool:
        """Wait for its end; False if it still runs after `deadline` seconds."""
        try:
            async with asyncio.timeout(deadline):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    async def release(self) -> None:
        """Kill it if it still runs, and reap it."""
        self.kill()
        await self._process.wait()


class Detached:
    """A process that lives on without us, known by its identity."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    @property
    def pid(self) -> int:
        """The process identifier."""
        return self.identity.pid

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        send(self.identity, signal.SIGKILL)

    async def ended(self, deadline: float) -> bool:
        """Wait for its end; False if it still runs after `deadline` seconds."""
        return await wait_ended(self.identity, deadline)

    async def release(self) -> None:
        """Let it run."""


Running = Tied | Detached


async def start_tied(argv: Sequence[str], descriptors: Sequence[int], log: Path) -> Tied:
    """Start a program that the kernel kills when this process ends.

    Args:
        argv: the program and its arguments.
        descriptors: what it inherits besides the standard ones.
        log: the file for what it says.

    Raises:
        NoProgramError: this host does not have it.
    """
    require(argv[0])
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-IS", tether.__file__, str(os.getpid())),
            *argv,
            pass_fds=descriptors,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # the terminal's Ctrl-C is for us; we end the machine in order
        )
    return Tied(process)


async def start_daemon(argv: Sequence[str], descriptors: Sequence[int], log: Path) -> Detached:
    """Start QEMU as a daemon that outlives us. QEMU itself forks and reports what went wrong until then.

    Raises:
        StartError: with QEMU's own words.
    """
    require(argv[0])
    pid_file = log.with_suffix(".pid")
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *argv,
            *("-daemonize", "-pidfile", str(pid_file)),
            pass_fds=descriptors,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    identity = _from_file(pid_file) if await process.wait() == 0 else None
    if identity is None:
        raise StartError(f"cannot start {argv[0]}: {read_words(log) or 'it ended'}")
    return Detached(identity)


def read_words(log: Path) -> str:
    """What a program has said in its log, for an error message."""
    return log.read_text("utf-8", "replace").strip()


def _from_file(pid_file: Path) -> Identity | None:
    return identify(int(pid_file.read_text()))
