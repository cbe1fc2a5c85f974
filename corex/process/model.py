"""The life of a process as one table (state, event) → state, and the pure decisions around it.

The manager sends events, the table answers; the diagram in docs/corex.md and the property tests are made
from the same table. What is wanted (running or stopped) is kept apart from what is.
"""

import re
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, cast

import msgspec

from corex.process.schedule import check_cron
from corex.wire.api import Exit, State
from corex.wire.process import Backoff, ProcessSpec, Readiness

LifeEvent = Literal[
    "start", "wait", "schedule", "spawned", "ready", "unready", "end", "stop", "gone", "ended", "broke", "retry"
]  # fmt: skip

EVENTS: Mapping[LifeEvent, str] = MappingProxyType(
    {
        "start": "it shall run now: on request, by its schedule, as a restart, or as what it waited for is there",
        "wait": "it shall run, and what it starts after is not there yet",
        "schedule": "its schedule says when it starts next",
        "spawned": "the kernel runs it",
        "ready": "it showed that it is ready",
        "unready": "it told that it reloads, or is about to end",
        "end": "Core-X ends it: it was not ready in time, its watchdog was silent, or its check failed",
        "stop": "somebody wants it stopped",
        "gone": "it ended after it was asked to",
        "ended": "it exited with code 0, and no start follows",
        "broke": "it failed, and no start follows",
        "retry": "it ended, and a restart follows",
    }
)

STATES: Mapping[State, str] = MappingProxyType(
    {
        "stopped": "nothing runs, nobody wants it to",
        "scheduled": "nothing runs; its schedule starts it",
        "waiting": "it starts as soon as others are what it waits for",
        "starting": "it is being spawned",
        "running": "it runs, and has not shown that it is ready, if it can",
        "ready": "it runs and is ready",
        "stopping": "it was sent its stop signal",
        "backoff": "it ended; the next start is due after a pause",
        "exited": "it ended with code 0, for good",
        "failed": "it ended otherwise or could not be started, for good",
    }
)


def _make_table() -> Mapping[tuple[State, LifeEvent], State]:
    table: dict[tuple[State, LifeEvent], State] = {}

    def rows(states: tuple[State, ...], **follows: State) -> None:
        for state in states:
            for event, after in follows.items():
                table[state, cast(LifeEvent, event)] = after

    # Nothing runs.
    rows(
        ("stopped", "exited", "failed"),
        start="starting",
        wait="waiting",
        schedule="scheduled",
        stop="stopped",
    )
    rows(("scheduled", "backoff"), start="starting", wait="waiting", stop="stopped")
    rows(("scheduled",), schedule="scheduled", broke="failed")
    rows(("waiting",), start="starting", wait="waiting", stop="stopped", broke="failed")
    # A process is there, or is being made.
    rows(("starting",), start="starting", spawned="running", stop="stopping")
    rows(("running",), start="running", ready="ready", unready="running", end="stopping", stop="stopping")
    rows(("ready",), start="ready", ready="ready", unready="running", end="stopping", stop="stopping")
    rows(("stopping",), start="stopping", spawned="stopping", end="stopping", stop="stopping", gone="stopped")
    rows(("running", "ready"), ended="exited")
    rows(("starting", "running", "ready", "stopping"), broke="failed", retry="backoff", schedule="scheduled")
    return MappingProxyType(table)


TABLE: Mapping[tuple[State, LifeEvent], State] = _make_table()

# States that end by an event of the kernel's, the clock's or another process's: the container lives while one is in
# them.
ACTIVE: frozenset[State] = frozenset(
    {"scheduled", "waiting", "starting", "running", "ready", "stopping", "backoff"}
)
# States in which no process exists and no start follows by itself.
SETTLED: frozenset[State] = frozenset({"stopped", "exited", "failed"})
# States in which there is a process.
ALIVE: frozenset[State] = frozenset({"running", "ready", "stopping"})
# States in which it runs as wanted.
UP: frozenset[State] = frozenset({"running", "ready"})

# Restarts after so many failures in a row wait no longer.
_GROWS = 64


def next_state(state: State, event: LifeEvent) -> State:
    """The state that follows.

    Raises:
        KeyError: the table has no such row: the manager has a defect.
    """
    return TABLE[state, event]


class Verdict(msgspec.Struct, frozen=True):
    """What follows an end: the event, and in words why."""

    event: LifeEvent
    why: str


def verdict_on_end(spec: ProcessSpec, *, succeeded: bool, failures: int) -> Verdict:
    """What the end of a process that nobody asked to stop means for its life.

    Args:
        spec: what it was to be.
        succeeded: whether it exited with code 0 and was not ended by Core-X.
        failures: how many runs in a row have ended too early by now, this one included.
    """
    if spec.restart == "always" or (spec.restart == "on-failure" and not succeeded):
        limit = spec.backoff.limit
        if limit is None or failures <= limit:
            return Verdict("retry", f"its restart policy is {spec.restart}")
        tried = f"it was restarted {limit} times in a row" if limit else "it is not to be restarted"
        why = f"{tried}, which is its limit"
    else:
        why = f"its restart policy is {spec.restart}"
    if spec.schedule is not None:
        return Verdict("schedule", why)
    return Verdict("ended" if succeeded else "broke", why)


def backoff_delay(backoff: Backoff, failures: int, jitter: float) -> float:
    """Seconds until the next start.

    Args:
        backoff: the process's own.
        failures: starts in a row that did not stay up, at least 1.
        jitter: from 0 to 1, spreads processes that failed together.
    """
    delay = backoff.first
    for _ in range(min(failures - 1, _GROWS)):
        if delay >= backoff.cap:
            break
        delay *= backoff.factor
    return min(backoff.cap, delay) * (1 + backoff.jitter * (2 * jitter - 1))


