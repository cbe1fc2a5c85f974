"""All processes of a container: declared by layers, started after one another, stopped the other way round."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from corex.forward.forwarder import Forwarder
from corex.process import model, order, plan
from corex.process.health import UNHEALTHY, Monitor
from corex.process.life import Life
from corex.process.order import Lack, Seen
from corex.process.plan import Standing
from corex.process.run import drain
from corex.process.world import World
from corex.wire.api import CheckInfo, ProcessInfo, Usage
from corex.wire.health import HealthCheck, HealthReport, HealthState
from corex.wire.plan import Change, CheckLayer, Layer, Plan, ProcessLayer, TargetLayer
from corex.wire.process import CheckSpec, ProcessSpec
from corex.wire.targets import TargetInfo, TargetSpec

# Seconds for stopping everything, when the processes' own time-outs sum up to more.
STOP_DEADLINE = 120.0
DRAIN_DEADLINE = 1.0
# The layer that the container was created with, the lowest, and that of single processes, the highest.
CREATED, EDITS = "container", "edits"
_NOTHING_KEPT: Mapping[str, Layer | None] = MappingProxyType({})

_log = logging.getLogger(__name__)


class Processes:
    """The container's processes, their checks, and where their lines are sent."""

    def __init__(self, world: World, container: str = "") -> None:
        self.world = world
        self._container = container
        self.over: asyncio.Future[int] = world.loop.create_future()
        self.is_ending = False
        # Is told which layers are not as the container was created, before they count; what it raises, changes none.
        self.keep: Callable[[Mapping[str, Layer | None]], None] = lambda _: None
        self._created: Layer | None = None
        self.layers: dict[str, Layer] = {}
        self.plan = Plan()
        self._lives: dict[str, Life] = {}
        self._monitors: dict[str, Monitor[CheckSpec]] = {}
        self._watched: dict[str, list[Monitor[Any]]] = {}  # by process
        self._forwarders: dict[str, Forwarder] = {}
        self._order: Mapping[str, tuple[str, ...]] | None = None
        self._declared: dict[str, None] = {}
        self._unfinished: set[str] = set()
        self._active: set[str] = set()
        self._changed: deque[str] = deque()
        self._is_telling = False
        self._idle: asyncio.Future[None] | None = None
        self._end_code: int | None = None
        self._ending: asyncio.Task[None] | None = None

    def declare(
        self,
        specs: Mapping[str, ProcessSpec],
        checks: Mapping[str, CheckSpec] | None = None,
        targets: Mapping[str, TargetSpec] | None = None,
        kept: Mapping[str, Layer | None] = _NOTHING_KEPT,
    ) -> None:
        """Start the container's own processes; once all that were started have ended for good, `over` is set.

        `over` is the exit code of the first of them, the container's main process.

        Args:
            specs: the processes that the container was created with.
            checks: its checks.
            targets: where its lines are sent.
            kept: what `keep` was told by an earlier Core-X of this container; what makes no plan with the rest is
                left out.

        Raises:
            PlanError: the container's own make no plan.
        """
        if specs:
            self._created = Layer(
                "what the container was created with",
                {name: _entry(spec) for name, spec in specs.items()},
                {name: CheckLayer("replace", **_fields(check)) for name, check in (checks or {}).items()},
                {name: TargetLayer("replace", **_fields(target)) for name, target in (targets or {}).items()},
            )
            self.layers = {CREATED: self._created}
        own = plan.merge(self.layers)
        try:
            layers = {**self.layers, **kept}
            known = {name: layer for name, layer in layers.items() if layer is not None}
            self.plan, self.layers = plan.merge(known), known
        except plan.PlanError as error:
            _log.warning("What was kept makes no plan any more at=%s: %s", error.pointer, error.reason)
            self.plan = own
        self._declared = dict.fromkeys(
            name for name, spec in specs.items() if spec.enabled and name in self.plan.processes
        )
        self._unfinished = set(self._declared)
        self.apply()

    # Reading.

    def get(self, name: str) -> Life | None:
        """The process of a name."""
        return self._lives.get(name)

    def all(self) -> list[Life]:
        """All processes in the order of their declaration."""
        return list(self._lives.values())

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
            usage=self._usage(life),
            outdated=life.outdated,
            status=life.status,
            health=self._health(life.name),
            last_start=life.last_start,
            layers=tuple(name for name, layer in self.layers.items() if life.name in layer.processes),
        )

    def _usage(self, life: Life) -> Usage | None:
        if life.pid is None or life.run is None or life.run.kin is None:
            return None
        group = life.run.kin.group
        return self.world.figures.of_group(group) if group else self.world.figures.of(life.pid)

    def checks(self) -> list[CheckInfo]:
        """All checks of the plan in the order of their declaration."""
        return [check_info(name, monitor) for name, monitor in self._monitors.items()]

    def check(self, name: str) -> CheckInfo | None:
        """The check of a name."""
        monitor = self._monitors.get(name)
        return check_info(name, monitor) if monitor else None

    def targets(self) -> list[TargetInfo]:
        """All targets of the plan, in the order of their declaration."""
        return [one.info() for one in self._forwarders.values()]

    def target(self, name: str) -> TargetInfo | None:
        """The target of a name."""
        found = self._forwarders.get(name)
        return found.info() if found else None

    # Plans.

    def put_layer(self, name: str, layer: Layer) -> bool:
        """Add a layer above the others, or change one where it is; true if it is new. Nothing is applied yet.

        Raises:
            PlanError: with it, the layers make no plan. It is not kept then.
        """
        is_new = name not in self.layers
        layers = self.layers_with(name, layer)
        self._count(layers, plan.merge(layers))
        return is_new

    def layers_with(self, name: str, layer: Layer) -> dict[str, Layer]:
        """The layers as they would be with another one; that of single processes stays the highest."""
        layers = {**self.layers, name: layer}
        if EDITS in layers:
            layers[EDITS] = layers.pop(EDITS)
        return layers

    def remove_layer(self, name: str) -> None:
        """Take a layer away. Nothing is applied yet.

        Raises:
            PlanError: without it, the layers make no plan.
        """
        layers = {other: layer for other, layer in self.layers.items() if other != name}
        self._count(layers, plan.merge(layers))

    def _count(self, layers: dict[str, Layer], merged: Plan) -> None:
        """Have other layers count, and what they say together."""
        changed: dict[str, Layer | None] = {
            name: layer for name, layer in layers.items() if name != CREATED or layer != self._created
        }
        if self._created is not None and CREATED not in layers:
            changed[CREATED] = None
        self.keep(changed)
        self.layers, self.plan = layers, merged

    def differences(self, wanted: Plan) -> list[Change]:
        """What applying a plan would do."""
        standing = {
            life.name: Standing(
                life.spec, life.run.spec if life.pid and life.run else None, life.wanted, life.was_asked
            )
            for life in self.all()
        }
        checks = {name: monitor.check for name, monitor in self._monitors.items()}
        targets = {name: one.spec for name, one in self._forwarders.items()}
        return plan.difference(standing, checks, wanted, targets)

    def apply(self) -> list[Change]:
        """Make processes and checks what the plan says; what did not change goes on. Returns what was done."""
        changes = self.differences(self.plan)
        for name, spec in self.plan.processes.items():
            self._adopt(name, spec)
        for change in changes:
            if change.check:
                self._apply_to_check(change.check)
            elif change.target:
                self._apply_to_target(change.target)
        for change in changes:
            life = self._lives.get(change.process)
            if life is None:
                continue
            if change.verb == "stop":
                self._dismiss(life)
            elif change.verb == "restart":
                self.restart(life)
            elif change.verb == "start":
                self.start(life)
        return changes

    def put(self, name: str, spec: ProcessSpec) -> bool:
        """Declare a process, or replace its specification for the next start; true if it is new.

        Raises:
            PlanError: with it, there is no plan.
        """
        known = self.layers.get(EDITS, Layer("single processes"))
        merged = plan.with_process(self.plan, name, spec)
        processes = {**known.processes, name: _entry(spec)}
        self._count(self.layers_with(EDITS, msgspec.structs.replace(known, processes=processes)), merged)
        is_new = name not in self._lives
        self._adopt(name, spec)
        return is_new

    def remove(self, name: str) -> None:
        """Forget a settled process and its log.

        Raises:
            PlanError: another layer declares it, or others need it.
        """
        known = self.layers.get(EDITS, Layer())
        left = {other: entry for other, entry in known.processes.items() if other != name}
        layers = self.layers_with(EDITS, msgspec.structs.replace(known, processes=left))
        owner = next((one for one, layer in layers.items() if name in layer.processes), None)
        if owner is not None:
            raise plan.PlanError(f"/processes/{name}", f"layer {owner} declares it")
        self._count(layers, plan.merge(layers))
        self._forget(self._lives[name])

    def _adopt(self, name: str, spec: ProcessSpec) -> None:
        life = self._lives.get(name)
        if spec.after != (life.spec.after if life else {}):
            self._order = None
        if life is None:
            self._lives[name] = Life(name, spec, self.world, self)
        elif life.spec != spec:
            life.replace(spec)

    def _dismiss(self, life: Life) -> None:
        """Stop what no layer declares any more, and forget it then."""
        life.stop("no layer declares it any more")
        if life.state in model.SETTLED:
            self._forget(life)

    def _forget(self, life: Life) -> None:
        if self._lives.pop(life.name, None) is None:
            return
        self._order = None
        life.close()
        self.world.logs.forget(life.name)
        self._active.discard(life.name)
        self._unfinished.discard(life.name)

    # Verbs.

    def start(self, life: Life, why: str = "it was started on request") -> None:
        """Want a process to run, and those that it starts after, as far as they are not what it waits for."""
        if self.is_ending:
            return
        wanted, seen = [life], {life.name}
        for one in wanted:
            for name, condition in one.spec.after.items():
                other = self._lives.get(name)
                if other is None or name in seen or order.is_met(condition, self._seen(other)):
                    continue
                seen.add(name)
                wanted.append(other)
        for one in reversed(wanted):
            if one is life:
                one.start(why)
            elif one.state in model.SETTLED:
                one.start(f"it was started for {life.name}")

    def restart(self, life: Life) -> None:
        """Stop a process if it runs, then start it."""
        if life.state in (*model.UP, "stopping"):
            life.restart()
        else:
            self.start(life)

    async def stop_all(self) -> int:
        """Stop everything, each process once those have ended that start after it; the container's exit code.

        What still runs after the deadline is left to the kernel, which kills a namespace with its PID 1.
        """
        self.is_ending = True
        for monitor in self._monitors.values():
            monitor.stop()
        lives = self.all()
        for life in lives:
            if life.state not in (*model.ALIVE, "starting"):
                life.stop("the container is stopped")
        for life in reversed(lives):
            self._stop_if_free(life)
        if self._active:
            self._idle = self.world.loop.create_future()
            await asyncio.wait((self._idle,), timeout=STOP_DEADLINE)
        await self.drained()
        return self._exit_code()

    async def drained(self) -> None:
        """Wait a moment for output that is still in pipes."""
        await drain([life.run for life in self.all() if life.run], DRAIN_DEADLINE)

    async def forwarded(self) -> None:
        """Wait a moment until targets have the last lines, and send no more."""
        await asyncio.gather(*(one.finish() for one in self._forwarders.values()))

    def _apply_to_target(self, name: str) -> None:
        """One that changes goes on where it was; a new one begins with what is written from now on."""
        known = self._forwarders.pop(name, None)
        if known is not None:
            known.stop()
        spec = self.plan.targets.get(name)
        if spec is not None:
            lines = known.known if known else self.world.logs.positions()
            made = self._forwarders[name] = Forwarder(self._container, name, spec, self.world, lines)
            made.start()

    def end(self, code: int | None = None) -> None:
        """End the container, with an exit code or the main process's: stop everything, then set `over`."""
        if self._ending is None:
            self._end_code = code
        if self._ending is None:
            self._ending = self.world.loop.create_task(self._end())

    async def _end(self) -> None:
        code = await self.stop_all()
        if not self.over.done():
            self.over.set_result(code)

    def clock_was_set(self) -> None:
        """Somebody set the wall clock: schedules are looked at anew."""
        for life in self.all():
            life.clock_was_set()

    # What lives ask and tell.

    def lack(self, life: Life) -> Lack | None:
        """What is missing before a process may start."""
        found: Lack | None = None
        for name, condition in life.spec.after.items():
            other = self._lives.get(name)
            if other is None:
                lack: Lack | None = Lack(f"it starts after {name}, which is not there", forever=False)
            else:
                lack = order.lack_of(name, condition, self._seen(other))
            if lack is not None and lack.forever:
                return lack
            found = found or lack
        return found

    def stop_container(self, life: Life) -> None:
        """A process's end ends the container."""
        self.end(life.exit_code)

    def changed(self, life: Life) -> None:
        """A process entered a state: tell those that depend on it, one change after the other."""
        if life.state in model.ACTIVE:
            self._active.add(life.name)
        else:
            self._active.discard(life.name)
        if life.name in self._declared and life.state in ("exited", "failed"):
            self._unfinished.discard(life.name)
        elif life.name in self._declared and life.name in self._lives:
            self._unfinished.add(life.name)
        self._changed.append(life.name)
        self._tell()

    def _tell(self) -> None:
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._changed:
                self._tell_of(self._changed.popleft())
        finally:
            self._is_telling = False
        self._settle()

    def _dependents(self, name: str) -> tuple[str, ...]:
        """The processes that start after one."""
        if self._order is None:
            self._order = order.dependents_of({life.name: life.spec for life in self.all()})
        return self._order.get(name, ())

    def _tell_of(self, name: str) -> None:
        for dependent in self._dependents(name):
            if dependent in self._lives:
                self._lives[dependent].look_again()
        life = self._lives.get(name)
        if life is None or life.state not in model.SETTLED:
            return
        if self.is_ending:
            for other in life.spec.after:
                if other in self._lives:
                    self._stop_if_free(self._lives[other])
        elif name not in self.plan.processes:
            self._forget(life)

    def _stop_if_free(self, life: Life) -> None:
        is_needed = any(one in self._active for one in self._dependents(life.name))
        if life.state in model.ACTIVE and life.state != "stopping" and not is_needed:
            life.stop()

    def _settle(self) -> None:
        if self._active:
            return
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self._declared and not self._unfinished and not self.is_ending and not self.over.done():
            self.over.set_result(self._exit_code())

    def _exit_code(self) -> int:
        if self._end_code is not None:
            return self._end_code
        main = next((self._lives[name] for name in self._declared if name in self._lives), None)
        return main.exit_code if main else 0

    def _seen(self, life: Life) -> Seen:
        succeeded = None if life.exit is None else life.exit.code == 0
        return Seen(life.spec, life.state, life.why, succeeded, self._health(life.name) == "healthy")

    # Checks.

    def watch_container(self, monitor: Monitor[HealthCheck]) -> None:
        """Have the container's own check count for its main process."""
        self._watched.setdefault(monitor.life.name, []).append(monitor)

    def health_changed(self, process: str) -> None:
        """A check of a process says something else."""
        self._changed.append(process)
        self._tell()

    def _health(self, process: str) -> HealthState | None:
        """What all checks of a process say together; None without any."""
        states = [monitor.report.state for monitor in self._watched.get(process, ())]
        return next((state for state in _WORST_FIRST if state in states), None)

    def _apply_to_check(self, name: str) -> None:
        known = self._monitors.pop(name, None)
        if known is not None:
            known.stop()
            self._watched[known.life.name].remove(known)
        spec = self.plan.checks.get(name)
        if spec is None:
            return
        life = self._lives[spec.process]

        def tell(_report: HealthReport) -> None:
            self.health_changed(life.name)

        def fail(trouble: str) -> bool:
            why = f"check {name} failed: {trouble}"
            if spec.on_failure == "restart":
                life.condemn(why)
            elif spec.on_failure == "stop-container":
                self.end(UNHEALTHY)
            return spec.on_failure == "restart"

        monitor = self._monitors[name] = Monitor(spec, life, self.world, tell, fail)
        self._watched.setdefault(life.name, []).append(monitor)
        monitor.start()


_WORST_FIRST: tuple[HealthState, ...] = ("unhealthy", "starting", "healthy")


def _entry(spec: ProcessSpec) -> ProcessLayer:
    """A layer's entry that says all that a specification says."""
    return ProcessLayer("replace", **_fields(spec))


def _fields(spec: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__struct_fields__}


def check_info(name: str, monitor: Monitor[CheckSpec]) -> CheckInfo:
    """What the outside sees of a check."""
    report = monitor.report
    return CheckInfo(name, monitor.check, report.state, report.why, report.since, monitor.failures)
