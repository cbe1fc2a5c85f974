"""Limits of containers: as the kernel has them, which of them change while one runs, which no node can give. Pure."""

import msgspec

from core0.wire.types import ContainerSpec, Limits

# Of a file system and of links that were made with the container, and cannot be had from outside of it later.
_MADE_WITH_IT = ("storage_mib", "receive_bps", "send_bps")
_PERIOD = 100_000


class Capacity(msgspec.Struct, frozen=True):
    """What the node has: bytes of memory, processors, and processes that may be at a time."""

    memory: int
    cpus: int
    processes: int


class Trouble(msgspec.Struct, frozen=True):
    """Which limit cannot be, why, and what to do."""

    field: str
    why: str
    remedy: str


def limits_of(limits: Limits, volumes: int = 0) -> dict[str, str]:
    """The cgroup's limit files. Memory and files in memory count together, so all of them make the limit.

    Args:
        limits: the container's.
        volumes: bytes that its volumes in memory may take.
    """
    high = limits.memory_high_mib
    return {
        "memory.high": "max" if high is None else str(high << 20),
        "memory.max": str(memory_of(limits) + volumes),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": f"{int(limits.cpus * _PERIOD)} {_PERIOD}",
        "cpu.weight": str(limits.cpu_weight),
        "pids.max": str(limits.processes),
    }


def memory_of(limits: Limits) -> int:
    """Bytes of memory that a container may have, its files included."""
    return (limits.memory_mib + limits.storage_mib) << 20


def made_with_it(before: Limits, after: Limits) -> str:
    """The first limit that differs and cannot be changed while a container runs; empty if there is none."""
    return next((name for name in _MADE_WITH_IT if getattr(before, name) != getattr(after, name)), "")


def changes_while_running(before: ContainerSpec, after: ContainerSpec) -> bool:
    """Whether one spec becomes the other without another container: equal ones do not change."""
    same = msgspec.structs.replace(before, limits=after.limits) == after
    return same and before != after and not made_with_it(before.limits, after.limits)


def beyond(limits: Limits, node: Capacity) -> Trouble | None:
    """What no container can have on a node."""
    if memory_of(limits) > node.memory:
        field = "memory_mib" if limits.memory_mib >= limits.storage_mib else "storage_mib"
        wanted = f"{memory_of(limits) >> 20} MiB of memory, files included"
        return Trouble(field, f"{wanted}: the node has {node.memory >> 20} MiB", "allow it less")
    if limits.cpus > node.cpus:
        return Trouble("cpus", f"{limits.cpus:g} processors: the node has {node.cpus}", "allow it no more")
    if limits.processes > node.processes:
        why = f"{limits.processes} processes: the kernel gives no more than {node.processes} numbers"
        return Trouble("processes", why, "allow it less")
    return None


def too_little(limits: Limits, volumes: int, used: int) -> Trouble | None:
    """Why a container that runs cannot get so little: the kernel would end it at once.

    Args:
        limits: what it shall be allowed.
        volumes: bytes that its volumes in memory may take.
        used: bytes of memory that it has and that the kernel cannot take back.
    """
    allowed = memory_of(limits) + volumes
    if used <= allowed:
        return None
    why = f"{allowed >> 20} MiB of memory, files and volumes included: it uses {-(-used >> 20)} MiB now"
    return Trouble("memory_mib", why, "allow it more, or stop it first")
