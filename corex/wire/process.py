"""Process types shared by Core-X, its client and the node."""

from typing import Annotated, Literal

import msgspec

from corex.wire.health import Check, Port, RequestPath, RestartPolicy, Words

ProcessName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)")]

Kind = Literal["service", "one-shot", "scheduled"]
# What must be true of a process before another one starts.
Condition = Literal["started", "ready", "healthy", "completed", "succeeded"]
# Whom signals reach: the process alone, its process group, or all that it brought forth.
Scope = Literal["process", "group", "tree"]
# What follows the end of a process for good.
EndAction = Literal["ignore", "stop-container"]
LimitName = Literal[
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rtprio", "rttime",
    "sigpending", "stack",
]  # fmt: skip
# A limit's soft and hard value (getrlimit(2)); -1 for none.
Limit = tuple[Annotated[int, msgspec.Meta(ge=-1)], Annotated[int, msgspec.Meta(ge=-1)]]

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]


class CheckSpec(Check, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How to see whether a process is well: a command, or one of its ports.

    Attributes:
        process: whom it is about; it is looked at while that runs.
        on_failure: what follows once it is unhealthy: nothing, its end as a failure, so that its restart policy
            says what comes then, or the container's end with code 69.
        argv: a command that ends with code 0 if it is well; it runs as the process does.
        port: a TCP port that takes connections at 127.0.0.1 or ::1 then.
        path: what it answers a GET for with a status from 200 to 399 then.
        interval: seconds from one look to the next.
        timeout: seconds that a look may take.
        retries: looks in a row that fail before it is unhealthy.
        start_period: seconds that it has for itself at its start, before failures count.
    """

    process: ProcessName
    on_failure: Literal["ignore", "restart", "stop-container"] = "ignore"


class Readiness(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a process shows that it is ready: exactly one of line, port, argv and notify.

    Attributes:
        line: a regular expression (Python's `re`), found in the first 4,096 bytes of a line that it writes.
        port: a TCP port that takes connections at 127.0.0.1 or ::1 then.
        path: what that port answers a GET for with a status from 200 to 399 then.
        argv: a command that ends with code 0 then; it runs as the process does.
        notify: it says so itself, by sd_notify(3) to the socket that NOTIFY_SOCKET names.
        interval: seconds from one look at port or argv to the next.
        timeout: seconds after its start until it must be ready; else it is ended, and that is a failure.
        watchdog: with notify, seconds within which it must say WATCHDOG=1 again once it is ready; else it is ended,
            and that is a failure. None waits for nothing.
    """

    line: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    port: Port | None = None
    path: RequestPath | None = None
    argv: Words = ()
    notify: bool = False
    interval: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.5
    timeout: Annotated[float, msgspec.Meta(ge=0.1, le=86400)] = 60.0
    watchdog: Annotated[float, msgspec.Meta(ge=0.1, le=86400)] | None = None


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a process starts again and again: exactly one of cron and every. A start during a run is left out.

    Attributes:
        cron: minute, hour, day of month, month, day of week as in Debian's crontab(5); six fields begin with seconds.
        every: seconds from one start to the next.
        zone: the time zone of cron, a name of the tz database; other ones than UTC are read from the container's own
            /usr/share/zoneinfo.
    """

    cron: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    every: Annotated[float, msgspec.Meta(ge=1, le=366 * 86400)] | None = None
    zone: Annotated[str, msgspec.Meta(max_length=80)] = "UTC"


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How long restarts wait.

    Attributes:
        first: seconds before the first restart.
        factor: by how much each further failure multiplies them.
        cap: seconds at most, before jitter.
        jitter: the share of the delay that chance adds or takes at most, from 0 to 1.
        stable: seconds of running after which earlier failures are forgotten.
        limit: restarts in a row before it has failed for good; None never gives up.
    """

    first: Seconds = 0.5
    factor: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0
    cap: Seconds = 30.0
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.2
    stable: Seconds = 10.0
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None


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
        kind: a service runs on, a one-shot ends, a scheduled one is started by its schedule.
        groups: supplementary groups, by name or number; None takes those of a user's name in /etc/group.
        umask: the file mode creation mask (umask(2)), in octal.
        limits: resource limits (getrlimit(2)), soft and hard.
        nice: from -20 to 19 (nice(2)); below 0 needs a right that containers do not have.
        scope: whom its signals reach, and what ends with it.
        after: processes without which it does not start, and what must be true of them.
        ready: how it shows that it is ready; None takes it for ready as soon as it runs.
        schedule: of a scheduled one.
        backoff: how long restarts wait.
        on_success: what follows once it ended with code 0 for good.
        on_failure: what follows once it failed for good.
        enabled: whether the container's start, and a plan that is applied, start it.
        tty: whether it runs on a terminal instead of pipes, which people may attach to; its log has the output, too.
    """

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    cwd: str = "/"
    user: str = "0"
    restart: RestartPolicy = "never"
    stop_signal: str = "SIGTERM"
    stop_timeout: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    kind: Kind = "service"
    groups: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] | None = None
    umask: Annotated[str, msgspec.Meta(min_length=1, max_length=4)] = "0022"
    limits: dict[LimitName, Limit] = {}
    nice: Annotated[int, msgspec.Meta(ge=-20, le=19)] = 0
    scope: Scope = "group"
    after: Annotated[dict[ProcessName, Condition], msgspec.Meta(max_length=64)] = {}
    ready: Readiness | None = None
    schedule: Schedule | None = None
    backoff: Backoff = Backoff()
    on_success: EndAction = "ignore"
    on_failure: EndAction = "ignore"
    enabled: bool = True
    tty: bool = False
