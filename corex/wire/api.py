"""What Core-X's REST interface and its clients say to each other, besides `corex.wire.process`."""

from typing import Annotated, Literal

import msgspec

from corex.wire.health import HealthReport, HealthState
from corex.wire.process import CheckSpec, ProcessName, ProcessSpec

State = Literal[
    "stopped", "scheduled", "waiting", "starting", "running", "ready", "stopping", "backoff", "exited", "failed"
]  # fmt: skip
Stream = Literal["stdout", "stderr"]
Wait = Annotated[float, msgspec.Meta(ge=0, le=300)]
Cursor = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]  # what JSON has exactly (RFC 8259, section 6)
PageSize = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a process ended: with an exit code from 0 to 255, or by a signal.

    Attributes:
        code: the exit code, None if a signal ended it.
        signal: the signal's name as in signal(7), or its number if it has no name.
    """

    code: int | None = None
    signal: str | None = None


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a process uses: all of its tree together if it has a cgroup (scope tree), else itself alone.

    Attributes:
        cpu_seconds: processor time, user and system, of a cgroup since it was made, else since it began.
        memory_bytes: of a cgroup all that it is charged with, else resident memory; None if that is not counted.
        tasks: threads of all processes of a cgroup.
        read_bytes: of a cgroup, from disks.
        written_bytes: the same, to disks.
    """

    cpu_seconds: float
    memory_bytes: int | None
    tasks: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


class ProcessInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process: what is wanted, what is, and why.

    Attributes:
        name: the process's name.
        spec: what is wanted to run from the next start on.
        wanted: whether it is meant to run.
        state: a state of the life table, see docs/corex.md.
        why: one sentence that says why it is in that state.
        since: when it entered the state, seconds since 1970 UTC.
        pid: process id inside the container, if there is a process.
        restarts: starts that followed an exit without anybody asking.
        exit: how the last run ended.
        next_start: when the next attempt follows, seconds since 1970 UTC; in state backoff only.
        usage: figures of the running process, where readable.
        outdated: the running process was started from an older `spec`, in what cannot be changed while it runs.
        status: what it last told of itself, by sd_notify(3).
        health: what its checks say together, if it has any.
        last_start: when it was last started, seconds since 1970 UTC.
        layers: the layers of the plan that declare it, the lowest first; none once they are taken away.
    """

    name: str
    spec: ProcessSpec
    wanted: Literal["running", "stopped"]
    state: State
    why: str
    since: float
    pid: int | None = None
    restarts: int = 0
    exit: Exit | None = None
    next_start: float | None = None
    usage: Usage | None = None
    outdated: bool = False
    status: str = ""
    health: HealthState | None = None
    last_start: float | None = None
    layers: tuple[str, ...] = ()


class ProcessList(msgspec.Struct, frozen=True):
    """All processes, in the order of their declaration."""

    processes: list[ProcessInfo]


class CheckInfo(msgspec.Struct, frozen=True):
    """One check: how it looks, and what it found.

    Attributes:
        name: the check's name.
        spec: how it looks, and at whom.
        state: what it says of the process.
        why: one sentence.
        since: when it began to say so, seconds since 1970 UTC.
        failures: looks in a row that failed.
    """

    name: str
    spec: CheckSpec
    state: HealthState
    why: str
    since: float
    failures: int


class CheckList(msgspec.Struct, frozen=True):
    """All checks of the plan."""

    checks: list[CheckInfo]


class SignalRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which signal to send to a process's group: its name or number as in signal(7)."""

    signal: str


class LogLine(msgspec.Struct, frozen=True, tag_field="kind", tag="line", omit_defaults=True):
    """One line of output.

    Attributes:
        order: its number in the whole container, from 1 without holes.
        seq: its number in its process's own log, from 1 without holes.
        time: when Core-X read it, seconds since 1970 UTC.
        process: who wrote it.
        stream: where to.
        text: without the line end; bytes that are not UTF-8 are written as backslash, x and two digits.
        partial: the line was longer than a record and goes on in the next one of the stream.
    """

    order: int
    seq: int
    time: float
    process: str
    stream: Stream
    text: str
    partial: bool = False


