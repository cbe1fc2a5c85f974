"""Whether the container is well, by its own check: looked at again and again, told when that changes.

A check looks at the main process while it runs. Until the first success the container is `starting`; without one for
the start period and as long as the retries take it is `unhealthy`. So it is later, when as many looks in a row fail.
"""

import asyncio
from collections.abc import Awaitable, Callable

from corex.process.execute import execute
from corex.process.life import Life, World
from corex.process.spawn import SpawnError
from corex.wire.api import ExecRequest
from corex.wire.process import HealthCheck, HealthReport, HealthState

# Exit code of a container that ends because it is unhealthy (EX_UNAVAILABLE of sysexits.h).
UNHEALTHY = 69
# Seconds between looks at what is starting: who waits for it begins soon.
_LOOK_EVERY = 1.0
_LONGEST_LINE, _LONGEST_WHY = 1024, 200
_HERE = ("127.0.0.1", "::1")


class Monitor:
    """Looks at the main process.

    Args:
        check: how.
        main: the process.
        world: what starts commands.
        tell: takes each other state.
        end: ends the container, for a process that is unhealthy and must not be restarted.
    """

    def __init__(
        self,
        check: HealthCheck,
        main: Life,
        world: World,
        tell: Callable[[HealthReport], None],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self._check = check
        self._main = main
        self._world = world
        self._tell = tell
        self._end = end
        self._failures = 0
        self._starting_since = world.loop.time()
        self.report = HealthReport("starting", "no check has succeeded yet", world.wall_clock())

    async def run(self) -> None:
        """Look for as long as the container lives."""
        self._tell(self.report)
        while True:
            if self._main.state == "running":
                await self._judge(await self._look())
            else:
                self._begin_anew(f"its process is {self._main.state}")
            is_starting = self.report.state == "starting"
            await asyncio.sleep(
                min(self._check.interval, _LOOK_EVERY) if is_starting else self._check.interval
            )

    async def _judge(self, trouble: str) -> None:
        """What a look means; an empty `trouble` is a success."""
        self._failures = self._failures + 1 if trouble else 0
        if not trouble:
            self._say("healthy", "its check succeeded")
        elif self._is_patience_over():
            self._say("unhealthy", f"its check fails: {trouble}")
            if self._check.restart:
                await self._restart(trouble)

    def _is_patience_over(self) -> bool:
        check = self._check
        if self.report.state == "starting":
            age = self._world.loop.time() - self._starting_since
            return age >= check.start_period + check.retries * check.interval
        return self._failures >= check.retries

    async def _restart(self, trouble: str) -> None:
        if self._main.spec.restart == "never":
            await self._end()
        else:
            self._main.restart()
            self._begin_anew(f"its process was restarted, as its check failed: {trouble}")

    def _begin_anew(self, why: str) -> None:
        self._failures, self._starting_since = 0, self._world.loop.time()
        self._say("starting", why)

    def _say(self, state: HealthState, why: str) -> None:
        if state != self.report.state:
            self.report = HealthReport(state, _shown(why), self._world.wall_clock())
            self._tell(self.report)

    async def _look(self) -> str:
        """What is wrong; empty if nothing is."""
        check = self._check
        try:
            if check.argv:
                return await self._run_command()
            async with asyncio.timeout(check.timeout):
                return await _ask(check.port or 0, check.path)
        except TimeoutError:
            return f"no answer within {check.timeout:g} s"
        except (OSError, ValueError, SpawnError) as error:
            return str(error) or type(error).__name__

    async def _run_command(self) -> str:
        spec, check = self._main.spec, self._check
        request = ExecRequest(check.argv, spec.env, spec.cwd, spec.user, timeout=check.timeout)
        result = await execute(request, self._world)
        if result.timed_out:
            return f"its command did not end within {check.timeout:g} s"
        if result.exit.code == 0:
            return ""
        how = f"code {result.exit.code}" if result.exit.signal is None else result.exit.signal
        return f"its command ended with {how}"


async def _ask(port: int, path: str | None) -> str:
    """Connect to a port of the container itself; with a path, ask for it by HTTP."""
    reader, writer = await _connect(port)
    try:
        if path is None:
            return ""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: core-x\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii"))
        words = (await reader.readline()).split(maxsplit=2)
    finally:
        writer.close()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"port {port} does not speak HTTP"
    return "" if 200 <= int(words[1][:4]) < 400 else f"it answered {int(words[1][:4])}"


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for host in _HERE:
        try:
            return await asyncio.open_connection(host, port, limit=_LONGEST_LINE)
        except OSError:
            continue
    raise ConnectionRefusedError(f"port {port} takes no connection")


def _shown(why: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in why)[:_LONGEST_WHY]
