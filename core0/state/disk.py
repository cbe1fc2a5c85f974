"""Reading and writing a state area: in a process of its own each time, because any disk may hang.

Areas are opened with O_DIRECT: nothing that is read comes from a page cache that outlived its device's absence, and
a write that failed is not there for the next reader, as it would be in the cache.
"""

import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from core0.linux.worker import Worker
from core0.state import area
from core0.state.model import Copy, DiskId, Held, Reading, State

# Seconds. A hard disk that was spun down needs some ten to answer. Changes wait for a write, so a disk that is slower
# is left out; it is let in again when it answers.
READ, WRITE = 20.0, 10.0
# Threads that read many areas, and the seconds without an answer after which there is one more.
_THREADS, _STALL = 3, 0.05


class Device(Protocol):
    """Where an area is: offsets and lengths are multiples of 4,096."""

    def read(self, offset: int, length: int) -> bytes:
        """Read so many bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Write; what was written may be lost until `flush` has returned."""

    def flush(self) -> None:
        """Have all that was written on the medium."""


class Slot(NamedTuple):
    """A valid slot."""

    sequence: int
    mark: bytes
    payload: bytes


class Contents(NamedTuple):
    """An area's valid slots, and what is wrong with a whole one that this version cannot read."""

    slots: tuple[Slot, ...] = ()
    strange: str = ""


def read_slots(device: Device) -> Contents:
    """The slots that are valid."""
    slots, strange = [], ""
    for index, header in _headers(device):
        if header.version != area.VERSION:
            strange = f"format {header.version}, this image knows format {area.VERSION}"
            continue
        payload = device.read(area.PAYLOADS[index], header.length + -header.length % area.BLOCK)
        if area.is_whole(header, payload[: header.length]):
            slots.append(Slot(header.sequence, header.mark, payload[: header.length]))
    return Contents(tuple(slots), strange)


def write_slot(device: Device, kept: bytes, encoded: area.Encoded, alone: bool) -> None:
    """Write a slot beside the one to keep.

    Args:
        device: the area.
        kept: the mark of the slot that is valid until the new one is; empty if none is.
        encoded: the new slot.
        alone: whether the kept one becomes invalid when the new one is valid.

    Raises:
        OSError: ESTALE if the area does not hold what the caller read from it: it may be another disk by now.
    """
    keeping = _find(device, kept)
    device.write(area.PAYLOADS[1 - keeping], encoded.payload)
    device.write(area.HEADERS[1 - keeping], encoded.header)
    device.flush()
    if alone:
        device.write(area.HEADERS[keeping], bytes(area.BLOCK))
        device.flush()


def _headers(device: Device) -> list[tuple[int, area.Header]]:
    found = ((index, area.parse_header(device.read(at, area.BLOCK))) for index, at in enumerate(area.HEADERS))
    return [(index, header) for index, header in found if header]


def _find(device: Device, kept: bytes) -> int:
    """The slot with that mark; without a mark any, if none is valid."""
    found = [index for index, header in _headers(device) if header.mark == kept]
    if found:
        return found[0]
    if not kept and not read_slots(device).slots:
        return 1
    raise OSError(
        errno.ESTALE, "it holds something else than what was read from it; is it another disk by now?"
    )


class AreaDevice:
    """An area on a block device or in a file. A second one of the same area waits until the first is closed.

    The lock (flock(2)) outlives the node daemon in a process whose write hangs: as long as such a write may still
    arrive, nobody reads what it might change, or writes what it might overwrite.
    """

    def __init__(self, path: str, writing: bool) -> None:
        mode = os.O_RDWR if writing else os.O_RDONLY
        self._descriptor = os.open(path, mode | os.O_DIRECT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX if writing else fcntl.LOCK_SH)
            size = os.lseek(self._descriptor, 0, os.SEEK_END)
            if size < area.AREA:
                raise OSError(errno.ENOSPC, f"it has {size} bytes, a state area has {area.AREA}")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """Read so many bytes."""
        if length == 0:
            return b""
        with mmap.mmap(-1, length) as buffer:  # pages: aligned as O_DIRECT wants it
            done = 0
            while done < length:
                with memoryview(buffer) as whole, whole[done:] as rest:
                    count = os.preadv(self._descriptor, [rest], offset + done)
                if count == 0:
                    raise OSError(errno.EIO, f"it ends at byte {offset + done}")
                done += count
            return buffer[:]

    def write(self, offset: int, data: bytes) -> None:
        """Write all of it."""
        if not data:
            return
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            done = 0
            while done < len(data):
                with memoryview(buffer) as whole, whole[done:] as rest:
                    done += os.pwritev(self._descriptor, [rest], offset + done)

    def flush(self) -> None:
        """Have it on the medium: the disk's own cache is flushed, too."""
        os.fdatasync(self._descriptor)


def read_area(path: str) -> Contents:
    """A job: the valid slots of an area."""
    device = AreaDevice(path, writing=False)
    try:
        return read_slots(device)
    finally:
        device.close()


