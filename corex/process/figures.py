"""What processes use and whose children they are, read from a /proc that was opened before any child ran."""

import os

from corex.process.groups import Group
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

    def of_group(self, group: Group) -> Usage:
        """The figures of all processes of a cgroup together; None for what the kernel does not count."""
        cpu = _keyed(group.read("cpu.stat") or b"").get("usage_usec", 0)
        read, written = _bytes_moved(group.read("io.stat"))
        return Usage(
            cpu / 1e6,
            _number(group.read("memory.current")),
            tasks=_number(group.read("pids.current")) or len(group.members()),
            read_bytes=read,
            written_bytes=written,
        )

    def family(self, leader: int) -> list[int]:
        """A process, those of its session, and the descendants of all of them, as far as /proc shows them.

        What left the session and lost its parent is not among them: only a cgroup holds that.
        """
        parents: dict[int, tuple[int, int]] = {}
        for name in self._names():
            found = self._parent_and_session(int(name))
            if found is not None:
                parents[int(name)] = found
        found_ones = {leader} | {pid for pid, (_, session) in parents.items() if session == leader}
        grew = True
        while grew:
            more = {pid for pid, (parent, _) in parents.items() if parent in found_ones} - found_ones
            found_ones |= more
            grew = bool(more)
        return sorted(found_ones)

    def is_of(self, pid: int, leader: int) -> bool:
        """Whether a process that lives belongs to another's session, or descends from it."""
        while pid > 1 and pid != leader:
            found = self._parent_and_session(pid)
            if found is None:
                return False
            parent, session = found
            if session == leader:
                return True
            pid = parent
        return pid == leader

    def _names(self) -> list[str]:
        if self._proc is None:
            return []
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            return [name for name in os.listdir(folder) if name.isdigit()]  # noqa: PTH208  # of a descriptor
        finally:
            os.close(folder)

    def _parent_and_session(self, pid: int) -> tuple[int, int] | None:
        if self._proc is None:
            try:
                return 0, os.getsid(pid)
            except ProcessLookupError:
                return None
        try:
            fields = self._read(f"{pid}/stat").rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return int(fields[1]), int(fields[3])

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


def _keyed(data: bytes) -> dict[str, int]:
    return {
        name: int(value) for name, _, value in (line.partition(" ") for line in data.decode().splitlines())
    }


def _number(data: bytes | None) -> int | None:
    return int(data) if data and data.strip().isdigit() else None


def _bytes_moved(data: bytes | None) -> tuple[int | None, int | None]:
    """Bytes read and written on all disks together, of io.stat; None if the kernel does not count them."""
    if data is None:
        return None, None
    pairs = [word.partition("=") for word in data.decode().split() if "=" in word]
    figures = [sum(int(value) for name, _, value in pairs if name == key) for key in ("rbytes", "wbytes")]
    return figures[0], figures[1]
