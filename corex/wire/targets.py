"""Targets that log lines are sent on to. A leaf that the node loads with its own types."""

from typing import Annotated, Literal

import msgspec

from corex.wire.process import ProcessName

TargetType = Literal["syslog", "loki", "otlp"]
TargetState = Literal["idle", "sending", "retrying"]
# As Loki has them, and short enough for syslog.
LabelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,31}$(?!\n)")]
LabelValue = Annotated[str, msgspec.Meta(max_length=256)]
HeaderName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}$(?!\n)")]
HeaderValue = Annotated[
    str, msgspec.Meta(pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$(?!\n)", max_length=4096)
]
Location = Annotated[str, msgspec.Meta(pattern=r"^[a-z]+://[\x21-\x7e]+$(?!\n)", max_length=1024)]
Labels = Annotated[dict[LabelName, LabelValue], msgspec.Meta(max_length=16)]
Headers = Annotated[dict[HeaderName, HeaderValue], msgspec.Meta(max_length=16)]
Chosen = Annotated[tuple[ProcessName, ...], msgspec.Meta(max_length=4096)]
Authority = Annotated[str, msgspec.Meta(max_length=1 << 18)]


class TargetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where log lines are sent.

    Attributes:
        type: what is spoken: syslog (RFC 5424), Loki's push API, or OTLP over HTTP, in JSON.
        location: `tcp://host:port`, `udp://…` or `tls://…` of a syslog server (ports 514 and 6514 without), or the
            whole URL of the others, `http` or `https`: `http://loki:3100/loki/api/v1/push`, `http://otel:4318/v1/logs`.
        processes: whose lines; all without.
        labels: added to each line.
        headers: added to each request of Loki and OTLP; whoever may read the plan sees them.
        ca: certificates (PEM) that its own must lead to; the container's own bundle without.
    """

    type: TargetType
    location: Location
    processes: Chosen = ()
    labels: Labels = {}
    headers: Headers = {}
    ca: Authority = ""


class TargetInfo(msgspec.Struct, frozen=True):
    """One target, and how it goes.

    Attributes:
        name: its name.
        spec: what is declared.
        state: whether it is asked again after it did not answer.
        why: one sentence.
        since: when it entered the state, seconds since 1970 UTC.
        sent: lines that it took.
        lost: lines that were overwritten before they could be sent.
        refused: lines that it did not want.
    """

    name: str
    spec: TargetSpec
    state: TargetState
    why: str
    since: float
    sent: int
    lost: int
    refused: int


class TargetList(msgspec.Struct, frozen=True):
    """All targets of the plan."""

    targets: list[TargetInfo]
