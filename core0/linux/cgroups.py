"""The cgroup v2 tree (Documentation/admin-guide/cgroup-v2.rst)."""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def create(path: Path, limits: Mapping[str, str] | None = None) -> None:
    """Make a cgroup and set its limit files; one that exists is kept and its limits set again.

    Raises:
        OSError: naming the limit that the kernel refused.
    """
    path.mkdir(exist_ok=True)
    for name, value in (limits or {}).items():
        try:
            (path / name).write_text(value)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot set {name} of cgroup {path.name} to {value}: {error.strerror}"
            ) from None


def delegate(path: Path, controllers: Iterable[str]) -> None:
    """Give the children of a cgroup those of the named controllers that exist here."""
    present = set((path / "cgroup.controllers").read_text().split())
    wanted = [f"+{name}" for name in controllers if name in present]
    (path / "cgroup.subtree_control").write_text(" ".join(wanted))


def enter(path: Path, pid: int = 0) -> None:
    """Move a process (0: the caller) into a cgroup."""
    (path / "cgroup.procs").write_text(str(pid))


def is_populated(path: Path) -> bool:
    """Whether a process lives in the cgroup or below it; one that is gone has none."""
    try:
        return "populated 1" in (path / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def kill(path: Path) -> None:
    """SIGKILL every process in the cgroup and below, at once (cgroup.kill)."""
    with contextlib.suppress(FileNotFoundError):
        (path / "cgroup.kill").write_text("1")


def remove(path: Path, deadline: float = 5.0) -> None:
    """Remove an empty cgroup and its children; the kernel frees a killed one's processes a little later.

    Args:
        path: the cgroup.
        deadline: seconds to wait for it to become empty.

    Raises:
        OSError: EBUSY if it still has processes at the deadline.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            return _remove_tree(path)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.005)


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for child in os.scandir(path):
            if child.is_dir():
                _remove_tree(Path(child.path))
        path.rmdir()
