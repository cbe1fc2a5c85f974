"""Whom a signal to a process reaches: itself, its process group, or all that it brought forth."""

import os
import signal
from contextlib import suppress

from corex.process.figures import Figures
from corex.process.groups import Group
from corex.wire.process import Scope


class Kin:
    """A running process and those that its signals reach.

    Its number is its own until it is reaped: nobody else can be hit.
    """

    __slots__ = ("_figures", "group", "pid", "scope")

    def __init__(self, pid: int, scope: Scope, group: Group | None, figures: Figures) -> None:
        self.pid, self.scope, self.group = pid, scope, group
        self._figures = figures

    def send(self, number: int) -> None:
        """Send a signal to all of them; who is gone already is passed over."""
        if self.scope == "process":
            _send(self.pid, number)
        elif self.scope == "group":
            _send(-self.pid, number)
        elif self.group is not None and number == signal.SIGKILL:
            self.group.kill()
        else:
            for pid in self.members():
                _send(pid, number)

    def send_strictly(self, number: int) -> None:
        """Send a signal as a person asked to.

        Raises:
            ProcessLookupError: nobody is there.
            PermissionError: the kernel refuses it.
        """
        if self.scope == "process":
            os.kill(self.pid, number)
        elif self.scope == "group":
            os.killpg(self.pid, number)
        else:
            self.send(number)

    def end(self) -> None:
        """SIGKILL what its end leaves behind; with scope process that goes on."""
        if self.scope != "process":
            self.send(signal.SIGKILL)

    def members(self) -> list[int]:
        """The processes of a tree."""
        return self._figures.family(self.pid) if self.group is None else self.group.members()

    def has(self, pid: int) -> bool:
        """Whether another process is of its tree."""
        if self.group is not None:
            return pid in self.group.members()
        return self._figures.is_of(pid, self.pid)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
