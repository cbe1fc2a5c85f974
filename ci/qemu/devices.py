"""Devices that come and go while the machine runs: PCIe hot-plug into the specification's spare slots."""

from ci.qemu.monitor import Monitor
from ci.qemu.spec import Disk, MachineSpec, Nic, blockdev, disk_device, netdev, nic_device, slot_name


class Slots:
    """Which spare slot holds what, and the QMP sequences that fill and empty them."""

    def __init__(self, spec: MachineSpec, monitor: Monitor) -> None:
        self._machine = spec.name
        self._monitor = monitor
        self._free = [slot_name(index) for index in range(spec.spare_slots)]
        self._plugged: dict[str, tuple[str, Disk | Nic]] = {}

    async def plug_disk(self, disk: Disk) -> None:
        """Open the file and show the disk to the guest."""
        await self._monitor.execute("blockdev-add", **blockdev(disk))
        await self._plug(disk, disk_device(disk))

    async def plug_nic(self, nic: Nic) -> None:
        """Make the network and show the card to the guest."""
        await self._monitor.execute("netdev_add", **netdev(nic))
        await self._plug(nic, {**nic_device(nic, self._machine), "romfile": ""})

    async def pull(self, name: str, deadline: float) -> None:
        """Ask the guest to release a device and wait until it has (DEVICE_DELETED), then drop the host side.

        Args:
            name: of the disk or card.
            deadline: seconds of real time.

        Raises:
            MonitorError: the guest did not release it.
            KeyError: nothing of that name was plugged.
        """
        slot, plugged = self._plugged[name]
        device = f"{name}-disk" if isinstance(plugged, Disk) else f"{name}-card"
        async with self._monitor.expect(
            "DEVICE_DELETED", deadline, lambda data: data.get("device") == device
        ):
            await self._monitor.execute("device_del", id=device)
        if isinstance(plugged, Disk):
            await self._monitor.execute("blockdev-del", node_name=name)
        else:
            await self._monitor.execute("netdev_del", id=name)
        del self._plugged[name]
        self._free.append(slot)

    async def _plug(self, plugged: Disk | Nic, device: dict[str, object]) -> None:
        if not self._free:
            raise ValueError(
                f"cannot plug {plugged.name} into machine {self._machine}: no spare slot is free"
            )
        slot = self._free.pop()
        await self._monitor.execute("device_add", bus=slot, **device)
        self._plugged[plugged.name] = (slot, plugged)
