"""Process types shared by Core-X, its client and the node."""

from typing import Annotated, Literal

import msgspec

ProcessName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)")]

RestartPolicy = Literal["always", "on-failure", "never"]


HealthState = Literal["starting", "healthy", "unhealthy"]
# Bytes of a report in the file that Core-X writes it to.
REPORT_BYTES = 1024


class HealthCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to see whether a container is well: a command, or one of its ports.

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

    argv: Annotated[tuple[str, ...], msgspec.Meta(max_length=256)] = ()
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    interval: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 10.0
    timeout: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 5.0
    retries: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    start_period: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    restart: bool = False


class HealthReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container's check says: `since` is seconds since 1970 UTC."""

    state: HealthState
    why: str
    since: float


class ProcessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to run: an argument vector, never a shell string.

    Attributes:
        argv: the program and its arguments; a program without a slash is looked up in env's PATH.
        env: the whole environment of the process; without HOME it gets its user's of the container's /etc/passwd.
        cwd: working directory inside the container.
        user: `uid`, `uid:gid`, `name` or `name:group`, resolved in the container's /etc.
        restart: what follows an exit.
        stop_signal: the signal that asks it to end, by name or number as in signal(7).
        stop_timeout: seconds from the stop signal to SIGKILL.
    """

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    cwd: str = "/"
    user: str = "0"
    restart: RestartPolicy = "never"
    stop_signal: str = "SIGTERM"
    stop_timeout: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
