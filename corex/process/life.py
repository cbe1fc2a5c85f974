"""One process's life: it sends events to the table of `corex.process.model` and does what states ask for."""

import asyncio
import os
import signal
from contextlib import suppress
from datetime import UTC, tzinfo
from typing import Protocol

from corex.process import model, schedule
from corex.process.clock import Alarm
from corex.process.model import LifeEvent
from corex.process.order import Lack
from corex.process.reach import Kin
from corex.process.run import Run, Signs
from corex.process.spawn import Child, Command, SpawnError
from corex.process.stage import Stage
from corex.process.world import World
from corex.wire.api import Exit, State
from corex.wire.process import ProcessSpec
from corex.wire.sessions import Window


class Ties(Protocol):
    """What a life asks of, and tells, those that keep it among others."""

    def lack(self, life: "Life") -> Lack | None:
        """What is missing before it may start; None if nothing is."""

    def changed(self, life: "Life") -> None:
        """It entered a state."""

    def stop_container(self, life: "Life") -> None:
        """Its end ends the container, with its exit code."""


class Life:
    """A declared process, whether it runs or not."""

    __slots__ = (
        "_failures",
        "_killer",
        "_spawning",
        "_ties",
        "_timer",
        "_waiters",
        "_world",
        "exit",
        "exit_code",
        "last_start",
        "name",
        "next_start",
        "restarts",
        "run",
        "since",
        "spec",
        "stage",
        "state",
        "status",
        "wanted",
        "was_asked",
        "why",
    )

    def __init__(self, name: str, spec: ProcessSpec, world: World, ties: Ties) -> None:
        self.name = name
        self.spec = spec
        self.wanted = False
        self.was_asked = False  # whether anybody ever wanted it to run or stop
        self.state: State = "stopped"
        self.why = "it was never started"
        self.status = ""
        self.since = world.wall_clock()
        self.run: Run | None = None  # the run that is, or the last one for as long as its output may come
        self.stage: Stage | None = None  # what people are attached to, run after run, once it had a terminal
        self.restarts = 0
        self.exit: Exit | None = None
        self.exit_code = 0
        self.last_start: float | None = None
        self.next_start: float | None = None
        self._world = world
        self._ties = ties
        self._failures = 0
        self._timer: asyncio.TimerHandle | Alarm | None = None
        self._killer: asyncio.TimerHandle | None = None
        self._spawning: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id inside the container, if there is a process."""
        return self.run.kin.pid if self.run and self.run.kin and self.state in model.ALIVE else None

    @property
    def outdated(self) -> bool:
        """Whether what runs was started by something else than its specification says now."""
        return self.pid is not None and self.run is not None and model.must_restart(self.run.spec, self.spec)

    # What people ask for.

    def start(self, why: str = "it was started on request") -> None:
        """Want it to run; at once if it waits for its next start."""
        self.wanted = self.was_asked = True
        if self.state in ("starting", "running", "ready", "stopping"):
            return
        self._failures = 0
        if self.spec.schedule is not None and self.state in model.SETTLED:
            self._plan(why)
        elif self.state == "waiting":
            self.look_again()
        else:
            self._begin(why)

    def stop(self, why: str = "it was stopped on request") -> None:
        """Want it stopped: the stop signal, then SIGKILL after the specification's time."""
        self.wanted, self.was_asked = False, True
        if self.state == "stopping":
            if self.run is not None:
                self.run.condemned = ""
        elif self.state in model.UP:
            self._send_stop("stop", f"it was asked to stop with {self.spec.stop_signal}")
        elif self.state == "starting":
            self._enter("stop", "it is stopped as soon as it has started")
        elif self.state != "stopped":
            self._disarm()
            self._enter("stop", why)

    def restart(self) -> None:
        """Stop it if it runs, then start it."""
        if self.state in (*model.UP, "stopping"):
            self.stop()
        self.start()

    def replace(self, spec: ProcessSpec) -> None:
        """Be as another specification says: what runs, from its next start on."""
        self.spec = spec
        if self.state == "scheduled":
            if spec.schedule is None:
                self.stop("its schedule was taken away")
            else:
                self._plan("its schedule was changed")
        self.look_again()

    def reset(self) -> None:
        """Forget earlier failures; one that waits for its restart is started now, a failed one is stopped."""
        self._failures = self.restarts = 0
        if self.state == "backoff":
            self._begin("its failures were forgotten on request")
        elif self.state in ("exited", "failed"):
            self.exit, self.exit_code, self.wanted = None, 0, False
            self._enter("stop", "its end was forgotten on request")

    def signal(self, number: int) -> None:
        """Send a signal to those that its scope names.

        Raises:
            ProcessLookupError: it does not run.
            PermissionError: the kernel refuses it.
        """
        if self.pid is None or self.run is None or self.run.kin is None:
            raise ProcessLookupError(f"{self.name} does not run")
        self.run.kin.send_strictly(number)

    def condemn(self, why: str) -> None:
        """End it as a failure, if it runs."""
        if self.run is not None and self.state in model.UP:
            self.run.condemned = why
            self._send_stop("end", f"{why}, and was sent {self.spec.stop_signal}")

    def look_again(self) -> None:
        """Others changed: start it if it waited for that, or see that it never can."""
        if self.state != "waiting" or not self.wanted:
            return
        lack = self._ties.lack(self)
        if lack is None:
            self._launch("what it waited for is there")
        elif lack.forever:
            self._disarm()
            self.exit, self.exit_code = None, 1
            self._act_on_end("broke", succeeded=False)
            self._enter("broke", lack.why)
        else:
            self.why = lack.why

    def clock_was_set(self) -> None:
        """Plan the next start anew."""
        if self.state == "scheduled" and self.next_start is not None:
            self._plan("the clock was set")

    async def wait(self, seconds: float | None, states: frozenset[State]) -> bool:
        """Whether it gets into one of the states within some seconds; None waits for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.state not in states:
                    waiter: asyncio.Future[None] = self._world.loop.create_future()
                    self._waiters = [*(self._waiters or ()), waiter]
                    await waiter
        return self.state in states

    def close(self) -> None:
        """Let go of its output and its cgroup; for a process that is not declared any more."""
        if self.run is not None:
            self.run.close()
        self.run = None
        if self.stage is not None:
            self.stage.bell.close()
        self._world.groups.remove(self.name)

    # What follows.

    def _enter(self, event: LifeEvent, why: str) -> None:
        before = self.state
        self.state = model.next_state(before, event)
        self.why = why
        if self.state == before:
            return
        self.since = self._world.wall_clock()
        if self.stage is not None:
            self.stage.done, self.stage.exit = self.state in model.SETTLED, self.exit
            self.stage.bell.ring()
        self._world.events.add(self.name, self.state, why)
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._ties.changed(self)

    def _begin(self, why: str) -> None:
        """Start it, or wait for others."""
        self._disarm()
        lack = self._ties.lack(self)
        if lack is None:
            self._launch(why)
        else:
            self._enter("wait", lack.why)
            if lack.forever:
                self.look_again()

    def _launch(self, why: str) -> None:
        self._disarm()
        self._enter("start", why)
        self._spawning = self._world.loop.create_task(self._spawn())

    async def _spawn(self) -> None:
        spec, world = self.spec, self._world
        if self.run is not None:
            self.run.close()
        self.run = run = Run(spec, self._signs() if spec.ready else None)
        self.last_start, self.status = world.wall_clock(), ""
        door, group = -1, None
        world.reaper.spawning()
        try:
            group = world.groups.make(self.name) if spec.scope == "tree" else None
            door = group.door() if group else -1
            child = await world.spawner.spawn(_command(spec, run.prepare(world), door, self._window(spec)))
        except (SpawnError, OSError) as error:
            pid, code = (error.pid, error.exit_code) if isinstance(error, SpawnError) else (None, 126)
            world.reaper.spawned(pid, lambda _: None)
            if group:
                group.close()
            run.end()
            self._ended(None, f"it could not be started: {error}", code)
            return
        finally:
            self._spawning = None
            if door >= 0:
                os.close(door)
        self._started(run, child, Kin(child.pid, spec.scope, group, world.figures))
        world.reaper.spawned(child.pid, self._exited)

    def _window(self, spec: ProcessSpec) -> Window | None:
        """The size of the terminal that it gets: what people gave the last one."""
        if not spec.tty:
            return None
        if self.stage is None:
            self.stage = Stage(Window())
        return self.stage.window

    def _started(self, run: Run, child: Child, kin: Kin) -> None:
        run.begin(self.name, child, kin, self._world, self.stage if run.spec.tty else None)
        was_stopped = self.state == "stopping"
        self._enter("spawned", self.why if was_stopped else f"it runs: {self.why}")
        if was_stopped:
            self._send_stop("stop", f"it was asked to stop with {self.spec.stop_signal}")
        else:
            run.await_ready(self._world)

    def _signs(self) -> Signs:
        return Signs(self._ready, self._unready, self.condemn, self._told)

    def _ready(self, how: str) -> None:
        if self.state == "running" and self.run is not None:
            self.run.rest()
            self.run.watch(self._world)
            self._enter("ready", f"it is ready: {how}")

    def _unready(self, why: str) -> None:
        if self.state in model.UP:
            self._enter("unready", why)

    def _told(self, status: str) -> None:
        self.status = status

    def _send_stop(self, event: LifeEvent, why: str) -> None:
        if self.run is not None:
            self.run.rest()
        self._enter(event, why)
        self._kill(model.signal_number(self.spec.stop_signal))
        self._killer = self._world.loop.call_later(self.spec.stop_timeout, self._lose_patience)

    def _lose_patience(self) -> None:
        self.why = f"it did not end within {self.spec.stop_timeout:g} s and was sent SIGKILL"
        if self.run is not None:
            self.run.killed = self.why
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        if self.run is not None and self.run.kin is not None:
            self.run.kin.send(number)

    def _exited(self, ended: Exit) -> None:
        run = self.run
        if run is not None and run.kin is not None:
            run.end()
            # What it leaves would hold ports and files against the next start.
            run.kin.end()
            if run.kin.group is not None:
                run.kin.group.close()
            run.kin = None
        self.exit = ended
        how = f"exited with code {ended.code}" if ended.signal is None else f"was ended by {ended.signal}"
        self._ended(ended, f"it {how}", model.exit_code_of(ended))

    def _ended(self, ended: Exit | None, how: str, exit_code: int) -> None:
        self.exit_code = exit_code
        self._disarm()
        condemned = self.run.condemned if self.run else ""
        if self.state == "stopping" and not condemned:
            self._gone(how)
            return
        succeeded = ended is not None and ended.code == 0 and not condemned
        if condemned:
            how = f"{condemned}, and {how[3:]}"
        now = self._world.loop.time()
        if ended is not None and self.run is not None and now - self.run.since >= self.spec.backoff.stable:
            self._failures = 0
        self._failures += 1
        verdict = model.verdict_on_end(self.spec, succeeded=succeeded, failures=self._failures)
        self._act_on_end(verdict.event, succeeded=succeeded)
        if verdict.event == "retry":
            self._retry(how)
        elif verdict.event == "schedule":
            self._plan(how)
        else:
            self._enter(verdict.event, f"{how}; {verdict.why}")

    def _gone(self, how: str) -> None:
        killed = f" because {self.run.killed}" if self.run and self.run.killed else ""
        self._enter("gone", f"it was stopped on request and {how[3:]}{killed}")
        if self.wanted:
            self._begin("it was restarted on request")

    def _act_on_end(self, event: LifeEvent, *, succeeded: bool) -> None:
        action = self.spec.on_success if succeeded else self.spec.on_failure
        if event != "retry" and action == "stop-container":
            self._ties.stop_container(self)

    def _retry(self, how: str) -> None:
        delay = model.backoff_delay(self.spec.backoff, self._failures, self._world.jitter())
        self.next_start = self._world.wall_clock() + delay
        self._timer = self._world.loop.call_later(delay, self._try_again)
        self._enter("retry", f"{how}; the next start follows after {delay:.1f} s")

    def _try_again(self) -> None:
        self.restarts += 1
        self._begin(f"it is restarted, policy {self.spec.restart}")

    # Schedules.

    def _plan(self, why: str) -> None:
        """Wait for the next start by the schedule."""
        self._disarm()
        self._failures = 0
        self._enter("schedule", f"{why}; its schedule starts it")
        plan = self.spec.schedule
        if plan is None:
            return
        if plan.cron is None or schedule.zone_file(plan.zone) is None:
            self._arm(UTC)
        else:
            self._spawning = self._world.loop.create_task(self._arm_in_zone(plan.zone))

    async def _arm_in_zone(self, name: str) -> None:
        file = schedule.zone_file(name)
        try:
            zone = schedule.read_zone(name, await self._world.spawner.read(file or ""))
        except (ValueError, TimeoutError) as error:
            if self.state == "scheduled":
                self.exit_code = 1
                self._enter("broke", str(error) or "the container's storage does not answer")
            return
        finally:
            self._spawning = None
        self._arm(zone)

    def _arm(self, zone: tzinfo) -> None:
        plan = self.spec.schedule
        if self.state != "scheduled" or plan is None:
            return
        self._disarm()
        try:
            moment = schedule.next_start(plan, self._world.wall_clock(), self.last_start, zone)
        except (StopIteration, ValueError, OverflowError, OSError):
            self._enter("broke", "its schedule has no further moment")
            return
        self.next_start = moment
        self._timer = self._world.alarms.at(moment, self._due)

    def _due(self) -> None:
        if self.state == "scheduled":
            self._begin("its schedule was due")

    def _disarm(self) -> None:
        for timer in (self._timer, self._killer):
            if timer is not None:
                timer.cancel()
        self._timer = self._killer = None
        self.next_start = None


def _command(spec: ProcessSpec, added: dict[str, str], door: int, window: Window | None) -> Command:
    return Command(
        spec.argv,
        {**spec.env, **added} if added else spec.env,
        spec.cwd,
        spec.user,
        groups=spec.groups,
        umask=int(spec.umask, 8),
        limits=spec.limits,
        nice=spec.nice,
        door=door,
        terminal=(window.rows, window.columns) if window else None,
    )
