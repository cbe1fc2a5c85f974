"""Plans from layers: merging, what is wrong with one, how two differ. Pure."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from corex.forward.location import place_of
from corex.process import model
from corex.process.model import Flaw
from corex.process.order import circle_of
from corex.wire.plan import MOST_TARGETS, Change, CheckLayer, Layer, Plan, ProcessLayer, TargetLayer
from corex.wire.process import CheckSpec, ProcessSpec
from corex.wire.targets import TargetSpec

SpecT = TypeVar("SpecT", ProcessSpec, CheckSpec, TargetSpec)
Entry = ProcessLayer | CheckLayer | TargetLayer
# Without what no specification is one.
_NEEDED: dict[type, tuple[str, ...]] = {
    ProcessSpec: ("argv",),
    CheckSpec: ("process",),
    TargetSpec: ("type", "location"),
}
_NO_TARGETS: Mapping[str, TargetSpec] = MappingProxyType({})


class PlanError(ValueError):
    """Layers make no plan: which layer's entry, or which of all of them, is wrong and why."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(reason)
        self.pointer, self.reason = pointer, reason


def merge(layers: Mapping[str, Layer]) -> Plan:
    """What all layers together say, the first one lowest.

    Raises:
        PlanError: a specification lacks what it needs, cannot be, or starts after itself or one that is not there.
    """
    processes: dict[str, dict[str, Any]] = {}
    checks: dict[str, dict[str, Any]] = {}
    targets: dict[str, dict[str, Any]] = {}
    for layer in layers.values():
        for name, process in layer.processes.items():
            processes[name] = _overlay(processes.get(name, {}), process)
        for name, check in layer.checks.items():
            checks[name] = _overlay(checks.get(name, {}), check)
        for name, target in layer.targets.items():
            targets[name] = _overlay(targets.get(name, {}), target)
    plan = Plan(
        {name: _finish("processes", name, fields, ProcessSpec) for name, fields in processes.items()},
        {name: _finish("checks", name, fields, CheckSpec) for name, fields in checks.items()},
        {name: _finish("targets", name, fields, TargetSpec) for name, fields in targets.items()},
    )
    _check_processes(plan)
    _check_checks(plan)
    _check_targets(plan)
    return plan


def with_process(plan: Plan, name: str, spec: ProcessSpec) -> Plan:
    """A plan with one process more, or another one in its place.

    Raises:
        PlanError: as in `merge`.
    """
    before = plan.processes.get(name)
    wanted = Plan({**plan.processes, name: spec}, plan.checks, plan.targets)
    _check_process(name, spec, wanted)
    if spec.after:
        _check_circle(wanted)
    if before is not None and spec.restart == "always" != before.restart:
        for other, one in wanted.processes.items():
            if name in one.after:
                _check_process(other, one, wanted)
    return wanted


def _overlay(below: Mapping[str, Any], entry: Entry) -> dict[str, Any]:
    merged = {} if entry.override == "replace" else dict(below)
    for field in entry.__struct_fields__:
        value = getattr(entry, field)
        if field == "override" or value is msgspec.UNSET:
            continue
        known = merged.get(field)
        merged[field] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _finish(kind: str, name: str, fields: Mapping[str, Any], spec: type[SpecT]) -> SpecT:
    for needed in _NEEDED[spec]:
        if needed not in fields:
            raise PlanError(f"/{kind}/{name}/{needed}", f"no layer gives {needed} of {name}")
    return spec(**fields)


def _check_processes(plan: Plan) -> None:
    for name, spec in plan.processes.items():
        _check_process(name, spec, plan)
    _check_circle(plan)


def _check_process(name: str, spec: ProcessSpec, plan: Plan) -> None:
    flaw = model.flaw_of(spec) or _flaw_of_order(name, spec, plan)
    if flaw is not None:
        raise PlanError(f"/processes/{name}{flaw.pointer}", flaw.reason)


def _check_circle(plan: Plan) -> None:
    circle = circle_of(plan.processes)
    if circle:
        pointer = f"/processes/{circle[0]}/after/{circle[1]}"
        raise PlanError(pointer, f"{circle[0]} would start after itself: {' after '.join(circle)}")


