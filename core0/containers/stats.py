"""What a container uses, by its cgroup's files. Reads, never changes."""

from pathlib import Path

from core0.linux import files
from core0.linux.cgroups import keyed
from core0.wire.types import ContainerStats, Traffic

_MICROSECONDS = 1_000_000


def observe_stats(group: Path, traffic: Traffic | None) -> ContainerStats:
    """What the processes of a cgroup use.

    Raises:
        OSError: the cgroup is gone (ENOENT, or ENODEV if it went at this moment), or has not got a controller.
    """
    processor = keyed(files.read_text(group / "cpu.stat"))
    disks = sum_io(files.read_text(group / "io.stat"))
    return ContainerStats(
        memory_bytes=_figure(group / "memory.current"),
        memory_peak_bytes=_figure(group / "memory.peak"),
        memory_limit_bytes=_figure(group / "memory.max"),
        memory_kills=keyed(files.read_text(group / "memory.events"))["oom_kill"],
        processes=_figure(group / "pids.current"),
        processes_limit=_figure(group / "pids.max"),
        processor_seconds=processor["usage_usec"] / _MICROSECONDS,
        throttled_seconds=processor.get("throttled_usec", 0) / _MICROSECONDS,
        read_bytes=disks.get("rbytes", 0),
        written_bytes=disks.get("wbytes", 0),
        reads=disks.get("rios", 0),
        writes=disks.get("wios", 0),
        traffic=traffic,
    )


def sum_io(text: str) -> dict[str, int]:
    """The figures of io.stat, all disks together; a disk that moved nothing yet may have a line without figures."""
    sums: dict[str, int] = {}
    for line in text.splitlines():
        for figure in line.split()[1:]:
            name, equals, value = figure.partition("=")
            if equals and value.isdigit():
                sums[name] = sums.get(name, 0) + int(value)
    return sums


def _figure(file: Path) -> int:
    return int(files.read_text(file))
