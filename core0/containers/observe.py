"""Containers as they are: their records, and their first processes. Reads, never changes."""

import os
from pathlib import Path

import msgspec

from core0.containers.limits import Capacity
from core0.containers.model import Record


def observe_record(folder: Path) -> Record | None:
    """What was made of a container; None if nothing was."""
    try:
        return msgspec.json.decode((folder / "record.json").read_bytes(), type=Record)
    except FileNotFoundError:
        return None


def observe_capacity() -> Capacity:
    """What the node has."""
    memory = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")
    )
    processes = int(Path("/proc/sys/kernel/pid_max").read_text())
    return Capacity(int(memory.split()[1]) << 10, os.cpu_count() or 1, processes)


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
