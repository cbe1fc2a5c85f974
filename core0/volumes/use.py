"""Volumes in containers: handed out as detached mounts, with what they mean for a container's limits."""

import socket
from collections.abc import Iterable, Iterator

import msgspec

from core0.linux import mounts
from core0.volumes import apply
from core0.volumes.memory import Memory
from core0.volumes.places import LOOK, Places
from core0.wire.control import RefusedError
from core0.wire.volumes import IoLimits

# Limits as io.max calls them (Documentation/admin-guide/cgroup-v2.rst).
_KEYS = {"rbps": "read_bps", "wbps": "write_bps", "riops": "read_iops", "wiops": "write_iops"}


class ContainerLimits(msgspec.Struct, frozen=True):
    """What volumes mean for a container's limits: bytes of memory that they may take, lines for io.max."""

    memory: int
    io: tuple[str, ...]


class VolumeUse:
    """What containers get of volumes."""

    def __init__(self, places: Places, memory: Memory) -> None:
        """Hands out volumes of pools and of memory."""
        self._places = places
        self._memory = memory

    def trouble(self, name: str) -> str:
        """Why there is no volume of that name to be had; empty if there is one."""
        if name in self._memory.list():
            return ""
        try:
            self._places.find(name, None)
        except RefusedError as error:
            return (
                error.refusal.detail.partition("cannot find ")[2] or f"volume {name}: {error.refusal.detail}"
            )
        return ""

    async def hand_out(self, name: str) -> int:
        """A detached mount of a volume, to be closed by the caller. Raises OSError: it cannot be had now."""
        if name in self._memory.list():
            return mounts.clone_tree(self._memory.path(name))
        try:
            place, _ = self._places.find(name, None)
        except RefusedError as error:
            raise OSError(f"cannot mount volume {name}: {error.refusal.detail}") from None
        if place.trouble:
            raise OSError(f"cannot mount volume {name}: {place.trouble}")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            await self._places.worker.call(
                apply.hand_out, place.root, name, deadline=LOOK, descriptors=[theirs.fileno()]
            )
            _, descriptors, _, _ = socket.recv_fds(ours, 16, 1, socket.MSG_CMSG_CLOEXEC)
        return descriptors[0]

    def limits(self, names: Iterable[str]) -> ContainerLimits:
        """Limits for a container that has these volumes; those that are not there yet count nothing."""
        wanted = set(names)
        memory = sum(kept.spec.size for name, kept in self._memory.list().items() if name in wanted)
        return ContainerLimits(memory, tuple(io_lines(self._used(wanted))))

    def _used(self, names: set[str]) -> Iterator[tuple[tuple[str, ...], IoLimits]]:
        for place, seen in self._places.everything():
            if seen.name in names and place.seen and place.root:
                yield place.seen.disks, seen.record.io if seen.record else IoLimits()


def io_lines(volumes: Iterable[tuple[tuple[str, ...], IoLimits]]) -> Iterator[str]:
    """Lines for io.max: on each disk the sum of the limits of the volumes there, none if one of them has none.

    Args:
        volumes: the disks (`major:minor`) and the limits of each.
    """
    by_disk: dict[str, list[IoLimits]] = {}
    for disks, limits in volumes:
        for disk in disks:
            by_disk.setdefault(disk, []).append(limits)
    for disk, all_ in sorted(by_disk.items()):
        sums = (f"{key}={_sum([getattr(one, field) for one in all_])}" for key, field in _KEYS.items())
        yield f"{disk} {' '.join(sums)}"


def _sum(rates: list[int | None]) -> str:
    return "max" if None in rates else str(sum(rate for rate in rates if rate))
