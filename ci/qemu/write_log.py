"""A disk as it would be after a power cut at any moment, from the log of its writes.

QEMU's `blklogwrites` writes down what a guest writes, discards and flushes, in the format of the kernel's
dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock of one sector, then for each
request a sector with its header and the data behind it. A disk with a volatile cache may lose any of the writes since
its last flush, and keep any other: which of them is drawn at random.
"""

import mmap
import os
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_MAGIC = 0x6A736677736872
_SUPERBLOCK = struct.Struct("<QQQI")
_HEADER = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8
# What a disk writes as a whole or not at all: its physical sector. With less, btrfs would lose superblocks.
_WHOLE = 4096


class WriteLogError(ValueError):
    """What is no log of writes; the message says why."""


class Request(NamedTuple):
    """What a guest asked of its disk.

    Attributes:
        place: the first byte on the disk.
        length: bytes, 0 of a mere flush.
        data: where in the log the bytes are; None if they are discarded, zeros from then on.
        flush: whether everything before it is durable when it is done.
        durable: whether it is durable itself, whatever comes (FUA).
        end: where in the log it ends. A log of this size at least has the request.
    """

    place: int
    length: int
    data: int | None
    flush: bool
    durable: bool
    end: int


def requests(log: bytes | mmap.mmap) -> Iterator[Request]:
    """The requests of a log, in the order in which the disk got them; one that is not there whole is left out.

    Raises:
        WriteLogError: it is no log.
    """
    if len(log) < _SUPERBLOCK.size:
        raise WriteLogError("cannot read the log of writes: it has no superblock; was the disk ever used?")
    magic, version, _, sector = _SUPERBLOCK.unpack_from(log)
    if (magic, version) != (_MAGIC, 1) or sector not in (512, 4096):
        raise WriteLogError("cannot read the log of writes: its superblock is of another kind")
    at = sector
    while at + _HEADER.size <= len(log):
        start, count, flags, length = _HEADER.unpack_from(log, at)
        data = at + sector
        # QEMU fills in the length of no data; marks are the kernel's only
        at = data + (-(-length // sector) if flags & _MARK else 0 if flags & _DISCARD else count) * sector
        if at > len(log):
            return
        if not flags & _MARK:
            held = None if flags & _DISCARD else data
            bits = bool(flags & _FLUSH), bool(flags & _FUA)
            yield Request(start * sector, count * sector, held, *bits, at)


def split_at_flush(logged: Sequence[Request], cut: int) -> int:
    """How many of the first `cut` requests are durable: those before the last flush among them."""
    return next((index for index in range(cut - 1, -1, -1) if logged[index].flush), 0)


def survivors(unflushed: Iterable[Request], chance: random.Random) -> list[Request]:
    """Which of the requests behind the last flush reached the medium: each or not, some of them only half."""
    kept = []
    for request in unflushed:
        fate = chance.random()
        if request.durable or fate < 0.5:
            kept.append(request)
        elif fate < 0.6 and request.data is not None and request.length > _WHOLE:
            kept.append(request._replace(length=chance.randrange(1, -(-request.length // _WHOLE)) * _WHOLE))
    chance.shuffle(kept)
    return sorted(kept, key=lambda request: not request.durable)


def apply(log: bytes | mmap.mmap, image: int, wanted: Iterable[Request]) -> None:
    """Carry out requests on a disk image, given by its descriptor."""
    for request in wanted:
        if request.data is not None:
            os.pwrite(image, log[request.data : request.data + request.length], request.place)
            continue
        for place, end in list(_extents(image, request.place, request.place + request.length)):
            os.pwrite(image, bytes(end - place), place)


def _extents(image: int, place: int, end: int) -> Iterator[tuple[int, int]]:
    """Where a file holds data between two places: start and end of each piece (lseek(2), SEEK_DATA)."""
    while place < end:
        try:
            start = os.lseek(image, place, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            return
        place = min(os.lseek(image, start, os.SEEK_HOLE), end)
        if start < place:
            yield start, place


class Replay:
    """A disk that is brought from one moment of a log to the next, and looked at as of a power cut there."""

    def __init__(self, log: Path, size: int, folder: Path, start: Path | None = None) -> None:
        """A disk as it was when the log began: blank and of so many bytes, or as `start` has it.

        Args:
            log: the log of its writes.
            size: its size in bytes.
            folder: for its images.
            start: an image of it.

        Raises:
            WriteLogError: it is no log.
        """
        with log.open("rb") as file:
            self._log = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.requests = tuple(requests(self._log))
        self._durable = folder / "durable.img"
        self._cut = folder / "cut.img"
        self._done = 0
        if start:
            copy_sparse(start, self._durable)
        else:
            with self._durable.open("wb") as file:
                file.truncate(size)

    def cut(self, moment: int, chance: random.Random) -> Path:
        """The disk after a cut behind so many requests; moments must not go back. The image may be changed."""
        durable = split_at_flush(self.requests, moment)
        with self._durable.open("r+b") as file:
            apply(self._log, file.fileno(), self.requests[self._done : durable])
        self._done = max(self._done, durable)
        copy_sparse(self._durable, self._cut)
        with self._cut.open("r+b") as file:
            apply(self._log, file.fileno(), survivors(self.requests[self._done : moment], chance))
        return self._cut

    def end(self) -> None:
        """Let go of the log."""
        self._log.close()


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file's data and leave its holes."""
    size = source.stat().st_size
    with source.open("rb") as old, target.open("wb") as new:
        new.truncate(size)
        for start, end in _extents(old.fileno(), 0, size):
            place = start
            while place < end:
                place += os.copy_file_range(old.fileno(), new.fileno(), end - place, place, place)
