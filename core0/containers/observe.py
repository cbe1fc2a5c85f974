"""Containers as they are: their records, and their first processes. Reads, never changes."""

import functools
import os
from pathlib import Path

import msgspec

from core0.containers.limits import Capacity
from core0.containers.model import Record
from core0.linux import files
from core0.linux.cgroups import keyed
from core0.wire.room import memory_of_containers, processes_of_containers


def observe_record(folder: Path) -> Record | None:
    """What was made of a container; None if nothing was."""
    try:
        return msgspec.json.decode((folder / "record.json").read_bytes(), type=Record)
    except FileNotFoundError:
        return None


@functools.cache
def observe_machine() -> Capacity:
    """What the machine has, which never changes."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    processes = min(int(files.read_text(f"/proc/sys/kernel/{name}")) for name in ("pid_max", "threads-max"))
    return Capacity(memory, os.cpu_count() or 1, processes)


def observe_capacity(group: Path) -> Capacity:
    """What containers may have, all of whose cgroup it is: what the machine has, unless a config says less.

    What the node itself keeps back counts as there: a limit is no demand, and small machines would take no container
    with the usual one.
    """
    machine = observe_machine()
    quota, _, period = _limit(group / "cpu.max").partition(" ")
    cpus = machine.cpus if quota == "max" else int(quota) / int(period)
    return Capacity(
        _capacity(group / "memory.max", machine.memory, memory_of_containers(machine.memory)),
        min(machine.cpus, cpus),
        _capacity(group / "pids.max", machine.processes, processes_of_containers(machine.processes)),
    )


def _limit(file: Path) -> str:
    """A limit of a cgroup; one that has not got the controller limits nothing."""
    try:
        return files.read_text(file).strip()
    except FileNotFoundError:
        return "max"


def _capacity(file: Path, of_machine: int, usual: int) -> int:
    """What a limit leaves containers; the usual one leaves them all."""
    limit = _limit(file)
    return of_machine if limit == "max" or int(limit) >= usual else int(limit)


def observe_memory_end(group: Path) -> str:
    """Why the kernel ended a container for want of memory; empty if it did not."""
    try:
        events = keyed(files.read_text(group / "memory.events"))
        limit = files.read_text(group / "memory.max").strip()
    except FileNotFoundError:
        return ""
    if not events.get("oom_kill"):
        return ""
    if not events.get("oom"):
        return "all containers together had no more memory, or the node had not"
    return f"it needed more than its {int(limit) >> 20} MiB of memory, files included"


def is_alive(record: Record) -> bool:
    """Whether the very process that was started still runs; its pid may be another's by now."""
    return 0 != start_time(record.pid) == record.started


def start_time(pid: int) -> int:
    """A process's start time in clock ticks since boot, 0 if it is gone or ended (proc_pid_stat(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The name in parentheses may hold anything; the fields start behind its last one.
    fields = text[text.rindex(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])
