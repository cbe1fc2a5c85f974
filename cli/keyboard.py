"""This terminal's keyboard, each key as it is."""

import contextlib
import sys
import termios
import tty
from collections.abc import Iterator

# What is typed to leave what this terminal is attached to: Ctrl-], as telnet has it.
LEAVE = b"\x1d"


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Hand on each key, without echo and without signals; afterwards the terminal is as it was."""
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
