"""What keeps a mounted pool well: its figures, scrubs, the replacement of a disk, its end."""

import asyncio
import errno
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from core0.disks import blocks
from core0.disks.apply import FORMAT, LOOK, TABLE, DiskError, World
from core0.disks.book import Book
from core0.disks.model import Figures
from core0.disks.tools import ToolError, run_tool
from core0.linux import btrfs
from core0.linux.btrfs_scrub import ScrubFigures, cancel_scrub, scrub_device, scrub_progress
from core0.wire.storage import Scrub

# Seconds between two looks at the progress of long work; a scrub or a replacement itself may take days.
_EVERY, _DAYS = 1.0, 30 * 86400.0
# Where fewer bytes are left there is no room: btrfs was seen to refuse with two MiB of its metadata free.
_ROOM = 4 << 20
_MISSING = "missing "
_DONE = re.compile(r"([\d.]+)% done, (\d+) write errs, (\d+) uncorr")

# Tell how far the work is, from 0 to 1 (None if that is not known), and what it does.
Progress = Callable[[float | None, str], None]


async def ask_figures(book: Book, name: str) -> Figures:
    """Figures of a pool that serves. Raises OSError."""
    copies = 3 if book.known.pools[name].profile == "raid1c3" else 2
    path = f"{book.world.pools}/{name}"
    return await book.world.worker.call(read_figures, path, book.data(name), copies, deadline=LOOK)


def read_figures(path: str, devices: dict[str, str], copies: int) -> Figures:
    """Figures of the file system at `path`. Run by the worker.

    Args:
        path: its mount.
        devices: the members' devices by claim.
        copies: on so many devices each piece of metadata is, if there are several.
    """
    size, free = blocks.space(path)
    read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        spaces, found = btrfs.spaces(descriptor), btrfs.devices(descriptor)
        claims = {os.path.realpath(device): claim for claim, device in devices.items()}
        members = {
            claims[os.path.realpath(one.path)]: (
                one.size,
                one.used,
                btrfs.device_errors(descriptor, one.number).total,
            )
            for one in found
            if os.path.realpath(one.path) in claims
        }
    finally:
        os.close(descriptor)
    used = sum(space.used for kind, space in spaces.items() if kind != "reserve")
    full = lacks_room(free, spaces, found, copies)
    return Figures(size, used, free, members, full, read_only)


def lacks_room(
    free: int, spaces: Mapping[str, btrfs.Space], devices: Sequence[btrfs.Device], copies: int
) -> Literal["", "data", "metadata"]:
    """What there is no room for. The kernel's estimate (statfs(2)) may show much free that metadata has no room for.

    Args:
        free: the kernel's estimate.
        spaces: what is allocated for each kind.
        devices: of the file system.
        copies: on so many of several devices each piece of metadata is.
    """
    nothing = btrfs.Space(0, 0)
    metadata, reserve = spaces.get("metadata", nothing), spaces.get("reserve", nothing)
    growing = sum(one.size - one.used >= _ROOM for one in devices)
    if growing >= min(copies, len(devices)):
        return ""
    if metadata.total and metadata.total - metadata.used - reserve.total < _ROOM:
        return "metadata"
    return "data" if free < _ROOM else ""


def number_devices(path: str) -> dict[str, tuple[int, int]]:
    """The devices of the file system at `path`: number and size in bytes, by path. Run by the worker."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = btrfs.devices(descriptor)
    finally:
        os.close(descriptor)
    return {
        one.path if _is_there(one.path) else f"{_MISSING}{one.number}": (one.number, one.size)
        for one in found
    }


def _is_there(path: str) -> bool:
    return bool(path) and os.path.exists(path)


def commit_pool(path: str) -> None:
    """Commit the running transaction of the file system at `path`. Run by the worker."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        btrfs.commit(descriptor)
    finally:
        os.close(descriptor)


async def scrub_pool(world: World, name: str, progress: Progress) -> Scrub:
    """Scrub a pool: all its disks side by side, as btrfs-scrub(8) does.

    A commit comes first: the kernel finds what to read in the last one, but a file that was synchronized since then
    is on the disks, too.

    Raises:
        DiskError: if it could not be scrubbed to its end.
    """
    path = f"{world.pools}/{name}"
    try:
        await world.worker.call(commit_pool, path, deadline=FORMAT)
    except OSError as error:
        raise DiskError(f"cannot scrub pool {name}: cannot commit it: {error.strerror or error}") from None
    devices = await world.worker.call(number_devices, path, deadline=LOOK)
    there = [pair for device, pair in devices.items() if not device.startswith(_MISSING)]
    total = sum(size for _, size in there) or 1
    jobs = (world.worker.call(scrub_device, path, number, deadline=_DAYS) for number, _ in there)
    every = asyncio.gather(*jobs)
    try:
        while not every.done():
            await asyncio.wait([every], timeout=_EVERY)
            figures = [
                await world.worker.call(scrub_progress, path, number, deadline=LOOK) for number, _ in there
            ]
            done = sum(one.last for one in figures if one)
            progress(min(1.0, done / total), f"{sum(one.errors for one in figures if one)} errors so far")
        found = every.result()
    except OSError as error:
        raise DiskError(f"cannot scrub pool {name}: {error.strerror or error}") from None
    finally:
        if not every.done():
            await asyncio.shield(world.worker.call(cancel_scrub, path, deadline=TABLE))
    return _summary(found)


