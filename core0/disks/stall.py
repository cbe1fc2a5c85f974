"""Which disks leave requests waiting: by the kernel's own counters, so that nothing has to ask a disk for it.

Sources: Documentation/ABI/stable/sysfs-block (inflight), Documentation/block/stat.rst.
"""

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from core0.linux import files

# Of a disk's `stat`: reads, writes, discards and flushes that were completed.
_COMPLETED = (0, 4, 11, 15)
# Seconds without an answer after which a disk counts as hung.
DEADLINE = 15.0


class Sample(NamedTuple):
    """How many requests of a disk wait, and how many were ever answered."""

    waiting: int
    answered: int


def observe(root: str = "/sys") -> dict[str, Sample]:
    """A sample of each disk, by the kernel's name."""
    found = {}
    for name in os.listdir(f"{root}/block"):
        try:
            waiting = files.read_text(f"{root}/block/{name}/inflight").split()
            numbers = files.read_text(f"{root}/block/{name}/stat").split()
        except OSError:  # it has just gone
            continue
        answered = sum(int(numbers[place]) for place in _COMPLETED if place < len(numbers))
        found[name] = Sample(sum(map(int, waiting)), answered)
    return found


class Stalls:
    """Sees from sample to sample which disks answer."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, float]] = {}

    def take(self, samples: Mapping[str, Sample], now: float, busy: Collection[str] = ()) -> dict[str, int]:
        """How many requests wait for disks that have answered nothing for too long, by the kernel's name.

        Args:
            samples: of all disks.
            now: monotonic seconds.
            busy: disks whose time does not run: what they were told to do may take them longer than that.
        """
        asked = {name: sample for name, sample in samples.items() if sample.waiting and name not in busy}
        since = {}
        for name, sample in asked.items():
            answered, start = self._since.get(name, (sample.answered, now))
            since[name] = (sample.answered, start if answered == sample.answered else now)
        self._since = since
        return {name: asked[name].waiting for name, (_, start) in since.items() if now - start >= DEADLINE}
