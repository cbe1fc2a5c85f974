"""Processor time and memory of processes, read from a /proc that was opened before any child ran."""

import os

from corex.wire.api import Usage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Figures:
    """Reads figures under one open /proc; None stands for a container without one."""

    def __init__(self, proc: int | None) -> None:
        self._proc = proc

    def of(self, pid: int) -> Usage | None:
        """The figures of a process (proc(5): stat, statm), None if they cannot be read."""
        if self._proc is None:
            return None
        try:
            # The name in parentheses may hold anything, the last parenthesis ends it.
            fields = self._read(f"{pid}/stat").rpartition(b")")[2].split()
            resident = int(self._read(f"{pid}/statm").split()[1])
        except OSError:
            return None
        return Usage((int(fields[11]) + int(fields[12])) / _TICKS, resident * _PAGE)

    def _read(self, path: str) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            return os.read(descriptor, 4096)
        finally:
            os.close(descriptor)


def open_proc(root: int | None) -> int | None:
    """A descriptor of /proc on our own root, else of the container's; None if neither shows ourselves."""
    for folder, base in (("/proc", None), ("proc", root)):
        if base is None and folder == "proc":
            continue
        try:
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=base)
        except OSError:
            continue
        if Figures(descriptor).of(os.getpid()) is not None:
            return descriptor
        os.close(descriptor)
    return None
