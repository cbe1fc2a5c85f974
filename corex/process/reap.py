"""Reaping: the only module that waits for children.

PID 1 inherits every orphan of its container, so it waits for any child, not for known ones. A dead child is
first looked at without being reaped (waitid(2), WNOWAIT): while it is a zombie its number belongs to nobody
else, so whoever is told of the exit can still signal its process group. asyncio's subprocess support would
wait for the same children and is not used.
"""

import os
from collections.abc import Callable
from contextlib import suppress

from corex.process.model import exit_of
from corex.wire.api import Exit

OnExit = Callable[[Exit], None]


class Reaper:
    """Waits for all children and tells those who asked."""

    def __init__(self) -> None:
        self.orphans = 0
        self._expected: dict[int, OnExit] = {}
        self._early: dict[int, Exit] = {}
        self._spawning = 0

    def spawning(self) -> None:
        """A spawn is under way: until `spawned`, an unknown child may be the new one."""
        self._spawning += 1

    def spawned(self, pid: int | None, on_exit: OnExit) -> None:
        """The spawn is over; `on_exit` is called once for `pid`, at once if it is already gone."""
        self._spawning -= 1
        early = self._early.pop(pid, None) if pid is not None else None
        if not self._spawning:
            self.orphans += len(self._early)
            self._early.clear()
        if early is not None:
            on_exit(early)
        elif pid is not None:
            self._expected[pid] = on_exit

    def reap(self) -> None:
        """Reap every child that is dead now. Call it at each SIGCHLD."""
        with suppress(ChildProcessError):
            while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                self._tell(dead.si_pid, exit_of(dead.si_code, dead.si_status))
                os.waitpid(dead.si_pid, 0)

    def _tell(self, pid: int, ended: Exit) -> None:
        on_exit = self._expected.pop(pid, None)
        if on_exit is not None:
            on_exit(ended)
        elif self._spawning:
            self._early[pid] = ended
        else:
            self.orphans += 1
