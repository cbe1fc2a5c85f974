"""Whether processes are well, by checks: looked at again and again, told when that changes.

A check looks at its process while that runs. Until the first success it is `starting`; without one for the start
period and as long as the retries take it is `unhealthy`. So it is later, when as many looks in a row fail.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from corex.process import model
from corex.process.life import Life
from corex.process.probe import look_at_port, look_by_command
from corex.process.world import World
from corex.wire.health import Check, HealthReport, HealthState

# Exit code of a container that ends because it is unhealthy (EX_UNAVAILABLE of sysexits.h).
UNHEALTHY = 69
# Seconds between looks at what is starting: who waits for it begins soon.
_LOOK_EVERY = 1.0
_LONGEST_WHY = 200


CheckT = TypeVar("CheckT", bound=Check)


class Monitor(Generic[CheckT]):
    """Looks at one process.

    Args:
        check: how.
        life: the process.
        world: what starts commands.
        tell: takes each other state.
        fail: is called once it is unhealthy, with what is wrong; returns whether it begins anew then.
    """

    def __init__(
        self,
        check: CheckT,
        life: Life,
        world: World,
        tell: Callable[[HealthReport], None],
        fail: Callable[[str], bool],
    ) -> None:
        self.check = check
        self.life = life
        self.failures = 0
        self.report = HealthReport("starting", "no check has succeeded yet", world.wall_clock())
        self._world = world
        self._tell = tell
        self._fail = fail
        self._starting_since = world.loop.time()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = self._world.loop.create_task(self.run())

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Look for as long as nobody ends it; while the process does not run, wait until it does."""
        self._tell(self.report)
        while True:
            if self.life.state in model.UP:
                self._judge(await self._look())
            else:
                self._begin_anew(f"its process is {self.life.state}")
                await self.life.wait(None, model.UP)
                self._starting_since = self._world.loop.time()
                continue
            is_starting = self.report.state == "starting"
            await asyncio.sleep(min(self.check.interval, _LOOK_EVERY) if is_starting else self.check.interval)

    def _judge(self, trouble: str) -> None:
        """What a look means; an empty `trouble` is a success."""
        self.failures = self.failures + 1 if trouble else 0
        if not trouble:
            self._say("healthy", "its check succeeded")
        elif self._is_patience_over():
            self._say("unhealthy", f"its check fails: {trouble}")
            if self._fail(trouble):
                self._begin_anew(f"its process was restarted, as its check failed: {trouble}")

    def _is_patience_over(self) -> bool:
        check = self.check
        if self.report.state == "starting":
            age = self._world.loop.time() - self._starting_since
            return age >= check.start_period + check.retries * check.interval
        return self.failures >= check.retries

    def _begin_anew(self, why: str) -> None:
        self.failures, self._starting_since = 0, self._world.loop.time()
        self._say("starting", why)

    def _say(self, state: HealthState, why: str) -> None:
        if state != self.report.state:
            self.report = HealthReport(state, _shown(why), self._world.wall_clock())
            self._tell(self.report)

    async def _look(self) -> str:
        """What is wrong; empty if nothing is."""
        check = self.check
        if check.port is not None:
            return await look_at_port(check.port, check.path, check.timeout)
        return await look_by_command(check.argv, check.timeout, self.life.spec, self._world)


def _shown(why: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in why)[:_LONGEST_WHY]
