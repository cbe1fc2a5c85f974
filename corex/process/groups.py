"""Cgroups of single processes, below the container's own (Documentation/admin-guide/cgroup-v2.rst).

The node gives Core-X a descriptor of the container's cgroup that can be written to, and nobody else: what the
container's processes see below /sys/fs/cgroup is read-only. A process whose scope is its tree gets a cgroup there, so
that nothing it brings forth can leave it, and the kernel counts what they use together.

The first one costs more: a cgroup that has controllers for its children has no processes itself, so Core-X moves to
one of its own, with all that runs already.
"""

import errno
import os
from contextlib import suppress

_REST = "core-x"  # where Core-X itself goes, and whoever has no cgroup of its own
_CONTROLLERS = ("cpu", "memory", "io", "pids")
_PREFIX = "process-"
_TRIES = 100


class Group:
    """One process's cgroup, as a descriptor of its folder."""

    __slots__ = ("_folder",)

    def __init__(self, folder: int) -> None:
        self._folder = folder

    def door(self) -> int:
        """A descriptor that a process writes 0 to in order to move here; the caller closes it."""
        return os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._folder)

    def members(self) -> list[int]:
        """The processes in it, as far as they live."""
        return [int(line) for line in (self.read("cgroup.procs") or b"").split()]

    def kill(self) -> None:
        """SIGKILL all that is in it, at once."""
        with suppress(OSError):
            _write(self._folder, "cgroup.kill", "1")

    def read(self, name: str) -> bytes | None:
        """One of its files; None if it is not there: its controller is not to be had."""
        return _read(self._folder, name)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._folder)


class Groups:
    """Makes and removes them; `folder` is the container's own cgroup, None if Core-X may make none."""

    def __init__(self, folder: int | None) -> None:
        self._folder = folder
        self._is_divided = False
        self._left: set[str] = set()

    def make(self, process: str) -> Group | None:
        """The cgroup of a process, made if it is not there; None where there can be none."""
        if self._folder is None:
            return None
        try:
            self._divide(self._folder)
            name = _PREFIX + process
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._folder)
            self._left.discard(name)
            return Group(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder))
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                self._folder = None
                return None
            raise

    def remove(self, process: str) -> None:
        """Remove a process's cgroup; one that is not empty yet goes when the next one does."""
        self._left.add(_PREFIX + process)
        for name in tuple(self._left):
            try:
                if self._folder is not None:
                    os.rmdir(name, dir_fd=self._folder)
            except FileNotFoundError:
                pass
            except OSError:
                continue
            self._left.discard(name)

    def _divide(self, folder: int) -> None:
        """Make room for cgroups with controllers, once."""
        if self._is_divided:
            return
        with suppress(FileExistsError):
            os.mkdir(_REST, dir_fd=folder)
        rest = os.open(_REST, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            # What forks meanwhile leaves another one behind, which is moved in the next round.
            for _ in range(_TRIES):
                pids = (_read(folder, "cgroup.procs") or b"").split()
                if not pids:
                    break
                for pid in pids:
                    with suppress(ProcessLookupError):
                        _write(rest, "cgroup.procs", pid.decode())
        finally:
            os.close(rest)
        available = (_read(folder, "cgroup.controllers") or b"").decode().split()
        for name in _CONTROLLERS:
            if name in available:
                with suppress(OSError):
                    _write(folder, "cgroup.subtree_control", f"+{name}")
        self._is_divided = True


def _write(folder: int, name: str, text: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(folder: int, name: str) -> bytes | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    data = b""
    try:
        while piece := os.read(descriptor, 65536):
            data += piece
    except OSError as error:
        if error.errno != errno.ENODEV:  # the cgroup went at this moment
            raise
    finally:
        os.close(descriptor)
    return data