def must_restart(before: ProcessSpec, after: ProcessSpec) -> bool:
    """Whether a process that runs by one specification must be started anew to be as another says."""
    return any(getattr(before, field) != getattr(after, field) for field in _AT_START)


# What a process has from its start on; the rest of a specification counts as soon as it is there.
_AT_START = ("argv", "env", "cwd", "user", "groups", "umask", "limits", "nice", "scope", "ready", "tty")


def exit_of(code: int, status: int) -> Exit:
    """How a child ended, from waitid(2)'s si_code and si_status."""
    if code == 1:  # CLD_EXITED
        return Exit(code=status)
    return Exit(signal=signal_name(status))


def exit_code_of(ended: Exit | None) -> int:
    """A container's exit code for its main process: a signal counts as 128 + its number, as shells do."""
    if ended is None:
        return 127
    if ended.signal is not None:
        return 128 + signal_number(ended.signal)
    return ended.code or 0


def signal_name(number: int) -> str:
    """SIGTERM for 15; the number itself if it has no name (most real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def signal_number(text: str) -> int:
    """The number for SIGTERM, TERM or 15.

    Raises:
        ValueError: there is no such signal.
    """
    if re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
        if 1 <= int(text) < signal.NSIG:
            return int(text)
    else:
        name = text if text.startswith("SIG") else "SIG" + text
        if name in signal.Signals.__members__:
            return signal.Signals[name].value
    raise ValueError(f"there is no signal {text[:40]!a}")


class Flaw(msgspec.Struct, frozen=True):
    """What is wrong with a specification: where, as a JSON pointer, and why."""

    pointer: str
    reason: str


def flaw_of(spec: ProcessSpec) -> Flaw | None:
    """The first thing that its type cannot express but the kernel, or sense, would refuse; or None."""
    try:
        signal_number(spec.stop_signal)
    except ValueError as error:
        return Flaw("/stop_signal", str(error))
    return (
        flaw_of_command(spec.argv, spec.env, spec.cwd)
        or _flaw_of_kind(spec)
        or _flaw_of_limits(spec)
        or (_flaw_of_readiness(spec.ready) if spec.ready else None)
    )


def _flaw_of_kind(spec: ProcessSpec) -> Flaw | None:
    if (spec.kind == "scheduled") != (spec.schedule is not None):
        needs = "a scheduled process needs one" if spec.kind == "scheduled" else f"a {spec.kind} has none"
        return Flaw("/schedule", needs)
    if spec.kind != "service" and spec.restart == "always":
        return Flaw("/restart", f"a {spec.kind} process ends: restart it on-failure or never")
    if spec.schedule is None:
        return None
    if (spec.schedule.cron is None) == (spec.schedule.every is None):
        return Flaw("/schedule", "it needs one of cron and every")
    if not _ZONE.fullmatch(spec.schedule.zone):
        return Flaw("/schedule/zone", "it is no name of a time zone")
    try:
        check_cron(spec.schedule)
    except ValueError as error:
        return Flaw("/schedule/cron", str(error))
    return None


def _flaw_of_limits(spec: ProcessSpec) -> Flaw | None:
    if not set(spec.umask) <= set("01234567"):
        return Flaw("/umask", "it is not octal")
    for name, (soft, hard) in spec.limits.items():
        if hard != -1 and (soft == -1 or soft > hard):
            return Flaw(f"/limits/{name}", "the soft limit is above the hard one")
    return None


def _flaw_of_readiness(ready: Readiness) -> Flaw | None:
    ways = sum((ready.line is not None, ready.port is not None, bool(ready.argv), ready.notify))
    if ways != 1:
        return Flaw("/ready", "it needs exactly one of line, port, argv and notify")
    if ready.path is not None and ready.port is None:
        return Flaw("/ready/path", "it is of a port, and there is none")
    if ready.watchdog is not None and not ready.notify:
        return Flaw("/ready/watchdog", "it is fed by notify, which is off")
    if ready.line is not None:
        try:
            re.compile(ready.line)
        except re.error as error:
            return Flaw("/ready/line", f"it is no regular expression: {error}")
    return flaw_of_look(ready.argv, ready.path, "/ready")


def flaw_of_look(argv: tuple[str, ...], path: str | None, pointer: str) -> Flaw | None:
    """What is wrong with how something is looked at."""
    for number, word in enumerate(argv):
        if "\0" in word or (not number and not word):
            return Flaw(f"{pointer}/argv/{number}", "it is empty or holds a zero byte")
    if path is not None and not _REQUEST_PATH.fullmatch(path):
        return Flaw(f"{pointer}/path", "it begins with / and has printable ASCII characters only, no space")
    return None


_REQUEST_PATH = re.compile(r"/[!-~]*")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


def flaw_of_command(argv: tuple[str, ...], env: Mapping[str, str], cwd: str) -> Flaw | None:
    """The same for what a specification and a command to execute share."""
    for number, word in enumerate(argv):
        if "\0" in word:
            return Flaw(f"/argv/{number}", "it holds a zero byte")
    if not argv[0]:
        return Flaw("/argv/0", "it is empty")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            return Flaw("/env", f"{name[:40]!a} is no name or its value holds a zero byte")
    if not cwd.startswith("/") or "\0" in cwd:
        return Flaw("/cwd", "it is not an absolute path")
    return None
