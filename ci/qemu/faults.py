"""Disks that fail, hang and mend while the machine runs.

Errors come from a blkdebug node that is slid below the disk's format (QMP `blockdev-reopen`, QEMU 6.1). A hang is a
throttle of one byte per second: requests wait in QEMU as if the disk did not answer. Flushes are not throttled, but
whoever waits for written data waits.
"""

from collections.abc import Sequence

from ci.qemu import disks
from ci.qemu.disks import Disk, Fault
from ci.qemu.monitor import Monitor

_KINDS = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")


async def inject(monitor: Monitor, disk: Disk, faults: Sequence[Fault]) -> None:
    """Make a disk fail requests from now on, in place of how it failed before."""
    await clear(monitor, disk)
    await monitor.execute("blockdev-add", disks.faults(disk, faults), image=disks.image_node(disk))
    await _reopen(monitor, disk, disks.fault_node(disk))


async def clear(monitor: Monitor, disk: Disk) -> None:
    """Let a disk serve every request again."""
    if await _fails(monitor, disk):
        await _reopen(monitor, disk, disks.image_node(disk))
        if await _fails(monitor, disk):  # a node of the machine's start goes by itself with its last user
            await monitor.execute("blockdev-del", node_name=disks.fault_node(disk))


async def _fails(monitor: Monitor, disk: Disk) -> bool:
    nodes = await monitor.execute("query-named-block-nodes", flat=True)
    return disks.fault_node(disk) in {node["node-name"] for node in nodes}


async def _reopen(monitor: Monitor, disk: Disk, file: str) -> None:
    await monitor.execute("blockdev-reopen", options=[disks.over(disk, file)])


async def hang(monitor: Monitor, disk: Disk) -> None:
    """Let a disk answer nothing any more; at most one request still passes."""
    await _throttle(monitor, disk, 1)


async def resume(monitor: Monitor, disk: Disk) -> None:
    """Let a disk answer again, what waited included."""
    await _throttle(monitor, disk, 0)


async def warn(monitor: Monitor, disk: Disk, warning: int) -> None:
    """Set the critical warnings of an NVMe disk's health log."""
    if disk.bus != "nvme":
        raise ValueError(
            f"cannot let disk {disk.name} warn: QEMU gives a health log that can change to NVMe only"
        )
    controller = f"/machine/peripheral/{disks.device_name(disk)}"
    await monitor.execute("qom-set", path=controller, property="smart_critical_warning", value=warning)


async def _throttle(monitor: Monitor, disk: Disk, limit: int) -> None:
    limits = {**dict.fromkeys(_KINDS, 0), "bps": limit}
    await monitor.execute("block_set_io_throttle", {"id": disks.backend(disk), **limits})
