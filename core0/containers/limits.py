"""Limits of containers: as the kernel has them, which of them change while one runs, which no node can give. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from core0.wire.types import ContainerSpec, Limits

_PERIOD = 100_000


class Capacity(msgspec.Struct, frozen=True):
    """What containers can have: bytes of memory, processors, and processes that may be at a time."""

    memory: int
    cpus: float
    processes: int


class Trouble(msgspec.Struct, frozen=True):
    """Which limit cannot be, why, and what to do."""

    field: str
    why: str
    remedy: str


def limits_of(limits: Limits, besides: int = 0) -> dict[str, str]:
    """The cgroup's limit files. Memory and files in memory count together, so all of them make the limit.

    Args:
        limits: the container's.
        besides: bytes that its volumes in memory and its tmpfs may take.
    """
    high = limits.memory_high_mib
    return {
        "memory.high": "max" if high is None else str(high << 20),
        "memory.max": str(memory_of(limits) + besides),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": f"{int(limits.cpus * _PERIOD)} {_PERIOD}",
        "cpu.weight": str(limits.cpu_weight),
        "pids.max": str(limits.processes),
    }


def memory_of(limits: Limits) -> int:
    """Bytes of memory that a container may have, its files included."""
    return (limits.memory_mib + limits.storage_mib) << 20


def tmpfs_of(spec: ContainerSpec) -> int:
    """Bytes that a container's other files in memory may take."""
    return sum(one.size_mib for one in spec.tmpfs) << 20


def oom_score_of(priority: int) -> int:
    """What the kernel adds to a container's processes when it looks for whom to end (proc_pid_oom_score_adj(5)).

    From 100 to 900, so that any of them goes before the node's own processes, which have less than 0.
    """
    return 500 - 4 * priority


def capped_io(lines: Iterable[str], limits: Limits) -> tuple[str, ...]:
    """Lines for io.max that allow no more than the container's own limits on each disk.

    Args:
        lines: what its volumes allow on their disks, which are all that it can reach.
        limits: the container's.
    """
    own = {
        "rbps": limits.read_bps,
        "wbps": limits.write_bps,
        "riops": limits.read_iops,
        "wiops": limits.write_iops,
    }
    return tuple(_capped(line, own) for line in lines)


def _capped(line: str, own: Mapping[str, int | None]) -> str:
    disk, *figures = line.split()
    rates = {key: value for key, _, value in (figure.partition("=") for figure in figures)}
    for key, most in own.items():
        known = rates.get(key, "max")
        if most is not None and (known == "max" or int(known) > most):
            rates[key] = str(most)
    return " ".join((disk, *(f"{key}={value}" for key, value in rates.items())))


def changes_while_running(before: ContainerSpec, after: ContainerSpec) -> bool:
    """Whether one spec becomes the other without another container: equal ones do not change."""
    return lasting(before) == lasting(after) and before != after


def lasting(spec: ContainerSpec) -> ContainerSpec:
    """What of a spec only another container can change: without what changes while it runs."""
    return msgspec.structs.replace(spec, limits=Limits(), labels={}, after={})


def beyond(limits: Limits, node: Capacity, tmpfs: int = 0) -> Trouble | None:
    """What no container can have on a node.

    Args:
        limits: the container's.
        node: what the node has.
        tmpfs: bytes that its tmpfs may take.
    """
    memory = memory_of(limits) + tmpfs
    if memory > node.memory:
        field = "memory_mib" if limits.memory_mib >= limits.storage_mib else "storage_mib"
        wanted = f"{memory >> 20} MiB of memory, files included"
        return Trouble(
            field, f"{wanted}: the node has {node.memory >> 20} MiB for containers", "allow it less"
        )
    if limits.cpus > node.cpus:
        return Trouble("cpus", f"{limits.cpus:g} processors: the node has {node.cpus:g}", "allow it no more")
    if limits.processes > node.processes:
        why = f"{limits.processes} processes: the node has {node.processes} for containers"
        return Trouble("processes", why, "allow it less")
    return None


def too_little(limits: Limits, besides: int, used: int) -> Trouble | None:
    """Why a container that runs cannot get so little: the kernel would end it at once.

    Args:
        limits: what it shall be allowed.
        besides: bytes that its volumes in memory and its tmpfs may take.
        used: bytes of memory that it has and that the kernel cannot take back.
    """
    allowed = memory_of(limits) + besides
    if used <= allowed:
        return None
    why = f"{allowed >> 20} MiB of memory, files and volumes included: it uses {-(-used >> 20)} MiB now"
    return Trouble("memory_mib", why, "allow it more, or stop it first")


def too_small(limits: Limits, used: int) -> Trouble | None:
    """Why a container that runs cannot be allowed so few files: it has more.

    Args:
        limits: what it shall be allowed.
        used: bytes of its files.
    """
    if used <= limits.storage_mib << 20:
        return None
    why = f"{limits.storage_mib} MiB of files: it has {-(-used >> 20)} MiB now"
    return Trouble("storage_mib", why, "allow it more, or delete some of them in it first")
