"""Disks as frozen values, and what they are in QEMU's words: host side, guest side, controllers. Pure.

Follows qapi/block-core.json, and the properties of virtio-blk-pci, ide-hd and nvme in QEMU 7.2 to 10.0.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

Words = dict[str, object]
Bus = Literal["virtio", "ahci", "nvme"]

_DRIVERS = MappingProxyType({"virtio": "virtio-blk-pci", "ahci": "ide-hd", "nvme": "nvme"})
_SECTOR = 512
_LONGEST_SERIAL = 20
# The machine's own AHCI controller is called `ide`; each has six ports for one disk.
_AHCI_PORTS = 6
# Root ports for disks, eight to a slot: beyond what QEMU gives to devices without an address, before the chipset.
_FIRST_SLOT, _FUNCTIONS, _FIRST_CHASSIS = 0x10, 8, 64


class Fault(msgspec.Struct, frozen=True):
    """What a disk answers with an error instead of doing it.

    Attributes:
        on: the kind of request. QEMU flushes a disk to mend it, so one that fails flushes stays so, but `once`.
        offset: the byte of the disk that such a request touches; None means any request.
        once: True for the first such request only.
        errno: the error, EIO by default.
    """

    on: Literal["read", "write", "write-zeroes", "discard", "flush"]
    offset: int | None = None
    once: bool = False
    errno: int = 5


class Disk(msgspec.Struct, frozen=True):
    """A disk backed by a file.

    Attributes:
        name: names it in the machine, where it is unique.
        path: the file.
        format: the file's format.
        read_only: True for a disk that refuses writes; not by AHCI, and by NVMe the guest only learns it by writing.
        bus: how the guest sees it. Disks on AHCI stay for the machine's whole life, the others come and go.
        serial: its serial number, at most 20 bytes; its name if empty. Two disks may have the same one.
        logical: bytes of its logical blocks; 512 by AHCI.
        physical: bytes of its physical blocks; those of its logical ones if 0.
        rotation: turns per minute, 1 of an SSD; by AHCI only.
        wwn: its world wide name (NAA), if not 0; by AHCI only, because Linux believes no name of QEMU's NVMe disks.
        faults: with which errors it starts.
        hangs: True for one that answers nothing from the start on, until it is mended.
        log: an empty file that takes down what is written to it; see `ci.qemu.write_log`.
    """

    name: str
    path: Path
    format: Literal["raw", "qcow2"] = "raw"
    read_only: bool = False
    bus: Bus = "virtio"
    serial: str = ""
    logical: int = 512
    physical: int = 0
    rotation: int = 0
    wwn: int = 0
    faults: tuple[Fault, ...] = ()
    hangs: bool = False
    log: Path | None = None


def check(disk: Disk) -> None:
    """Refuse what QEMU has no words for, before it refuses the whole machine.

    Raises:
        ValueError: with the property that this bus does not have.
    """
    ahci = disk.bus == "ahci"
    for wrong, why in (
        (
            len(disk.serial or disk.name) > _LONGEST_SERIAL,
            f"its serial number has more than {_LONGEST_SERIAL} bytes",
        ),
        (ahci and disk.read_only, "QEMU has no read-only disks on AHCI; use virtio or nvme"),
        (
            ahci and disk.logical != _SECTOR,
            "QEMU's AHCI disks have logical blocks of 512 bytes; use virtio or nvme",
        ),
        (disk.rotation and not ahci, "QEMU knows a rotation rate of AHCI disks only"),
        (disk.wwn and not ahci, "a guest sees a world wide name of AHCI disks only"),
    ):
        if wrong:
            raise ValueError(f"cannot make disk {disk.name}: {why}")


def image_node(disk: Disk) -> str:
    """The name of the block node below a disk's format and faults: it opens the file, or logs and opens it."""
    return f"{disk.name}-log" if disk.log else f"{disk.name}-file"


def fault_node(disk: Disk) -> str:
    """The name of the block node that fails a disk's requests, while there is one."""
    return f"{disk.name}-fault"


def device_name(disk: Disk) -> str:
    """The identifier of the device that the guest sees."""
    return f"{disk.name}-disk"


