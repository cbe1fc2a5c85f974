"""A world for lives in which time, chance and the kernel do as a test says."""

import asyncio
import itertools
import os
from collections.abc import Callable
from typing import Any

from corex.process.events import Events
from corex.process.figures import Figures
from corex.process.groups import Groups
from corex.process.logs import Logs
from corex.process.manager import Processes
from corex.process.reach import Kin
from corex.process.spawn import Child, Command, SpawnError
from corex.process.world import World
from corex.wire.api import Exit


class Loop(asyncio.SelectorEventLoop):
    """A loop whose clock goes on only when nothing else is to be done and a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run everything that is due now."""

        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.run_until_complete(turns())

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps that no timer of a life is shorter than."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.25)
            self.settle()


class Alarms:
    """A wall clock that goes with the loop's."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.changed: Callable[[], None] = lambda: None

    def at(self, moment: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_at(moment - START, act)


START = 1_700_000_000.0


class Spawner:
    """Starts children that exist in the mind only: their output is /dev/null."""

    def __init__(self) -> None:
        self.pids = itertools.count(1000)
        self.commands: dict[int, Command] = {}
        self.orders: list[asyncio.Future[None]] = []
        self.holds = False
        self.refuses = False
        self.zone = b""

    async def spawn(self, command: Command) -> Child:
        if self.holds:
            order = asyncio.get_running_loop().create_future()
            self.orders.append(order)
            await order
        if self.refuses:
            raise SpawnError("no", 127)
        pid = next(self.pids)
        self.commands[pid] = command
        return Child(
            pid, *(os.open("/dev/null", os.O_RDWR) for _ in range(1)), *(_ended_pipe() for _ in range(2))
        )

    async def read(self, _path: str) -> bytes:
        return self.zone


def _ended_pipe() -> int:
    reader, writer = os.pipe()
    os.close(writer)
    return reader


class Reaper:
    """Tells of ends that a test brings about."""

    def __init__(self) -> None:
        self.waiting: dict[int, Callable[[Exit], None]] = {}

    def spawning(self) -> None:
        """A spawn begins."""

    def spawned(self, pid: int | None, on_exit: Callable[[Exit], None]) -> None:
        if pid is not None:
            self.waiting[pid] = on_exit

    def end(self, pid: int, ended: Exit) -> None:
        """A child ends."""
        self.waiting.pop(pid)(ended)


class Machine:
    """All of it, with the processes of a container.

    Attributes:
        signals: what was sent, by process id, since they were last looked at.
    """

    def __init__(self, monkeypatch: Any) -> None:
        self.loop = Loop()
        self.spawner, self.reaper = Spawner(), Reaper()
        self.signals: list[tuple[int, int]] = []
        monkeypatch.setattr(Kin, "send", lambda kin, number: self.signals.append((kin.pid, number)))
        self.world = World(
            loop=self.loop,
            spawner=self.spawner,  # type: ignore[arg-type]
            reaper=self.reaper,  # type: ignore[arg-type]
            logs=Logs(self.wall),
            events=Events(self.wall),
            wall_clock=self.wall,
            jitter=lambda: 0.5,
            alarms=Alarms(self.loop),  # type: ignore[arg-type]
            figures=Figures(None),
            groups=Groups(None),
        )

        async def make() -> Processes:
            return Processes(self.world)

        self.processes = self.loop.run_until_complete(make())

    def wall(self) -> float:
        return START + self.loop.now

    def state(self, name: str) -> str:
        life = self.processes.get(name)
        assert life is not None
        return life.state

    def pid(self, name: str) -> int:
        life = self.processes.get(name)
        assert life is not None
        assert life.pid is not None, f"{name} is {life.state}"
        return life.pid

    def start(self, name: str) -> None:
        life = self.processes.get(name)
        assert life is not None
        self.processes.start(life)
        self.loop.settle()

    def stop(self, name: str) -> None:
        life = self.processes.get(name)
        assert life is not None
        life.stop()
        self.loop.settle()

    def end(self, name: str, code: int = 0, signal: str | None = None) -> None:
        """A process ends by itself, or by what it was sent."""
        self.reaper.end(self.pid(name), Exit(signal=signal) if signal else Exit(code=code))
        self.loop.settle()

    def states(self, name: str) -> list[str]:
        """The states that a process entered."""
        return [event.state for event in self.world.events.after(0, 10_000).events if event.process == name]

    def close(self) -> None:
        for life in self.processes.all():
            life.close()
        self.loop.settle()
        self.loop.close()
