"""What a container's Core-X keeps from one start to the next: a file of the node's that Core-X alone understands.

It is of one spec: who gives the container another one, and with it perhaps to somebody else, has it begin anew.
"""

import hashlib
import os
from pathlib import Path

import msgspec

from core0.containers.limits import lasting
from core0.wire.types import ContainerSpec


def open_kept(folder: Path, spec: ContainerSpec) -> int:
    """What was kept of this spec, nothing at first; a descriptor for its Core-X to read and write."""
    name = f"kept-{hashlib.sha256(msgspec.json.encode(lasting(spec))).hexdigest()}"
    for other in folder.glob("kept-*"):
        if other.name != name:
            other.unlink()
    return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
