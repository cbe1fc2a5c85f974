"""Plans: processes and checks by name, put together from layers. A leaf that the node loads with its own types."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from corex.wire.health import Port, RequestPath, RestartPolicy, Words
from corex.wire.process import (
    Backoff,
    CheckSpec,
    Condition,
    EndAction,
    Kind,
    Limit,
    LimitName,
    ProcessName,
    ProcessSpec,
    Readiness,
    Schedule,
    Scope,
)
from corex.wire.targets import Authority, Chosen, Headers, Labels, Location, TargetSpec, TargetType

MOST_TARGETS = 32
# How a layer's entry meets what lies below it: field by field, or in its place.
Override = Literal["merge", "replace"]


class ProcessLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a layer says of a process: fields of `ProcessSpec`, each of which may be left out.

    Attributes:
        override: `merge` changes the fields that are given (of env, limits and after each name by itself), `replace`
            forgets what lies below.
        argv: as in `ProcessSpec`, like all that follow.
        env: the same.
        cwd: the same.
        user: the same.
        restart: the same.
        stop_signal: the same.
        stop_timeout: the same.
        kind: the same.
        groups: the same.
        umask: the same.
        limits: the same.
        nice: the same.
        scope: the same.
        after: the same.
        ready: the same.
        schedule: the same.
        backoff: the same.
        on_success: the same.
        on_failure: the same.
        enabled: the same.
        tty: the same.
    """

    override: Override = "merge"
    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | UnsetType = UNSET
    env: dict[str, str] | UnsetType = UNSET
    cwd: str | UnsetType = UNSET
    user: str | UnsetType = UNSET
    restart: RestartPolicy | UnsetType = UNSET
    stop_signal: str | UnsetType = UNSET
    stop_timeout: Annotated[float, msgspec.Meta(ge=0, le=3600)] | UnsetType = UNSET
    kind: Kind | UnsetType = UNSET
    groups: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] | UnsetType | None = UNSET
    umask: Annotated[str, msgspec.Meta(min_length=1, max_length=4)] | UnsetType = UNSET
    limits: dict[LimitName, Limit] | UnsetType = UNSET
    nice: Annotated[int, msgspec.Meta(ge=-20, le=19)] | UnsetType = UNSET
    scope: Scope | UnsetType = UNSET
    after: Annotated[dict[ProcessName, Condition], msgspec.Meta(max_length=64)] | UnsetType = UNSET
    ready: Readiness | UnsetType | None = UNSET
    schedule: Schedule | UnsetType | None = UNSET
    backoff: Backoff | UnsetType = UNSET
    on_success: EndAction | UnsetType = UNSET
    on_failure: EndAction | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    tty: bool | UnsetType = UNSET


class CheckLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a layer says of a check: fields of `CheckSpec`, each of which may be left out.

    Attributes:
        override: `merge` changes the fields that are given, `replace` forgets what lies below.
        process: as in `CheckSpec`, like all that follow.
        on_failure: the same.
        argv: the same.
        port: the same.
        path: the same.
        interval: the same.
        timeout: the same.
        retries: the same.
        start_period: the same.
    """

    override: Override = "merge"
    process: ProcessName | UnsetType = UNSET
    on_failure: Literal["ignore", "restart", "stop-container"] | UnsetType = UNSET
    argv: Words | UnsetType = UNSET
    port: Port | UnsetType | None = UNSET
    path: RequestPath | UnsetType | None = UNSET
    interval: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] | UnsetType = UNSET
    timeout: Annotated[float, msgspec.Meta(ge=0.1, le=600)] | UnsetType = UNSET
    retries: Annotated[int, msgspec.Meta(ge=1, le=100)] | UnsetType = UNSET
    start_period: Annotated[float, msgspec.Meta(ge=0, le=3600)] | UnsetType = UNSET


class TargetLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a layer says of a target of log lines: fields of `TargetSpec`, each of which may be left out.

    Attributes:
        override: `merge` changes the fields that are given (of labels and headers each name by itself), `replace`
            forgets what lies below.
        type: as in `TargetSpec`, like all that follow.
        location: the same.
        processes: the same.
        labels: the same.
        headers: the same.
        ca: the same.
    """

    override: Override = "merge"
    type: TargetType | UnsetType = UNSET
    location: Location | UnsetType = UNSET
    processes: Chosen | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    headers: Headers | UnsetType = UNSET
    ca: Authority | UnsetType = UNSET


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One layer of a plan.

    Attributes:
        summary: what it is for, for people.
        processes: what it says of processes, by name.
        checks: what it says of checks, by name.
        targets: what it says of targets that log lines are sent on to, by name.
    """

    summary: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    processes: Annotated[dict[ProcessName, ProcessLayer], msgspec.Meta(max_length=4096)] = {}
    checks: Annotated[dict[ProcessName, CheckLayer], msgspec.Meta(max_length=4096)] = {}
    targets: Annotated[dict[ProcessName, TargetLayer], msgspec.Meta(max_length=MOST_TARGETS)] = {}


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all layers together say: processes, checks and targets by name, in the order of their first mention."""

    processes: dict[ProcessName, ProcessSpec] = {}
    checks: dict[ProcessName, CheckSpec] = {}
    targets: dict[ProcessName, TargetSpec] = {}


Verb = Literal["start", "restart", "stop", "adopt"]


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference between what is and what a plan says, and what applying it does.

    Attributes:
        process: whose, if it is a process's.
        check: whose, if it is a check's.
        target: whose, if it is a target's.
        verb: `start` and `stop` it, `restart` what was started by something else, `adopt` a change that what runs
            need not be restarted for.
        fields: those of its specification that differ.
    """

    verb: Verb
    process: str = ""
    check: str = ""
    target: str = ""
    fields: tuple[str, ...] = ()


class Difference(msgspec.Struct, frozen=True):
    """All differences; `etag` is of the plan that they lead to, for If-Match when it is applied."""

    changes: list[Change]
    etag: str


class LayerInfo(msgspec.Struct, frozen=True):
    """A layer with its name, its ETag, and its place: higher ones say more."""

    name: str
    place: int
    etag: str
    layer: Layer


class LayerList(msgspec.Struct, frozen=True):
    """All layers, the lowest first."""

    layers: list[LayerInfo]


class ByLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Path of one layer; with `dry_run` nothing is changed, and the answer says what applying it would do."""

    name: ProcessName
    dry_run: bool = False


class ApplyQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to apply a plan.

    Attributes:
        dry_run: whether nothing is changed.
        wait: seconds that the answer may wait until all that changes is done.
    """

    dry_run: bool = False
    wait: Annotated[float, msgspec.Meta(ge=0, le=300)] = 0.0
