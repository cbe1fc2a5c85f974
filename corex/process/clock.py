"""Waking at moments of the wall clock, also when somebody sets it meanwhile.

One timerfd(2) of CLOCK_REALTIME for all: TFD_TIMER_CANCEL_ON_SET tells when the clock jumps, and everything is looked
at anew then. The loop's own timers count seconds of a clock that nobody can set, which is wrong for "at noon".
"""

import asyncio
import ctypes
import heapq
import itertools
import os
import time
from collections.abc import Callable

_REALTIME = 0
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE_CANCEL_ON_SET = 1 | 2
# Seconds: the kernel's timers take no more; who waits longer is looked at again then.
_LONGEST = 10 * 366 * 86400

_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """A moment that somebody waits for."""

    __slots__ = ("act",)

    def __init__(self, act: Callable[[], None] | None) -> None:
        self.act = act

    def cancel(self) -> None:
        """Wait no longer."""
        self.act = None


class WallClock:
    """Alarms by the wall clock.

    Attributes:
        changed: called each time that the clock was set.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.changed: Callable[[], None] = _nothing
        self._loop = loop
        self._descriptor = -1
        self._heap: list[tuple[float, int, Alarm]] = []
        self._count = itertools.count()

    def at(self, moment: float, act: Callable[[], None]) -> Alarm:
        """Act once at a moment, seconds since 1970 UTC; soon, if it is over."""
        alarm = Alarm(act)
        heapq.heappush(self._heap, (moment, next(self._count), alarm))
        self._arm()
        return alarm

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _arm(self) -> None:
        while self._heap and self._heap[0][2].act is None:
            heapq.heappop(self._heap)
        if not self._heap:
            return
        if self._descriptor < 0:
            self._descriptor = _checked(_libc.timerfd_create(_REALTIME, _NONBLOCK_CLOEXEC))
            self._loop.add_reader(self._descriptor, self._wake)
        moment = min(max(self._heap[0][0], 1.0), time.time() + _LONGEST)
        seconds = int(moment)
        # struct itimerspec: the interval, then the first expiration, each as seconds and nanoseconds
        wanted = (ctypes.c_long * 4)(0, 0, seconds, int((moment - seconds) * 1e9))
        _checked(_libc.timerfd_settime(self._descriptor, _ABSOLUTE_CANCEL_ON_SET, wanted, None))

    def _wake(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        except OSError:  # ECANCELED: the clock was set
            self.changed()
        now = time.time()
        while self._heap and self._heap[0][0] <= now:
            alarm = heapq.heappop(self._heap)[2]
            if alarm.act is not None:
                alarm.act()
        self._arm()


def _nothing() -> None:
    """Nobody asked to be told."""


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot use the kernel's clock: {os.strerror(error)}")
    return result
