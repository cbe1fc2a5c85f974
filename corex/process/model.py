"""The life of a process as one table (state, event) → state, and the pure decisions around it.

The manager sends events, the table answers; the diagram in docs/corex.md and the property tests are made
from the same table. What is wanted (running or stopped) is kept apart from what is.
"""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from corex.wire.api import Exit, State
from corex.wire.process import ProcessSpec, RestartPolicy

LifeEvent = Literal["start", "spawned", "stop", "ended", "broke", "retry"]

EVENTS: Mapping[LifeEvent, str] = MappingProxyType(
    {
        "start": "somebody wants it to run, or the backoff is over",
        "spawned": "the kernel runs it",
        "stop": "somebody wants it stopped",
        "ended": "it exited with code 0 and no restart follows",
        "broke": "it exited otherwise or could not be started, and no restart follows",
        "retry": "it exited or could not be started, and a restart follows",
    }
)

STATES: Mapping[State, str] = MappingProxyType(
    {
        "stopped": "nothing runs, nobody wants it to",
        "starting": "it is being spawned",
        "running": "it runs",
        "stopping": "it was sent its stop signal",
        "backoff": "it ended; the next start is scheduled",
        "exited": "it ended with code 0, for good",
        "failed": "it ended otherwise or could not be started, for good",
    }
)

TABLE: Mapping[tuple[State, LifeEvent], State] = MappingProxyType(
    {
        ("stopped", "start"): "starting",
        ("stopped", "stop"): "stopped",
        ("starting", "start"): "starting",
        ("starting", "spawned"): "running",
        ("starting", "broke"): "failed",
        ("starting", "retry"): "backoff",
        ("starting", "stop"): "stopping",
        ("running", "start"): "running",
        ("running", "ended"): "exited",
        ("running", "broke"): "failed",
        ("running", "retry"): "backoff",
        ("running", "stop"): "stopping",
        ("stopping", "start"): "stopping",
        ("stopping", "spawned"): "stopping",
        ("stopping", "stop"): "stopping",
        ("stopping", "ended"): "stopped",
        ("stopping", "broke"): "stopped",
        ("backoff", "start"): "starting",
        ("backoff", "stop"): "stopped",
        ("exited", "start"): "starting",
        ("exited", "stop"): "stopped",
        ("failed", "start"): "starting",
        ("failed", "stop"): "stopped",
    }
)

# States that end only by an event of the kernel's or the clock's: the container lives while one is in them.
ACTIVE: frozenset[State] = frozenset({"starting", "running", "stopping", "backoff"})
# States in which no process exists and no start is scheduled.
SETTLED: frozenset[State] = frozenset({"stopped", "exited", "failed"})

BACKOFF_FIRST = 0.5  # seconds before the first restart
BACKOFF_FACTOR = 2.0
BACKOFF_CAP = 30.0  # seconds at most, before jitter
BACKOFF_JITTER = 0.2  # of the delay, to either side
STABLE_AFTER = 10.0  # seconds of running after which earlier failures are forgotten


def next_state(state: State, event: LifeEvent) -> State:
    """The state that follows.

    Raises:
        KeyError: the table has no such row: the manager has a defect.
    """
    return TABLE[state, event]


def event_after_exit(policy: RestartPolicy, ended: Exit | None, *, wanted: bool) -> LifeEvent:
    """What an exit means for a life: `ended` is None if the process could not be started."""
    succeeded = ended is not None and ended.code == 0
    if wanted and (policy == "always" or (policy == "on-failure" and not succeeded)):
        return "retry"
    return "ended" if succeeded else "broke"


def backoff_delay(failures: int, jitter: float) -> float:
    """Seconds until the next start.

    Args:
        failures: starts in a row that did not stay up, at least 1.
        jitter: from 0 to 1, spreads processes that failed together.
    """
    delay = min(BACKOFF_CAP, BACKOFF_FIRST * BACKOFF_FACTOR ** min(failures - 1, 32))
    return delay * (1 + BACKOFF_JITTER * (2 * jitter - 1))


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


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a specification: where, as a JSON pointer, and why."""

    pointer: str
    reason: str


def flaw_of(spec: ProcessSpec) -> Flaw | None:
    """The first thing that its type cannot express but the kernel would refuse, or None."""
    try:
        signal_number(spec.stop_signal)
    except ValueError as error:
        return Flaw("/stop_signal", str(error))
    return flaw_of_command(spec.argv, spec.env, spec.cwd)


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
