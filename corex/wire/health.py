"""How to see whether something is well. Apart from the rest of the process types: a node loads this when it boots."""

from typing import Annotated, Literal

import msgspec

RestartPolicy = Literal["always", "on-failure", "never"]

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
RequestPath = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Words = Annotated[tuple[str, ...], msgspec.Meta(max_length=256)]

HealthState = Literal["starting", "healthy", "unhealthy"]
# Bytes of a report in the file that Core-X writes it to.
REPORT_BYTES = 1024


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to see whether something is well: a command, or one of its ports.

    Attributes:
        argv: a command that ends with code 0 then; it runs as the process that is looked at.
        port: a TCP port that takes connections at 127.0.0.1 or ::1 then.
        path: what it answers a GET for with a status from 200 to 399 then.
        interval: seconds from one look to the next.
        timeout: seconds that a look may take.
        retries: looks in a row that fail before it is unhealthy.
        start_period: seconds that it has for itself at its start, before failures count.
    """

    argv: Words = ()
    port: Port | None = None
    path: RequestPath | None = None
    interval: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0
    timeout: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 5.0
    retries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    start_period: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0


class HealthCheck(Check, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to see whether a container is well, by its main process.

    Attributes:
        argv: a command that ends with code 0 then; it runs as the main process does.
        port: a TCP port that takes connections at 127.0.0.1 or ::1 then.
        path: what it answers a GET for with a status from 200 to 399 then.
        interval: seconds from one look to the next.
        timeout: seconds that a look may take.
        retries: looks in a row that fail before it is unhealthy.
        start_period: seconds that it has for itself at its start, before failures count.
        restart: whether an unhealthy process is restarted, or ended if its restart policy is never.
    """

    restart: bool = False


class HealthReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container's check says: `since` is seconds since 1970 UTC."""

    state: HealthState
    why: str
    since: float