def write_area(path: str, kept: bytes, encoded: area.Encoded, alone: bool) -> None:
    """A job: `write_slot` on a path."""
    device = AreaDevice(path, writing=True)
    try:
        write_slot(device, kept, encoded, alone)
    finally:
        device.close()


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    """A copy whose state is not decoded yet: most disks hold the same one."""

    disk: DiskId
    state: msgspec.Raw


def interpret(path: str, contents: Contents, states: dict[bytes, State] | None = None) -> Reading:
    """The copies in an area's slots. What is on a disk may be a stranger's: each is checked.

    Args:
        path: the area.
        contents: what is in it.
        states: those that were decoded already, by their bytes; equal ones become one object.
    """
    held, strange = [], contents.strange
    for slot in contents.slots:
        try:
            copy = _decode(slot.payload, {} if states is None else states)
        except (msgspec.DecodeError, RecursionError) as error:
            strange = f"this image cannot understand it: {error}"
            continue
        strange = _contradiction(slot, copy) or strange
        if not _contradiction(slot, copy):
            held.append(Held(copy, slot.mark))
    return Reading(path, tuple(held), strange)


def _decode(data: bytes, states: dict[bytes, State]) -> Copy:
    payload = msgspec.json.decode(data, type=_Payload)
    inner = bytes(payload.state)
    if inner not in states:
        states[inner] = msgspec.json.decode(inner, type=State)
    return Copy(payload.disk, states[inner])


def _contradiction(slot: Slot, copy: Copy) -> str:
    """What no node writes: empty if all fits together."""
    if copy.state.sequence != slot.sequence:
        return f"its header says sequence {slot.sequence}, it says {copy.state.sequence}"
    firsts = [term.first for term in copy.state.history]
    names = {term.name for term in copy.state.history}
    if [*firsts, slot.sequence + 1] != sorted({*firsts, slot.sequence + 1}) or len(names) != len(firsts):
        return f"its history does not lead to sequence {slot.sequence}"
    return ""


class _Reading(msgspec.Struct):
    """Areas being read side by side: those that nobody has begun yet, what was found, how many have ended."""

    left: list[str]
    done: threading.Condition = msgspec.field(default_factory=threading.Condition)
    found: dict[str, Contents] = {}
    defects: list[BaseException] = []
    ended: int = 0

    def run(self) -> None:
        """Read one after the other; a thread whose disk hangs stays with it."""
        while self.left:
            try:
                path = self.left.pop()
                self.found[path] = read_area(path)
            except IndexError:
                return  # another thread was faster
            except OSError:
                pass  # it is read again, by itself, where the cause is told
            except BaseException as error:  # noqa: BLE001 — raised where the threads are waited for
                self.defects.append(error)
            with self.done:
                self.ended += 1
                self.done.notify()


def read_areas(paths: tuple[str, ...], enough: int, patience: float) -> dict[str, Contents]:
    """A job: the valid slots of the areas that answer first.

    A boot waits for it, and a process for each of many disks would take longer than their answers. So would a thread
    for each: there are a few, and one more whenever none of their disks answers.

    Args:
        paths: the areas.
        enough: so many answers are enough.
        patience: seconds to wait for them.
    """
    reading, end = _Reading(list(reversed(paths))), time.monotonic() + patience
    with reading.done:
        for _ in paths[:_THREADS]:
            threading.Thread(target=reading.run, daemon=True).start()
        while (
            (ended := reading.ended) < len(paths) and len(reading.found) < enough and time.monotonic() < end
        ):
            stalled = not reading.done.wait_for(lambda: reading.ended > ended, min(_STALL, patience))
            if stalled and reading.left:
                threading.Thread(target=reading.run, daemon=True).start()
        if reading.defects:
            raise reading.defects[0]
        return dict(reading.found)


class Areas:
    """The areas of this machine's disks, reached through the worker."""

    def __init__(self, worker: Worker, read: float = READ, write: float = WRITE) -> None:
        self._worker = worker
        self._read = read
        self._write = write

    async def read(self, path: str) -> Reading:
        """What an area holds; an area that cannot be read says so."""
        try:
            return interpret(path, await self._worker.call(read_area, path, deadline=self._read))
        except OSError as error:
            return Reading(path, error=str(error))

    async def read_first(self, paths: Sequence[str], enough: int, patience: float) -> list[Reading]:
        """What those areas hold that answer first: as many as are enough, or within so many seconds."""
        try:
            found = await self._worker.call(
                read_areas, tuple(paths), enough, patience, deadline=patience + self._read
            )
        except OSError:
            return []
        states: dict[bytes, State] = {}
        return [interpret(path, contents, states) for path, contents in found.items()]

    async def write(self, path: str, kept: bytes, encoded: area.Encoded, alone: bool) -> None:
        """Write a slot beside the one to keep. Raises OSError, HungError among them."""
        await self._worker.call(write_area, path, kept, encoded, alone, deadline=self._write)
