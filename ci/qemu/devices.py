"""Devices that come and go while the machine runs: PCIe hot-plug into spare slots and the disks' own ports."""

from ci.qemu import disks, faults
from ci.qemu.disks import Disk
from ci.qemu.monitor import Monitor
from ci.qemu.spec import MachineSpec, Nic, card_name, netdev, nic_device, slot_name


class Slots:
    """Which port holds what, and the QMP sequences that fill and empty them."""

    def __init__(self, spec: MachineSpec, monitor: Monitor) -> None:
        self._machine = spec.name
        self._monitor = monitor
        self._free = [slot_name(index) for index in range(spec.spare_slots)]
        buses = disks.buses(spec.disks)
        self._plugged: dict[str, tuple[str, Disk | Nic]] = {
            disk.name: (buses[disk.name], disk) for disk in spec.disks
        }

    def disk(self, name: str) -> Disk:
        """The disk of that name that is in the machine.

        Raises:
            ValueError: there is none.
        """
        _, found = self._plugged.get(name, ("", None))
        if isinstance(found, Disk):
            return found
        raise ValueError(
            f"cannot find disk {name} in machine {self._machine}: no disk of that name is plugged"
        )

    async def plug_disk(self, disk: Disk) -> None:
        """Open the file and show the disk to the guest.

        Raises:
            ValueError: QEMU cannot plug it, or no slot is free.
        """
        if not disks.pluggable(disk):
            raise ValueError(
                f"cannot plug {disk.name} into machine {self._machine}: QEMU has no hot-plug for AHCI; "
                "put the disk into the specification, or plug it as virtio or nvme"
            )
        device = disks.device(disk)
        await self._monitor.execute("blockdev-add", disks.blockdev(disk))
        await self._plug(disk, device)

    async def plug_nic(self, nic: Nic) -> None:
        """Make the network and show the card to the guest."""
        await self._monitor.execute("netdev_add", netdev(nic))
        await self._plug(nic, {**nic_device(nic, self._machine), "romfile": ""})

    async def pull(self, name: str, deadline: float) -> None:
        """Ask the guest to release a device and wait until it has (DEVICE_DELETED), then drop the host side.

        Args:
            name: of the disk or card.
            deadline: seconds of real time.

        Raises:
            MonitorError: the guest did not release it.
            ValueError: it stays for the machine's whole life.
            KeyError: nothing of that name is plugged.
        """
        slot, plugged = self._plugged[name]
        device = self._releasable(plugged)
        async with self._monitor.expect(
            "DEVICE_DELETED", deadline, lambda data: data.get("device") == device
        ):
            await self._monitor.execute("device_del", id=device)
        if isinstance(plugged, Disk):
            await faults.clear(self._monitor, plugged)
            await self._monitor.execute("blockdev-del", node_name=name)
        else:
            await self._monitor.execute("netdev_del", id=name)
        del self._plugged[name]
        self._free.append(slot)

    def _releasable(self, plugged: Disk | Nic) -> str:
        """The identifier of the device that a guest releases."""
        if not isinstance(plugged, Disk):
            return card_name(plugged.name)
        if not disks.pluggable(plugged):
            raise ValueError(
                f"cannot pull {plugged.name} out of machine {self._machine}: QEMU has no hot-plug for AHCI; "
                "fail or hang the disk instead, or use virtio or nvme"
            )
        return disks.device_name(plugged)

    async def _plug(self, plugged: Disk | Nic, device: dict[str, object]) -> None:
        if not self._free:
            raise ValueError(
                f"cannot plug {plugged.name} into machine {self._machine}: no spare slot is free"
            )
        slot = self._free.pop()
        await self._monitor.execute("device_add", {**device, "bus": slot})
        self._plugged[plugged.name] = (slot, plugged)
