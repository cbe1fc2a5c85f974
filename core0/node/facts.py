"""What the node says of itself: `/v1/node`, `/v1/health`, `/v1/boot`."""

import os
import socket
import time
from collections.abc import Iterator

import msgspec

from core0.links.model import SeenLink
from core0.linux import files
from core0.wire import cmdline, console, paths
from core0.wire.types import Address, Boot, BootPhase, Check, Health, Node, ProcessMemory

# Below this the kernel starts to kill, in bytes.
_LEAST_MEMORY = 16 << 20


def describe_node(fingerprint: str, links: tuple[SeenLink, ...], ephemeral: bool) -> Node:
    """What this node is; `ephemeral` if that ends with this boot."""
    image = msgspec.json.decode(files.read(paths.IMAGE))
    system = os.uname()
    return Node(
        hostname=socket.gethostname(),
        fingerprint=fingerprint,
        ephemeral=ephemeral,
        version=image["version"],
        build=image["build_id"],
        kernel=system.release,
        architecture=system.machine,
        cpus=os.cpu_count() or 1,
        memory_bytes=_memory("MemTotal"),
        uptime_seconds=round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
        addresses=tuple(
            Address(link.name, interface)
            for link in links
            for interface in (*sorted(link.addresses), *sorted(link.routed))
        ),
    )


def describe_health(links: tuple[SeenLink, ...], checks: tuple[Check, ...] = ()) -> Health:
    """Whether the node can do its work, and how much memory its own processes take.

    Args:
        links: the node's links.
        checks: what others say: how what the node is told is kept, and the disk manager, once there is one.
    """
    available = _memory("MemAvailable")
    addressed = [link.name for link in links if link.addresses or link.routed]
    failed = [phase.name for phase in _phases() if phase.state == "failed"]
    every = (
        Check("memory", available >= _LEAST_MEMORY, f"{available >> 20} MiB are available"),
        Check("network", bool(addressed), f"links with an address: {', '.join(addressed) or 'none'}"),
        Check("boot", not failed, f"phases that failed: {', '.join(failed) or 'none'}"),
        *checks,
    )
    processes = tuple(sorted(_processes(), key=lambda process: process.pid))
    return Health(all(check.ok for check in every), every, available, processes)


def describe_boot() -> Boot:
    """How this boot went."""
    return Boot(tuple(_phases()), cmdline.parse(files.read_text("/proc/cmdline")).warnings)


def _phases() -> Iterator[BootPhase]:
    for line in files.read_text(paths.BOOT_LOG).splitlines():
        phase = console.parse_phase(line)
        if phase:
            yield BootPhase(phase.name, phase.state, phase.at, phase.detail)


def _memory(field: str) -> int:
    """A figure of /proc/meminfo in bytes."""
    for line in files.read_text("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) << 10
    return 0


def _processes() -> Iterator[ProcessMemory]:
    """PID 1 and the node's own processes, each in the cgroup of its name."""
    yield from _process("init", 1)
    for group in sorted(os.listdir(paths.CGROUP_SYSTEM)):
        processes = f"{paths.CGROUP_SYSTEM}/{group}/cgroup.procs"
        for pid in files.read_text(processes).split() if os.path.exists(processes) else ():
            yield from _process(group, int(pid))


def _process(name: str, pid: int) -> Iterator[ProcessMemory]:
    try:
        rollup = files.read_text(f"/proc/{pid}/smaps_rollup")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or its /proc is closed
        return
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            yield ProcessMemory(name, pid, int(line.split()[1]) << 10)
