"""Somebody at a terminal in which `zn` runs."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path


class Typist:
    """Somebody at a terminal in which `zn` runs."""

    def __init__(self, pid: int, terminal: int) -> None:
        self.pid, self.terminal, self.seen = pid, terminal, b""

    def read(self, until: bytes = b"\0never") -> bytes:
        """What is shown, up to a text or to the end."""
        end = time.monotonic() + 30
        while until not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], end - time.monotonic())
            assert ready, self.seen
            try:
                data = os.read(self.terminal, 65536)
            except OSError:  # nobody has the other end any more
                return self.seen
            self.seen += data
        return self.seen

    def type(self, text: bytes) -> None:
        self.seen = b""
        os.write(self.terminal, text)

    def end(self) -> int:
        self.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def sit_down(contexts: Path, *words: str, rows: int = 33, columns: int = 111) -> Typist:
    """Run `zn` in a terminal of that size."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "--contexts", str(contexts), *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "NO_COLOR": "1", "TERM": "vt220"},
    )
    os.close(theirs)
    process.returncode = 0  # the typist waits for it
    return Typist(process.pid, ours)
