"""Disks as they are: what sysfs says and what was found on them, each under a stable name. Reads, never changes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from core0.disks.model import Content, Facts, SeenDisk
from core0.wire.storage import Health, Media

_LONGEST = 119


class Look(msgspec.Struct, frozen=True):
    """What became of looking at a disk: its content, or the trouble with it."""

    content: Content | None = None
    trouble: str = ""
    hung: bool = False


def combine(
    facts: Sequence[Facts],
    looks: Mapping[str, Look],
    media: Mapping[str, Media],
    health: Mapping[str, Health | None],
    waiting: Mapping[str, int],
) -> tuple[SeenDisk, ...]:
    """The disks by id.

    Args:
        facts: from sysfs.
        looks: by the kernel's name; a disk without one has not been looked at yet.
        media: the config's word on what disks are, by serial number or id.
        health: what they said of themselves, by the kernel's name.
        waiting: requests that wait for disks that do not answer, by the kernel's name.
    """
    seen = (
        _seen(
            name,
            one,
            looks.get(one.device, Look()),
            media,
            health.get(one.device),
            waiting.get(one.device, 0),
        )
        for name, one in identify(facts).items()
    )
    return tuple(sorted(seen, key=lambda disk: disk.id))


def _seen(
    name: str, facts: Facts, look: Look, media: Mapping[str, Media], health: Health | None, waiting: int
) -> SeenDisk:
    given = media.get(name) or media.get(facts.serial)
    fast = look.content.fast if look.content else None
    return SeenDisk(
        name,
        facts,
        given or media_of(facts, fast),
        look.content,
        look.trouble,
        look.hung,
        health,
        waiting,
    )


def identify(facts: Sequence[Facts]) -> dict[str, Facts]:
    """A stable name for each disk, that sorts and types well: WWN, else bus and serial number, else its place.

    Disks that say the same get their place added, all of them: which of them came first must not matter.
    """
    names = [_name(one) for one in facts]
    often = Counter(names)
    return {
        _typable(f"{name}@{one.place}" if often[name] > 1 else name): one
        for name, one in zip(names, facts, strict=True)
    }


def _name(facts: Facts) -> str:
    if facts.wwn:
        return _typable(facts.wwn)
    return _typable(f"{facts.bus}-{facts.serial}" if facts.serial else facts.place)


def _typable(name: str) -> str:
    """Only what `core0.wire.storage.DiskName` takes."""
    text = re.sub(r"[^A-Za-z0-9._:@+-]+", "_", name)[:_LONGEST]
    return text if text[:1].isalnum() else f"disk{text}"[:_LONGEST]


def media_of(facts: Facts, fast: bool | None) -> Media:
    """What a disk is. Virtual disks and USB bridges claim to rotate, so there a measurement counts more."""
    if facts.bus == "nvme":
        return "nvme"
    if not facts.rotational:
        return "ssd"
    return "ssd" if fast and facts.bus in ("virtio", "usb", "scsi", "other") else "hdd"


def find(name: str, disks: Sequence[SeenDisk]) -> tuple[SeenDisk, ...]:
    """The disks that are called so: by id one at most, by serial number perhaps several."""
    by_id = tuple(disk for disk in disks if disk.id == name)
    return by_id or tuple(disk for disk in disks if disk.facts.serial == name)