def _flaw_of_order(name: str, spec: ProcessSpec, plan: Plan) -> Flaw | None:
    for other, condition in spec.after.items():
        pointer, known = f"/after/{other}", plan.processes.get(other)
        if known is None:
            return Flaw(pointer, f"{name} starts after {other}, and there is none")
        if condition == "healthy" and all(check.process != other for check in plan.checks.values()):
            return Flaw(pointer, f"{name} waits until {other} is healthy, and it has no check")
        if condition in ("completed", "succeeded") and known.restart == "always":
            return Flaw(pointer, f"{name} waits until {other} has ended, and it is always restarted")
    return None


def _check_checks(plan: Plan) -> None:
    for name, check in plan.checks.items():
        if check.process not in plan.processes:
            raise PlanError(f"/checks/{name}/process", f"there is no process {check.process}")
        if bool(check.argv) == (check.port is not None):
            raise PlanError(f"/checks/{name}", "a check is a command or a port, and one of them")
        if check.path is not None and check.port is None:
            raise PlanError(f"/checks/{name}/path", "it is of a port, and there is none")
        flaw = model.flaw_of_look(check.argv, check.path, "")
        if flaw is not None:
            raise PlanError(f"/checks/{name}{flaw.pointer}", flaw.reason)


def _check_targets(plan: Plan) -> None:
    if len(plan.targets) > MOST_TARGETS:
        raise PlanError("/targets", f"there are more than {MOST_TARGETS} targets")
    for name, target in plan.targets.items():
        unknown = next((one for one in target.processes if one not in plan.processes), None)
        if unknown is not None:
            raise PlanError(f"/targets/{name}/processes", f"there is no process {unknown}")
        try:
            place_of(target)
        except ValueError as error:
            raise PlanError(f"/targets/{name}/location", str(error)) from None


def changed_fields(before: msgspec.Struct, after: msgspec.Struct) -> tuple[str, ...]:
    """The fields in which two structs of one type differ."""
    return tuple(
        field for field in before.__struct_fields__ if getattr(before, field) != getattr(after, field)
    )


class Standing(msgspec.Struct, frozen=True):
    """A process that is: what it is declared as, what runs, and whether anybody ever asked for something.

    Attributes:
        declared: its specification.
        running: the specification of what runs, None if nothing does.
        wanted: whether it is meant to run.
        was_asked: whether anybody ever wanted it to run or stop.
    """

    declared: ProcessSpec
    running: ProcessSpec | None
    wanted: bool
    was_asked: bool


def difference(
    standing: Mapping[str, Standing],
    checks: Mapping[str, CheckSpec],
    plan: Plan,
    targets: Mapping[str, TargetSpec] = _NO_TARGETS,
) -> list[Change]:
    """What applying a plan does, in its order; after it, nothing."""
    changes = [Change("stop", process=name) for name in standing if name not in plan.processes]
    for name, spec in plan.processes.items():
        change = _change_of(name, standing.get(name), spec)
        if change is not None:
            changes.append(change)
    changes += [Change("stop", check=name) for name in checks if name not in plan.checks]
    for name, check in plan.checks.items():
        known = checks.get(name)
        if known is None:
            changes.append(Change("start", check=name))
        elif known != check:
            changes.append(Change("restart", check=name, fields=changed_fields(known, check)))
    return changes + _difference_of_targets(targets, plan.targets)


def _difference_of_targets(
    targets: Mapping[str, TargetSpec], wanted: Mapping[str, TargetSpec]
) -> list[Change]:
    changes = [Change("stop", target=name) for name in targets if name not in wanted]
    for name, target in wanted.items():
        known = targets.get(name)
        if known is None:
            changes.append(Change("start", target=name))
        elif known != target:
            changes.append(Change("restart", target=name, fields=changed_fields(known, target)))
    return changes


def _change_of(name: str, known: Standing | None, spec: ProcessSpec) -> Change | None:
    if known is None:
        return Change("start" if spec.enabled else "adopt", process=name)
    if known.running is not None and model.must_restart(known.running, spec):
        return Change("restart", process=name, fields=changed_fields(known.running, spec))
    if not known.was_asked and spec.enabled:
        return Change("start", process=name, fields=changed_fields(known.declared, spec))
    fields = changed_fields(known.declared, spec)
    return Change("adopt", process=name, fields=fields) if fields else None


def etag_of(value: msgspec.Struct) -> str:
    """A strong ETag (RFC 9110, section 8.8.3) of what a struct says."""
    data = msgspec.json.encode(value, order="deterministic")
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'
