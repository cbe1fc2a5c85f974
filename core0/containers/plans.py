"""What Core-X starts in a container: the image's program, as the spec changes it, or what the spec's plan has.

Plans are Core-X's own: its code reads them, and is loaded when there is the first one. A boot does not wait for it.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from core0.images.model import Image
from core0.wire.control import invalid
from core0.wire.names import DOMAIN
from core0.wire.types import ContainerSpec

if TYPE_CHECKING:
    from corex.wire.boot import Boot
    from corex.wire.plan import Layer, Plan

_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IMAGE, _SPEC = "image", "spec"


class NoProgramError(Exception):
    """Neither the image nor the spec says what to run."""


def check_plan(spec: ContainerSpec) -> None:
    """Refuse a plan that is none (422), or that stands beside an argv. Raises RefusedError."""
    if spec.plan is None:
        return
    if spec.argv:
        detail = "cannot run an argv beside a plan: which of them would be the main process?"
        raise invalid(detail, "make it a process of the plan", "/argv")
    layer = _read(spec.plan)
    if not layer.processes:
        raise invalid("cannot run a plan without processes", "give one, or an argv", "/plan/processes")
    # any program stands for the image's, which is not known yet
    _merge(layer, {"argv": ("image",)})


def boot_of(name: str, node: str, identity: tuple[str, str], spec: ContainerSpec, image: Image) -> "Boot":
    """The start message of a container's Core-X.

    Args:
        name: the container's.
        node: the node's host name, at whose port Core-X answers.
        identity: Core-X's certificate and its key, PEM.
        spec: what the container shall be.
        image: what it is made of.

    Raises:
        NoProgramError: neither image nor spec names a program.
        RefusedError: the spec's plan is none.
    """
    from corex.wire.boot import Boot

    plan = plan_of(spec, image)
    names = (f"{name}.{spec.network}.{DOMAIN}", *filter(None, (spec.hostname, node)), *spec.dns_names)
    return Boot(
        name, *identity, spec.token_sha256, plan.processes, spec.health, plan.checks, names, plan.targets
    )


def plan_of(spec: ContainerSpec, image: Image) -> "Plan":
    """What Core-X runs: a plan's processes have the image's environment, user, folder and program below their own.

    Raises:
        NoProgramError: neither image nor spec names a program.
        RefusedError: the spec's plan is none.
    """
    from corex.wire.plan import Plan
    from corex.wire.process import ProcessSpec

    run = image.run
    argv = spec.argv or (*(run.entrypoint or ()), *(run.cmd or ()))
    given = dict(pair.split("=", 1) for pair in (_DEFAULT_PATH, *(run.env or ())) if "=" in pair)
    known: dict[str, Any] = {
        "env": {**given, **spec.env},
        "cwd": spec.cwd or run.working_dir or "/",
        "user": spec.user or run.user or "0",
        "stop_signal": run.stop_signal or "SIGTERM",
    }
    if spec.plan is not None:
        return _merge(_read(spec.plan), {**known, "argv": argv} if argv else known)
    if not argv:
        raise NoProgramError("the image names no program and the spec no argv; give an argv")
    return Plan({"main": ProcessSpec(argv, restart=spec.restart, **known)})


def _read(plan: dict[str, Any]) -> "Layer":
    from corex.http.problem import invalid as problem_of
    from corex.wire.plan import Layer

    try:
        return msgspec.convert(plan, Layer)
    except msgspec.ValidationError as error:
        problem = problem_of(error).problem
        pointer = f"/plan{problem.pointer or ''}"
        raise invalid(problem.detail, "see Core-X's GET /v1/openapi.json, type Layer", pointer) from None


def _merge(layer: "Layer", known: dict[str, Any]) -> "Plan":
    """A plan over what the image says of each process.

    What replaces what is below it has nothing below it here but the image, which counts all the same.
    """
    from corex.process import plan
    from corex.wire.plan import Layer, ProcessLayer

    base: ProcessLayer = ProcessLayer(**known)
    over = {name: msgspec.structs.replace(entry, override="merge") for name, entry in layer.processes.items()}
    layers = {
        _IMAGE: Layer(processes=dict.fromkeys(over, base)),
        _SPEC: msgspec.structs.replace(layer, processes=over),
    }
    try:
        return plan.merge(layers)
    except plan.PlanError as error:
        detail = f"cannot run this plan: {error.reason}"
        raise invalid(detail, "see Core-X's page on plans", f"/plan{error.pointer}") from None