class LogGap(msgspec.Struct, frozen=True, tag_field="kind", tag="gap"):
    """Here `lost` lines were overwritten before the reader came."""

    lost: int


class LogPage(msgspec.Struct, frozen=True):
    """Lines and declared gaps in order; `next` is the cursor (`after`) for the following page."""

    records: list[LogLine | LogGap]
    next: int


class Event(msgspec.Struct, frozen=True):
    """A process entered a state.

    Attributes:
        seq: its number, from 1 without holes.
        time: seconds since 1970 UTC.
        process: whose life it is.
        state: the state entered.
        why: one sentence.
    """

    seq: int
    time: float
    process: str
    state: State
    why: str


class EventPage(msgspec.Struct, frozen=True):
    """Events in order; `lost` were overwritten before the first of them; `next` is the following cursor."""

    events: list[Event]
    lost: int
    next: int


class ExecRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run a command to its end, without a terminal.

    Attributes:
        argv: the program and its arguments; a program without a slash is looked up in env's PATH.
        env: the whole environment; without HOME it gets the user's of the container's /etc/passwd.
        cwd: working directory inside the container.
        user: as in `ProcessSpec.user`.
        stdin: what the command reads from its standard input.
        timeout: seconds after which it and its process group are killed.
    """

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    env: dict[str, str] = {}
    cwd: str = "/"
    user: str = "0"
    stdin: str = ""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0


class Output(msgspec.Struct, frozen=True):
    """What a command wrote to one stream; base64 if it is not UTF-8; truncated if over the limit."""

    encoding: Literal["utf-8", "base64"]
    data: str
    truncated: bool


class ExecResult(msgspec.Struct, frozen=True):
    """How a command ended and what it wrote.

    Attributes:
        exit: exit code or signal.
        stdout: its standard output.
        stderr: its standard error.
        timed_out: it was killed because its time was up.
        seconds: how long it ran.
    """

    exit: Exit
    stdout: Output
    stderr: Output
    timed_out: bool
    seconds: float


class Health(msgspec.Struct, frozen=True):
    """Core-X answers."""

    status: Literal["up"]


class System(msgspec.Struct, frozen=True):
    """The container as Core-X sees it.

    Attributes:
        name: the container's name.
        kernel: the kernel's release.
        python: the version of the Python that runs Core-X.
        uptime: seconds since Core-X started.
        processes: how many are declared.
        running: how many of them run.
        orphans: processes reaped that were not Core-X's own children.
        usage: of Core-X itself, where readable.
        health: what the container's check says, if it has one.
    """

    name: str
    kernel: str
    python: str
    uptime: float
    processes: int
    running: int
    orphans: int
    usage: Usage | None
    health: HealthReport | None = None


class ByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Path of one process."""

    name: ProcessName


class ByNameWait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Path of one process; `wait` is how many seconds the answer may wait for the verb's end."""

    name: ProcessName
    wait: Wait = 0.0


class LogSieve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which lines are wanted.

    Attributes:
        stream: of this stream only.
        since: from this moment on, seconds since 1970 UTC.
        until: before this moment.
        match: a regular expression of Python's that is found in the line.
        tail: of those that there are already, only so many of the newest are looked at; None looks at all.
    """

    stream: Stream | None = None
    since: float | None = None
    until: float | None = None
    match: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    tail: Cursor | None = None


class LogsQuery(LogSieve, frozen=True, forbid_unknown_fields=True):
    """Which lines of the container: those after number `after`; `follow` streams them as they come.

    Attributes:
        process: of these processes only, each in a parameter of its own.
        after: the cursor: the container's number of the last line that is known.
        limit: how many lines are looked at for a page.
        follow: whether the answer goes on with new lines.
    """

    process: tuple[ProcessName, ...] = ()
    after: Cursor = 0
    limit: PageSize = 1000
    follow: bool = False


class ProcessLogsQuery(LogSieve, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which lines of one process, as in `LogsQuery`."""

    name: ProcessName
    after: Cursor = 0
    limit: PageSize = 1000
    follow: bool = False


class EventsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events after number `after`; with none yet, the answer waits for one up to `wait` seconds."""

    after: Cursor = 0
    limit: PageSize = 1000
    wait: Wait = 0.0