def _summary(found: list[ScrubFigures]) -> Scrub:
    errors, bad = sum(one.errors for one in found), sum(one.uncorrectable for one in found)
    corrected = sum(one.corrected for one in found)
    read = sum(one.done for one in found)
    said = f"{_in_words(read)} read, {errors} errors, {corrected} corrected, {bad} beyond correction"
    return Scrub(time.time(), errors, corrected, bad, said)


def _in_words(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


async def replace_disk(
    world: World, name: str, old: str | None, new: str, members: Mapping[str, str], progress: Progress
) -> None:
    """Rebuild what a disk held, or should have held, on another one.

    Args:
        world: what to work on.
        name: the pool's.
        old: the device that goes; None if it is missing.
        new: the device that comes.
        members: the devices of the pool's members that are there, by claim.
        progress: told how far it is.

    Raises:
        DiskError: with the tool's words.
    """
    path = f"{world.pools}/{name}"
    devices = await world.worker.call(number_devices, path, deadline=LOOK)
    number = _number_of(old, members, devices)
    if number is None:
        raise DiskError(f"cannot replace a disk of pool {name}: none is missing; name the one that shall go")
    await forget_device(new)
    await run_tool("wipefs", "--all", "--quiet", new, deadline=TABLE)
    try:
        arguments = ("replace", "start", "-B", "-f", str(number), new, path)
        starting = asyncio.ensure_future(run_tool("btrfs", *arguments, deadline=_DAYS))
        await watch_replacement(path, starting, progress)
        await starting
        await run_tool("btrfs", "filesystem", "resize", f"{number}:max", path, deadline=TABLE)
    except ToolError as error:
        raise DiskError(f"cannot replace a disk of pool {name}: {error}") from None


def _number_of(
    old: str | None, members: Mapping[str, str], devices: Mapping[str, tuple[int, int]]
) -> int | None:
    """The number of the device that goes: the given one, or the first that no member is at."""
    there = {os.path.realpath(device) for device in members.values()}
    for device, (number, _) in devices.items():
        gone = os.path.realpath(device) not in there
        if (old is None and gone) or (old is not None and os.path.realpath(old) == os.path.realpath(device)):
            return number
    return None


async def forget_device(device: str) -> None:
    """Make the kernel forget a device: it may hold an older copy of what a pool has, and would be mounted with it."""
    try:
        await run_tool("btrfs", "device", "scan", "--forget", device, deadline=TABLE)
    except ToolError as error:
        if "No such file" not in str(error) and "failed" not in str(error):
            raise


async def watch_replacement(path: str, starting: "asyncio.Future[str]", progress: Progress) -> None:
    """Tell how far a replacement is until it has ended."""
    try:
        while not starting.done():
            await asyncio.wait([starting], timeout=_EVERY)
            found = _DONE.search(await run_tool("btrfs", "replace", "status", "-1", path, deadline=LOOK))
            if found:
                progress(float(found[1]) / 100, f"{found[3]} errors that could not be corrected so far")
    except asyncio.CancelledError:
        await asyncio.shield(run_tool("btrfs", "replace", "cancel", path, deadline=FORMAT))
        raise


async def wait_replacement(path: str, progress: Progress) -> bool:
    """Wait until a replacement that goes on by itself has ended; False if there was none."""
    while True:
        said = await run_tool("btrfs", "replace", "status", "-1", path, deadline=LOOK)
        found = _DONE.search(said)
        if not found:
            return "finished" in said
        progress(float(found[1]) / 100, f"{found[3]} errors that could not be corrected so far")
        await asyncio.sleep(_EVERY)


async def unmount_pool(world: World, name: str) -> None:
    """Unmount a pool that nobody uses.

    Raises:
        DiskError: if somebody does.
    """
    try:
        await world.worker.call(blocks.unmount, f"{world.pools}/{name}", deadline=FORMAT)
    except OSError as error:
        remedy = "; stop the containers that use its volumes or images" if error.errno == errno.EBUSY else ""
        raise DiskError(f"cannot unmount pool {name}: {error.strerror or error}{remedy}") from None
