"""One process's life: it sends events to the table of `corex.process.model` and does what states ask for."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from corex.process import model
from corex.process.events import Events
from corex.process.logs import Bell, Logs
from corex.process.model import LifeEvent
from corex.process.output import Lines, Pipe
from corex.process.reap import Reaper
from corex.process.spawn import Child, Command, Spawner, SpawnError
from corex.wire.api import Exit, State, Stream
from corex.wire.process import ProcessSpec


@dataclass(frozen=True)
class World:
    """What lives share.

    Attributes:
        loop: the event loop; its time() is the monotonic clock, in seconds.
        spawner: starts children.
        reaper: tells of their ends.
        logs: takes their output.
        events: takes the states they enter.
        wall_clock: seconds since 1970 UTC.
        jitter: a random number from 0 to 1 at each call.
    """

    loop: asyncio.AbstractEventLoop
    spawner: Spawner
    reaper: Reaper
    logs: Logs
    events: Events
    wall_clock: Callable[[], float]
    jitter: Callable[[], float]


class Life:
    """A declared process, whether it runs or not."""

    def __init__(self, name: str, spec: ProcessSpec, world: World, on_settled: Callable[[], None]) -> None:
        self.name = name
        self.spec = spec
        self.wanted = False
        self.state: State = "stopped"
        self.why = "it was never started"
        self.since = world.wall_clock()
        self.pid: int | None = None
        self.started_spec: ProcessSpec | None = None
        self.restarts = 0
        self.exit: Exit | None = None
        self.exit_code = 0
        self.next_start: float | None = None
        self.bell = Bell()
        self._world = world
        self._on_settled = on_settled
        self._failures = 0
        self._up_since = 0.0
        self._was_killed = False
        self._timer: asyncio.TimerHandle | None = None
        self._spawning: asyncio.Task[None] | None = None
        self._pipes: list[Pipe] = []

    # What people ask for.

    def start(self) -> None:
        """Want it to run; at once if it waits for its next start."""
        self.wanted = True
        if self.state not in ("starting", "running", "stopping"):
            self._failures = 0
            self._launch("it was started on request")

    def stop(self) -> None:
        """Want it stopped: the stop signal, then SIGKILL after the specification's time."""
        self.wanted = False
        if self.state == "stopping":
            return
        if self.state == "running":
            self._enter("stop", f"it was asked to stop with {self.spec.stop_signal}")
            self._send_stop()
        elif self.state == "starting":
            self._enter("stop", "it is stopped as soon as it has started")
        elif self.state != "stopped":
            self._disarm()
            self._enter("stop", "it was stopped on request")

    def restart(self) -> None:
        """Stop it if it runs, then start it."""
        if self.state == "running":
            self.stop()
        self.start()

    def signal(self, number: int) -> None:
        """Send a signal to its process group.

        Raises:
            ProcessLookupError: it does not run.
        """
        if self.pid is None:
            raise ProcessLookupError(f"{self.name} does not run")
        os.killpg(self.pid, number)

    async def wait(self, seconds: float, states: frozenset[State]) -> bool:
        """Whether it gets into one of the states within some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.state not in states:
                    await self.bell.wait()
        return self.state in states

    async def drained(self, seconds: float) -> None:
        """Wait until all that it wrote is in the log, for some seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for pipe in self._pipes:
                    await pipe.ended()

    def close(self) -> None:
        """Let go of its output; for a process that is not declared any more."""
        for pipe in self._pipes:
            pipe.close()
        self._pipes = []

    # What follows.

    def _enter(self, event: LifeEvent, why: str) -> None:
        before = self.state
        self.state = model.next_state(before, event)
        self.why = why
        if self.state != before:
            self.since = self._world.wall_clock()
            self._world.events.add(self.name, self.state, why)
            self.bell.ring()
        if self.state in model.SETTLED:
            self._on_settled()

    def _launch(self, why: str) -> None:
        self._disarm()
        self._enter("start", why)
        if self.state == "starting":
            self._spawning = self._world.loop.create_task(self._spawn())

    async def _spawn(self) -> None:
        spec, world = self.spec, self._world
        world.reaper.spawning()
        try:
            child = await world.spawner.spawn(Command(spec.argv, spec.env, spec.cwd, spec.user))
        except SpawnError as error:
            world.reaper.spawned(error.pid, lambda _: None)
            self._ended(None, f"it could not be started: {error}", error.exit_code)
            return
        self._started(child, spec)
        world.reaper.spawned(child.pid, self._exited)

    def _started(self, child: Child, spec: ProcessSpec) -> None:
        os.close(child.stdin)
        self.close()
        self._pipes = [self._pipe(child.stdout, "stdout"), self._pipe(child.stderr, "stderr")]
        self.pid, self.started_spec, self._up_since = child.pid, spec, self._world.loop.time()
        self._was_killed = False
        was_stopped = self.state == "stopping"
        self._enter("spawned", self.why if was_stopped else f"it runs: {self.why}")
        if was_stopped:
            self._send_stop()

    def _pipe(self, descriptor: int, stream: Stream) -> Pipe:
        logs = self._world.logs
        lines = Lines(lambda lines, partial: logs.write(self.name, stream, lines, partial=partial))
        return Pipe(self._world.loop, descriptor, lines)

    def _send_stop(self) -> None:
        self._kill(model.signal_number(self.spec.stop_signal))
        self._timer = self._world.loop.call_later(self.spec.stop_timeout, self._lose_patience)

    def _lose_patience(self) -> None:
        self.why = f"it did not end within {self.spec.stop_timeout:g} s and was sent SIGKILL"
        self._was_killed = True
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        # The number is ours until the reaper has told us of the end; the group may still be empty.
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _exited(self, ended: Exit) -> None:
        for pipe in self._pipes:
            pipe.drain()
        # What the leader leaves in its group would hold ports and files against the next start.
        self._kill(signal.SIGKILL)
        self.pid = None
        self.exit = ended
        how = f"exited with code {ended.code}" if ended.signal is None else f"was ended by {ended.signal}"
        self._ended(ended, f"it {how}", model.exit_code_of(ended))

    def _ended(self, ended: Exit | None, how: str, exit_code: int) -> None:
        self.exit_code = exit_code
        self._disarm()
        if self.state == "stopping":
            self._stopped(ended, how)
            return
        event = model.event_after_exit(self.spec.restart, ended, wanted=self.wanted)
        if event == "retry":
            self._retry(ended is not None, how)
        else:
            self._enter(event, f"{how}; its restart policy is {self.spec.restart}")

    def _stopped(self, ended: Exit | None, how: str) -> None:
        killed = f" because {self.why}" if self._was_killed else ""
        self._enter("ended" if ended else "broke", f"it was stopped on request and {how[3:]}{killed}")
        if self.wanted:
            self._launch("it was restarted on request")

    def _retry(self, ran: bool, how: str) -> None:
        now = self._world.loop.time()
        if ran and now - self._up_since >= model.STABLE_AFTER:
            self._failures = 0
        self._failures += 1
        delay = model.backoff_delay(self._failures, self._world.jitter())
        self.next_start = self._world.wall_clock() + delay
        self._timer = self._world.loop.call_later(delay, self._try_again)
        self._enter("retry", f"{how}; the next start follows after {delay:.1f} s")

    def _try_again(self) -> None:
        self.restarts += 1
        self._launch(f"it is restarted, policy {self.spec.restart}")

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self.next_start = None
