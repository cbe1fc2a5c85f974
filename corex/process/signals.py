"""Signals that the event loop acts on, and what children inherit of the others.

`loop.add_signal_handler` does the same, but looks at all signals that there are for each of them: in a fork of a
process whose memory it shares that takes longer than making the loop.

Sources: signal(7), and the `signal` module's documentation of set_wakeup_fd.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from types import FrameType

_KEPT_IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores them; children get them back
_LARGEST = 4096


def stop_ignoring() -> None:
    """Undo what was ignored before us: children, forks included, would inherit it."""
    for number in signal.valid_signals() - _KEPT_IGNORED - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def unblock() -> None:
    """Let all signals come."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def handle(loop: asyncio.AbstractEventLoop, actions: Mapping[int, Callable[[], object]]) -> None:
    """Have the loop act when a signal comes, once for all of a kind that came meanwhile; for the process's life."""
    told, teller = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    came: set[int] = set()

    def note(number: int, _frame: FrameType | None) -> None:
        came.add(number)

    def act() -> None:
        os.read(told, _LARGEST)
        while came:
            actions[came.pop()]()

    loop.add_reader(told, act)
    # a full pipe wakes the loop all the same
    signal.set_wakeup_fd(teller, warn_on_full_buffer=False)
    for number in actions:
        signal.signal(number, note)
        signal.siginterrupt(number, False)
