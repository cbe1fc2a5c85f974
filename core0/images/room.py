"""Whether there is room for more of a layer: in the node's memory, or on the pool where images are kept.

Images lie in a ramfs: what is written there the kernel can neither limit nor take back, so a layer that is too large
would end in the kernel killing whom it likes. What several pulls take at a time is seen by each in what is left.
"""

import os
from collections.abc import Callable
from pathlib import Path

from core0.images.model import Job, NoRoomError

_MEMINFO = Path("/proc/meminfo")
# What stays free for everything else: a sixteenth of the machine, and on a small one this.
_LEAST, _PART = 32 << 20, 16
# With less a puller cannot even say why it ends.
_LEAST_PULLER = 64 << 20
# Bytes of a layer between two looks.
STEP = 8 << 20


# What stays free of a pool for everything else.
_LEAST_OF_POOL = 64 << 20


def room_of(job: Job) -> Callable[[int], None]:
    """What looks whether there is room where a job's folder is, as `check_room` does."""
    return check_room if job.place == "memory" else lambda fed: check_space(job.folder, fed)


def check_space(folder: str, fed: int) -> None:
    """Refuse to go on if a pool has too little space for the rest. Raises NoRoomError."""
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < _LEAST_OF_POOL + fed:
        raise NoRoomError(
            f"cannot keep the image on its pool: {free >> 20} MiB are free, {_LEAST_OF_POOL >> 20} of them are kept, "
            f"and this layer alone needs {fed >> 20} more; remove images (zn container image gc), or other things",
            _LEAST_OF_POOL + fed - free,
        )


def check_room(fed: int) -> None:
    """Refuse to go on if memory is too short for the rest.

    Args:
        fed: bytes of the layer that mkfs.erofs got. It holds them in the layer's file and copies them there when it
            has them all: as much again is still to be written.

    Raises:
        NoRoomError: it is too short.
    """
    total, available = _figures()
    kept = max(_LEAST, total // _PART)
    if available < kept + fed:
        raise NoRoomError(
            f"cannot pull the image: {available >> 20} MiB of memory are available, of which {kept >> 20} are kept, "
            f"and this layer alone needs {fed >> 20} more; remove images (zn container image gc), or give it more",
            kept + fed - available,
        )


def spare() -> int:
    """Bytes of memory that a puller may have at most, with what it leaves: beyond, the kernel ends it."""
    total, available = _figures()
    return max(_LEAST_PULLER, available - max(_LEAST, total // _PART) // 2)


def _figures() -> tuple[int, int]:
    """All memory, and what is available without swapping, in bytes (proc_meminfo(5))."""
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    found = {words[0]: int(words[1]) << 10 for words in lines if len(words) > 1}
    return found["MemTotal:"], found["MemAvailable:"]
