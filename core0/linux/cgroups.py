"""The cgroup v2 tree (Documentation/admin-guide/cgroup-v2.rst)."""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from core0.linux import files
from core0.linux.files import StrPath

Freezer = Literal["thawed", "freezing", "frozen"]


def create(path: StrPath, limits: Mapping[str, str] | None = None) -> None:
    """Make a cgroup and set its limit files; one that exists is kept and its limits set again.

    Raises:
        OSError: naming the limit that the kernel refused.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    for name, value in (limits or {}).items():
        try:
            files.write(f"{path}/{name}", value)
        except OSError as error:
            group = os.path.basename(path)
            raise OSError(
                error.errno, f"cannot set {name} of cgroup {group} to {value}: {error.strerror}"
            ) from None


def limit_io(path: StrPath, lines: Sequence[str]) -> None:
    """Limit a cgroup's input and output by lines as io.max has them, one for each disk, and on no other disk.

    Raises:
        OSError: naming the line that the kernel refused.
    """
    try:
        limited = files.read_text(f"{path}/io.max")
    except FileNotFoundError:  # the kernel limits none, or the cgroup has not got the controller
        limited = ""
    for line in (*lines, *lines_that_free(limited, lines)):
        try:
            files.write(f"{path}/io.max", line)
        except OSError as error:
            # without its device the disk has just gone: nothing of it can be limited, nor need be
            if error.errno != errno.ENODEV:
                raise OSError(error.errno, f"cannot limit io to {line}: {error.strerror}") from None


def lines_that_free(limited: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """Lines that end what io.max limits on disks of which none of the wanted lines is.

    Args:
        limited: what io.max says now: a line for each disk that has a limit. One that was pulled and is still open is
            called `(unknown)` there, has no number any more (block/blk-cgroup.c, blkg_dev_name), and is passed over.
        wanted: lines that are written.
    """
    kept = {line.split()[0] for line in wanted}
    disks = (line.split()[0] for line in limited.splitlines() if line[:1].isdigit())
    return tuple(f"{disk} rbps=max wbps=max riops=max wiops=max" for disk in disks if disk not in kept)


def delegate(path: StrPath, controllers: Iterable[str]) -> None:
    """Give the children of a cgroup those of the named controllers that exist here."""
    present = set(files.read_text(f"{path}/cgroup.controllers").split())
    wanted = [f"+{name}" for name in controllers if name in present]
    files.write(f"{path}/cgroup.subtree_control", " ".join(wanted))


def give_away(path: StrPath, owner: int, descendants: int) -> None:
    """Let a user divide a cgroup: make children, move its own processes among them, give them controllers.

    As cgroup-v2.rst says under "Delegation"; the limits stay root's.

    Args:
        path: the cgroup.
        owner: user and group id.
        descendants: how many cgroups there may be below it.
    """
    files.write(f"{path}/cgroup.max.descendants", str(descendants))
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(f"{path}/{name}", owner, owner)


def set_idle(path: StrPath, idle: bool) -> None:
    """Whether the cgroup's processes run only when no other cgroup beside it wants the processor (cpu.idle).

    A process's own SCHED_IDLE counts among those of its cgroup only.
    """
    files.write(f"{path}/cpu.idle", str(int(idle)))


def freeze(path: StrPath) -> None:
    """Ask the kernel to halt every process in the cgroup and below; `freezer` tells when all of them are."""
    files.write(f"{path}/cgroup.freeze", "1")


def thaw(path: StrPath) -> None:
    """Let the processes of a cgroup go on."""
    files.write(f"{path}/cgroup.freeze", "0")


def freezer(path: StrPath) -> Freezer:
    """Whether a cgroup's processes are halted; one that is gone has none to halt.

    A process that waits for a disk halts when that has answered, and the cgroup is `freezing` for so long.
    """
    try:
        if files.read_text(f"{path}/cgroup.freeze").strip() != "1":
            return "thawed"
        return "frozen" if "frozen 1" in files.read_text(f"{path}/cgroup.events") else "freezing"
    except FileNotFoundError:
        return "thawed"


def memory_in_use(path: StrPath) -> int:
    """Bytes that a cgroup's processes have and the kernel cannot take back: without what files it keeps for later.

    Returns 0 for a cgroup that is gone, or has not got the controller.
    """
    try:
        current = int(files.read_text(f"{path}/memory.current"))
        counted = keyed(files.read_text(f"{path}/memory.stat"))
    except FileNotFoundError:
        return 0
    # shared memory is among `file`, but on no list of files (mm/memcontrol.c)
    taken_back = ("active_file", "inactive_file", "slab_reclaimable")
    return max(0, current - sum(counted.get(name, 0) for name in taken_back))


def keyed(text: str) -> dict[str, int]:
    """The figures of a flat keyed file, as memory.stat is one."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def is_populated(path: StrPath) -> bool:
    """Whether a process lives in the cgroup or below it; one that is gone has none."""
    try:
        return "populated 1" in files.read_text(f"{path}/cgroup.events")
    except FileNotFoundError:
        return False


def first_processes(path: StrPath) -> list[int]:
    """Processes of the cgroup and below that no other one there is the parent of; of a cgroup that is gone, none."""
    parents = {}
    for place, _, _ in os.walk(path):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in files.read_text(f"{place}/cgroup.procs").split():
                status = files.read_text(f"/proc/{pid}/stat")
                # the name in parentheses may hold anything; behind it are state and parent (proc_pid_stat(5))
                parents[int(pid)] = int(status.rpartition(")")[2].split()[1])
    return [pid for pid, parent in parents.items() if parent not in parents]


def kill(path: StrPath) -> None:
    """SIGKILL every process in the cgroup and below, at once (cgroup.kill)."""
    with contextlib.suppress(FileNotFoundError):
        files.write(f"{path}/cgroup.kill", "1")


def remove(path: StrPath, deadline: float = 5.0) -> None:
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


def _remove_tree(path: StrPath) -> None:
    with contextlib.suppress(FileNotFoundError):
        with os.scandir(path) as children:
            for child in children:
                if child.is_dir():
                    _remove_tree(child.path)
        os.rmdir(path)
