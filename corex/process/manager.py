"""All processes of a container: declared by name, started in order, stopped in reverse."""

import asyncio
from collections.abc import Mapping

from corex.process import model
from corex.process.figures import Figures
from corex.process.life import Life, World
from corex.wire.api import ProcessInfo
from corex.wire.process import ProcessSpec

# Seconds for stopping everything, when the processes' own time-outs sum up to more.
STOP_DEADLINE = 120.0
DRAIN_DEADLINE = 1.0


class Processes:
    """The container's processes."""

    def __init__(self, world: World, figures: Figures) -> None:
        self.world = world
        self.over: asyncio.Future[int] = world.loop.create_future()
        self._figures = figures
        self._lives: dict[str, Life] = {}
        self._declared: tuple[str, ...] = ()

    def declare(self, specs: Mapping[str, ProcessSpec]) -> None:
        """Start the container's own processes; once all of them have ended for good, `over` is set.

        `over` is the exit code of the first of them, the container's main process.
        """
        for name, spec in specs.items():
            self.put(name, spec)
        self._declared = tuple(specs)
        for name in specs:
            self._lives[name].start()

    def get(self, name: str) -> Life | None:
        """The process of a name."""
        return self._lives.get(name)

    def all(self) -> list[Life]:
        """All processes in the order of their declaration."""
        return list(self._lives.values())

    def put(self, name: str, spec: ProcessSpec) -> bool:
        """Declare a process or replace its specification for the next start; true if it is new."""
        life = self._lives.get(name)
        if life is not None:
            life.spec = spec
            return False
        self._lives[name] = Life(name, spec, self.world, self._settled)
        return True

    def remove(self, name: str) -> None:
        """Forget a settled process and its log."""
        self._lives.pop(name).close()
        self.world.logs.forget(name)

    def info(self, life: Life) -> ProcessInfo:
        """What the outside sees of a process."""
        return ProcessInfo(
            name=life.name,
            spec=life.spec,
            wanted="running" if life.wanted else "stopped",
            state=life.state,
            why=life.why,
            since=life.since,
            pid=life.pid,
            restarts=life.restarts,
            exit=life.exit,
            next_start=life.next_start,
            usage=self._figures.of(life.pid) if life.pid else None,
            outdated=life.pid is not None and life.started_spec != life.spec,
        )

    async def stop_all(self) -> int:
        """Stop everything, last declared first, each within its own time; the main process's exit code.

        What still runs after the deadline is left to the kernel, which kills a namespace with its PID 1.
        """
        loop = self.world.loop
        deadline = loop.time() + STOP_DEADLINE
        for life in reversed(self.all()):
            life.stop()
            await life.wait(max(0.0, deadline - loop.time()), model.SETTLED)
        await self.drained()
        return self._exit_code()

    async def drained(self) -> None:
        """Wait a moment for output that is still in pipes."""
        await asyncio.gather(*(life.drained(DRAIN_DEADLINE) for life in self.all()))

    def _settled(self) -> None:
        lives = self._lives.values()
        declared = [self._lives[name] for name in self._declared if name in self._lives]
        has_ended = all(life.state in ("exited", "failed") for life in declared)
        is_idle = not any(life.state in model.ACTIVE for life in lives)
        if declared and has_ended and is_idle and not self.over.done():
            self.over.set_result(self._exit_code())

    def _exit_code(self) -> int:
        main = next((self._lives[name] for name in self._declared if name in self._lives), None)
        return main.exit_code if main else 0
