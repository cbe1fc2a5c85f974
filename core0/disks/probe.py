"""A look at what a disk holds. Its functions run in the worker's processes: a disk may never answer."""

import hashlib
import mmap
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress

from core0.disks.model import DATA_TYPE, STATE_TYPE, Content, Facts, Signature
from core0.linux import blkid

# A disk without a signature counts as blank if these are zeros: its ends, and pieces spread between them.
_END, _PIECE, _PIECES = 1 << 20, 64 << 10, 14
# Random reads that tell a solid-state disk from one that has to seek, and how long they may take together.
_SAMPLES, _SAMPLE, _SPENT = 16, 4096, 0.2
_FAST = 0.002
_LARGEST_TEXT = 100


def look(facts: Facts) -> Content:
    """What a disk holds.

    Raises:
        OSError: if it cannot be read, or says nonsense.
    """
    disk = f"/dev/{facts.device}"
    found = blkid.probe(disk)
    entries = {entry.type: entry for entry in found.partitions}
    if _is_claimed(found) and len(facts.partitions) == len(entries):
        return _claimed(facts, found, entries)
    signatures = [_signature(facts.device, one) for one in found.signatures]
    for name in facts.partitions.values():
        signatures += [_signature(name, one) for one in blkid.probe(f"/dev/{name}").signatures]
    blank = not signatures and not found.table and is_zero(disk, facts.size)
    return Content(
        id=_content_id(facts, signatures, found, "" if signatures or found.table or blank else _digest(disk)),
        blank=blank,
        signatures=tuple(signatures),
        table=found.table,
        fast=_is_fast(disk, facts.size) if facts.rotational else None,
    )


def _is_claimed(found: blkid.Probed) -> bool:
    return found.table == "gpt" and {STATE_TYPE, DATA_TYPE} == {entry.type for entry in found.partitions}


def _claimed(facts: Facts, found: blkid.Probed, entries: dict[str, blkid.Partition]) -> Content:
    state, data = (facts.partitions[entries[kind].number] for kind in (STATE_TYPE, DATA_TYPE))
    kept = [_signature(data, one) for one in blkid.probe(f"/dev/{data}").signatures]
    return Content(
        id=_content_id(facts, kept, found, ""),
        table=found.table,
        claim=found.table_uuid.lower(),
        state=f"/dev/{state}",
        data=f"/dev/{data}",
        kept=kept[0] if kept else None,
        fast=_is_fast(f"/dev/{facts.device}", facts.size) if facts.rotational else None,
    )


def _signature(device: str, found: blkid.Found) -> Signature:
    return Signature(device, _short(found.type), _short(found.label), _short(found.uuid))


def _short(text: str) -> str:
    """A stranger wrote it: printable and short."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)[
        :_LARGEST_TEXT
    ]


def _content_id(facts: Facts, signatures: list[Signature], found: blkid.Probed, digest: str) -> str:
    """The same as long as the disk holds the same things, whatever name the kernel gives it."""
    parts = [facts.serial, facts.wwn, str(facts.size), found.table, found.table_uuid, digest]
    parts += [f"{one.uuid}/{one.type}/{one.name}/{one.start}/{one.size}" for one in found.partitions]
    parts += [f"{one.type}/{one.label}/{one.uuid}" for one in signatures]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def is_zero(disk: str, size: int) -> bool:
    """Whether a disk of so many bytes is zeros wherever it is looked at."""
    with open(disk, "rb", buffering=0) as file:
        return all(_zeros(os.pread(file.fileno(), length, start)) for start, length in _pieces(size))


def _zeros(data: bytes) -> bool:
    return not data.strip(b"\0")


def _digest(disk: str) -> str:
    """Of the first bytes: all that names what has no signature."""
    with open(disk, "rb", buffering=0) as file:
        return hashlib.sha256(file.read(_END)).hexdigest()


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """Start and length of what is looked at, in bytes."""
    if size <= 2 * _END + _PIECES * _PIECE:
        yield 0, size
        return
    yield 0, _END
    for number in range(1, _PIECES + 1):
        yield size * number // (_PIECES + 1) // _PIECE * _PIECE, _PIECE
    yield size - _END, _END


def _is_fast(disk: str, size: int) -> bool | None:
    """Whether random reads take the time of a solid-state disk; the page cache is left out of it."""
    with suppress(OSError):  # no direct access, or a bad place: then nothing is known
        descriptor = os.open(disk, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            return _median_read(descriptor, size) < _FAST
        finally:
            os.close(descriptor)
    return None


def _median_read(descriptor: int, size: int) -> float:
    """Seconds that a random read takes."""
    times: list[float] = []
    end = time.monotonic() + _SPENT
    with mmap.mmap(-1, _SAMPLE) as page:
        while len(times) < _SAMPLES and (not times or time.monotonic() < end):
            place = random.randrange(max(1, size // _SAMPLE)) * _SAMPLE  # noqa: S311 — hides nothing
            before = time.monotonic()
            os.preadv(descriptor, [page], place)
            times.append(time.monotonic() - before)
    return sorted(times)[len(times) // 2]
