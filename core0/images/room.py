"""Whether the node has memory for more of a layer.

Images lie in a ramfs: what is written there the kernel can neither limit nor take back, so a layer that is too large
would end in the kernel killing whom it likes. What several pulls take at a time is seen by each in what is left.
"""

from pathlib import Path

from core0.images.model import PullError

_MEMINFO = Path("/proc/meminfo")
# What stays free for everything else: a sixteenth of the machine, and on a small one this.
_LEAST, _PART = 32 << 20, 16
# Bytes of a layer between two looks.
STEP = 8 << 20


def check_room(fed: int) -> None:
    """Refuse to go on if memory is too short for the rest.

    Args:
        fed: bytes of the layer that mkfs.erofs got. It holds them in the layer's file and copies them there when it
            has them all: as much again is still to be written.

    Raises:
        PullError: it is too short.
    """
    total, available = _figures()
    kept = max(_LEAST, total // _PART)
    if available < kept + fed:
        raise PullError(
            f"cannot pull the image: {available >> 20} MiB of memory are available, of which {kept >> 20} are kept, "
            f"and this layer alone needs {fed >> 20} more; remove images (zn container image gc), or give it more"
        )


def _figures() -> tuple[int, int]:
    """All memory, and what is available without swapping, in bytes (proc_meminfo(5))."""
    lines = (line.split() for line in _MEMINFO.read_text().splitlines())
    found = {words[0]: int(words[1]) << 10 for words in lines if len(words) > 1}
    return found["MemTotal:"], found["MemAvailable:"]
