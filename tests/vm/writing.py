"""A container that appends records to a volume, and tells of each one when it is on the disk for good (fsync(2))."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from ci.qemu.machine import Machine
from core0.wire.types import Container, ContainerSpec, VolumeMount
from corex.wire.api import LogGap
from tests.vm.inside import inside

NAME = "writer"
VOLUME = "journal"
# The records are those of `saboteur.record`; it goes on where their file ends. A record goes there by one write, and
# its number to the log behind its fsync.
_SCRIPT = """
cd /data
: >> records
n=$(($(busybox stat -c %s records) / 4096))
while busybox yes $(printf %07d $n) |
    dd of=records bs=4096 count=1 iflag=fullblock seek=$n conv=notrunc,fsync 2>/dev/null
do
    n=$((n + 1))
    echo $n
done
echo "cannot write record $n"
"""


def writer(spec: Callable[..., ContainerSpec]) -> ContainerSpec:
    """The container, with the volume that it writes to."""
    script = ("/bin/sh", "-c", _SCRIPT)
    return spec(argv=script, env={"PATH": "/bin"}, mounts=(VolumeMount(VOLUME, "/data"),))


async def acknowledged(machine: Machine, container: Container) -> AsyncIterator[int]:
    """How many records there are for good, each time that the container tells."""
    async with inside(machine, container) as corex, aclosing(corex.follow("main")) as lines:
        async for line in lines:
            if not isinstance(line, LogGap):
                yield int(line.text)