def backend(disk: Disk) -> str:
    """The object in QEMU through which the guest's requests go: virtio's is a device of its own inside its card."""
    path = f"/machine/peripheral/{device_name(disk)}"
    return f"{path}/virtio-backend" if disk.bus == "virtio" else path


def port_name(disk: Disk) -> str:
    """The identifier of the PCIe port that a disk of the specification is plugged into."""
    return f"{disk.name}-port"


def blockdev(disk: Disk) -> Words:
    """The host side of a disk, in the words of QMP's `blockdev-add`: format on top of faults on top of the file."""
    image = _image(disk)
    return over(disk, {**faults(disk, disk.faults), "image": image} if disk.faults else image)


def _image(disk: Disk) -> Words:
    options: Words = {"read-only": disk.read_only, "discard": "unmap"}
    file: Words = {"node-name": f"{disk.name}-file", "driver": "file", "filename": str(disk.path), **options}
    if not disk.log:
        return file
    log: Words = {"driver": "file", "filename": str(disk.log)}
    return {
        "node-name": image_node(disk),
        "driver": "blklogwrites",
        **options,
        "file": file,
        "log": log,
        "log-sector-size": _SECTOR,
    }


def over(disk: Disk, file: Words | str) -> Words:
    """A disk's format on top of a node, given in words or by name: the words of `blockdev-reopen` too."""
    return {
        "node-name": disk.name,
        "driver": disk.format,
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": file,
    }


def faults(disk: Disk, wanted: Sequence[Fault]) -> Words:
    """The node that fails requests (blkdebug), without its image."""
    return {
        "node-name": fault_node(disk),
        "driver": "blkdebug",
        "read-only": disk.read_only,
        "discard": "unmap",
        "inject-error": [_rule(fault) for fault in wanted],
    }


def _rule(fault: Fault) -> Words:
    # event none: in force from the node's creation on, whatever the driver above does
    rule: Words = {"event": "none", "iotype": fault.on, "errno": fault.errno, "once": fault.once}
    return rule if fault.offset is None else {**rule, "sector": fault.offset // _SECTOR}


def device(disk: Disk) -> Words:
    """The guest side of a disk, in the words of QMP's `device_add`, without the bus. Raises ValueError as `check`."""
    check(disk)
    return {
        "driver": _DRIVERS[disk.bus],
        "id": device_name(disk),
        "drive": disk.name,
        "serial": disk.serial or disk.name,
        "logical_block_size": disk.logical,
        "physical_block_size": disk.physical or disk.logical,
        **_given(rotation_rate=disk.rotation, wwn=disk.wwn),
    }


def _given(**values: int) -> Words:
    return {name: value for name, value in values.items() if value}


def pluggable(disk: Disk) -> bool:
    """Whether a disk can come and go while the machine runs."""
    return disk.bus != "ahci"


def buses(disks: Iterable[Disk]) -> Mapping[str, str]:
    """Where each disk of a machine is attached, by its name."""
    found: dict[str, str] = {}
    ahci = 0
    for disk in disks:
        if pluggable(disk):
            found[disk.name] = port_name(disk)
        else:
            found[disk.name] = f"{_controller(ahci)}.{ahci % _AHCI_PORTS}"
            ahci += 1
    return found


def _controller(index: int) -> str:
    """The controller of the nth AHCI disk."""
    number = index // _AHCI_PORTS
    return f"ahci{number}" if number else "ide"


def controllers(disks: Sequence[Disk]) -> Iterator[Words]:
    """What the machine needs before its disks: a PCIe port for each that can be pulled, AHCI beyond six ports."""
    ports = [disk for disk in disks if pluggable(disk)]
    for index, disk in enumerate(ports):
        slot, function = divmod(index, _FUNCTIONS)
        yield {
            "driver": "pcie-root-port",
            "id": port_name(disk),
            "chassis": _FIRST_CHASSIS + index,
            "addr": f"{_FIRST_SLOT + slot:#x}.{function}",
            "multifunction": True,
            "io-reserve": 0,  # 24 windows of 4 KiB are more than a PC has, and no disk here uses I/O ports
        }
    for first in range(_AHCI_PORTS, len(disks) - len(ports), _AHCI_PORTS):
        yield {"driver": "ich9-ahci", "id": _controller(first)}
