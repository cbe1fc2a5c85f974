"""Choosing log records: by process, stream, time, and what a line says."""

import re
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType

from corex.wire.api import LogGap, LogLine, LogSieve

# Seconds that a page may keep Core-X from everything else: some patterns take as long as one likes.
DEADLINE = 0.25

Record = LogLine | LogGap
Sieve = Callable[[Sequence[Record]], list[Record]]


class PatternError(Exception):
    """A pattern cannot be used: the reason."""


def sieve(wanted: LogSieve, processes: frozenset[str]) -> Sieve | None:
    """What keeps the records that are wanted; gaps are always kept: nobody knows what was in them.

    Args:
        wanted: stream, time and pattern.
        processes: names, of which a line must have one, if there are any.

    Returns:
        None if everything is wanted.

    Raises:
        PatternError: the pattern is no regular expression of Python's.
    """
    tests: list[Callable[[LogLine], object]] = []
    if processes:
        tests.append(lambda line: line.process in processes)
    if wanted.stream is not None:
        tests.append(lambda line: line.stream == wanted.stream)
    since, until = wanted.since, wanted.until
    if since is not None:
        tests.append(lambda line: line.time >= since)
    if until is not None:
        tests.append(lambda line: line.time < until)
    if wanted.match is not None:
        tests.append(_pattern(wanted.match))
    if not tests:
        return None

    def keep(records: Sequence[Record]) -> list[Record]:
        return _in_time(lambda: [one for one in records if _is_wanted(one, tests)])

    return keep


def _is_wanted(record: Record, tests: Sequence[Callable[[LogLine], object]]) -> bool:
    return isinstance(record, LogGap) or all(test(record) for test in tests)


def _pattern(text: str) -> Callable[[LogLine], object]:
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"it is no regular expression: {error}") from None
    return lambda line: pattern.search(line.text)


class _TooLateError(Exception):
    """The time is up."""


_until: list[float] = []


def _ring(_number: int, _frame: FrameType | None) -> None:
    """The alarm; somebody in the container may send the signal, too, whenever he likes."""
    if _until and time.monotonic() >= _until[0]:
        _until.clear()
        raise _TooLateError


def _in_time(work: Callable[[], list[Record]]) -> list[Record]:
    """Do some matching, which looks for signals as it goes (Modules/_sre/sre_lib.h), in the main thread.

    Raises:
        PatternError: it took too long.
    """
    before = signal.signal(signal.SIGALRM, _ring)
    try:
        _until.append(time.monotonic() + DEADLINE)
        # again and again: an alarm that comes a moment too early is not the only one
        signal.setitimer(signal.ITIMER_REAL, DEADLINE, DEADLINE / 10)
        return work()
    except _TooLateError:
        raise PatternError(f"it takes more than {DEADLINE:g} s for a page of lines") from None
    finally:
        _until.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
