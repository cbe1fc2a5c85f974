"""Disks as sysfs shows them: no access to a medium, so no disk can make it wait.

Sources: Documentation/ABI/stable/sysfs-block, testing/sysfs-block, sysfs-class-nvme; drivers/scsi/scsi_sysfs.c.
"""

import os
import re
from collections.abc import Iterator

from core0.disks.model import Facts
from core0.linux import files
from core0.wire.storage import Bus

# Block devices that are no disks: made of memory, of files or of other devices; floppies and optical drives.
_NO_DISK = re.compile(r"(ram|loop|zram|dm-|md|nbd|sr|fd|zd|drbd|mtdblock|pmem\d+s)")
_UNIT = 512  # of sysfs's sizes, whatever the sectors are


def observe(root: str = "/sys") -> tuple[Facts, ...]:
    """Every disk, in the order of the kernel's names."""
    names = sorted(os.listdir(f"{root}/block"), key=lambda name: (len(name), name))
    return tuple(facts for name in names if (facts := _facts_if_there(root, name)))


def _facts_if_there(root: str, name: str) -> Facts | None:
    """What a disk is; None for what is none, or is pulled at this moment."""
    try:
        return _facts(root, name)
    except FileNotFoundError:
        return None


def _facts(root: str, name: str) -> Facts | None:
    block = f"{root}/block/{name}"
    if _NO_DISK.match(name) or _text(f"{block}/hidden") == "1" or not os.path.exists(f"{block}/device"):
        return None
    place = os.path.realpath(block)
    return Facts(
        device=name,
        place=_place(place),
        serial=_serial(block),
        wwn=_wwn(block),
        model=_first(f"{block}/device/model", f"{block}/device/name"),
        firmware=_first(f"{block}/device/firmware_rev", f"{block}/device/rev", f"{block}/device/fwrev"),
        bus=_bus(name, place),
        rotational=_text(f"{block}/queue/rotational") == "1",
        size=_number(f"{block}/size") * _UNIT,
        logical_sector=_number(f"{block}/queue/logical_block_size") or _UNIT,
        physical_sector=_number(f"{block}/queue/physical_block_size") or _UNIT,
        read_only=_text(f"{block}/ro") == "1",
        removable=_text(f"{block}/removable") == "1",
        partitions=dict(_partitions(block, name)),
    )


def _serial(block: str) -> str:
    """The serial number: an attribute of its own, or SCSI's unit serial number page (VPD 0x80)."""
    plain = _first(f"{block}/device/serial", f"{block}/serial")
    return plain or _page(f"{block}/device/vpd_pg80")


def _page(path: str) -> str:
    """The text of a vital product data page: four bytes of header, then so many bytes (SPC-4, 7.8)."""
    try:
        data = files.read(path)
    except OSError:
        return ""
    return _clean(data[4 : 4 + int.from_bytes(data[2:4], "big")].decode("ascii", "replace"))


def _wwn(block: str) -> str:
    """NVMe and SCSI disks have one, ATA disks by SCSI's translation of it; `t10.` is only model and serial again."""
    found = _first(f"{block}/wwid", f"{block}/device/wwid")
    return "" if found.startswith("t10.") or (found.startswith("nvme.") and "-" in found) else found


def _bus(name: str, place: str) -> Bus:
    by_name: tuple[tuple[str, Bus], ...] = (("nvme", "nvme"), ("vd", "virtio"), ("mmcblk", "mmc"))
    for start, bus in by_name:
        if name.startswith(start):
            return bus
    by_place: tuple[tuple[str, Bus], ...] = (("/usb", "usb"), ("/ata", "ata"), ("/host", "scsi"))
    return next((bus for part, bus in by_place if part in place), "other")


def _place(place: str) -> str:
    """Where it is plugged: the last PCI address on its way, and what distinguishes it there.

    The numbers that hosts, ports and controllers have in the whole machine change with the order of their drivers.
    """
    steps = place.split("/")
    parts = [
        f"pci-{step}" for step in steps if re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", step)
    ][-1:]
    for number, step in enumerate(steps):
        if re.fullmatch(r"ata\d+", step):
            parts.append(f"port{_text('/'.join([*steps[: number + 1], 'ata_port', step, 'port_no']))}")
        elif re.fullmatch(r"\d+:\d+:\d+:\d+", step):
            parts.append(step.partition(":")[2])
        elif found := re.fullmatch(r"nvme\d+(n\d+)", step):
            parts.append(found[1])
    return "-".join(parts) or steps[-1]


def _partitions(block: str, name: str) -> Iterator[tuple[int, str]]:
    for entry in os.listdir(block):
        if entry.startswith(name) and (number := _number(f"{block}/{entry}/partition")):
            yield number, entry


def _first(*paths: str) -> str:
    return next((text for path in paths if (text := _text(path))), "")


def _number(path: str) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0


def _text(path: str) -> str:
    """An attribute without what disks pad their words with; "" if there is none, or the disk has just gone."""
    try:
        return _clean(files.read_text(path))
    except OSError:
        return ""


def _clean(text: str) -> str:
    """Printable characters only: a disk may say anything, and it is shown on consoles."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
