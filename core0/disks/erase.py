"""Erasing a disk for good: by the disk's own commands where it has them, else by discarding or writing all of it.

A method counts only if the disk is zeros afterwards wherever it is read; otherwise the next one is tried.
"""

import asyncio
import fcntl
import mmap
import os
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from core0.disks import probe
from core0.disks.apply import LOOK, TABLE, DiskError
from core0.disks.model import Facts
from core0.disks.tools import run_tool
from core0.disks.upkeep import Progress
from core0.linux import nvme
from core0.linux.worker import Worker

Method = Literal["sanitize", "format", "security-erase", "discard", "overwrite"]

_DISCARD = 0x1277  # BLKDISCARD
_PIECE, _AT_ONCE = 1 << 30, 4 << 20
_EVERY, _DAYS = 1.0, 30 * 86400.0
_PIECE_TIME = 3600.0
# ATA's erase needs a password for its duration; the erase removes it again.
_PASSWORD = "zeronode"  # noqa: S105 — no secret


def methods_of(facts: Facts) -> tuple[Method, ...]:
    """What to try, the best first."""
    if facts.bus == "nvme":
        return ("sanitize", "format", "discard", "overwrite")
    if facts.bus == "ata":
        return ("security-erase", "discard", "overwrite")
    return ("discard", "overwrite")


async def erase_disk(worker: Worker, facts: Facts, method: Method | None, progress: Progress) -> str:
    """Erase a disk by the first method that works; returns a sentence.

    Raises:
        DiskError: with what became of each method.
    """
    tried: list[str] = []
    for one in (method,) if method else methods_of(facts):
        progress(0.0, f"erasing by {one}")
        try:
            await _METHODS[one](worker, facts, progress)
            if await worker.call(probe.is_zero, f"/dev/{facts.device}", facts.size, deadline=TABLE):
                return f"erased by {one}; it reads as zeros"
            tried.append(f"{one}: it ended, but the disk does not read as zeros")
        except OSError as error:
            tried.append(f"{one}: {error.strerror or error}")
    raise DiskError(f"cannot erase {facts.device}: {'; '.join(tried)}; destroy the disk itself")


async def _sanitize(worker: Worker, facts: Facts, progress: Progress) -> None:
    device = f"/dev/{facts.device}"
    able = await worker.call(nvme.abilities, device, deadline=LOOK)
    if not able.block_sanitize and not able.crypto_sanitize:
        raise DiskError("the drive has no sanitize command")
    await worker.call(nvme.start_sanitize, device, not able.block_sanitize, deadline=TABLE)
    while True:
        await asyncio.sleep(_EVERY)
        state = await worker.call(nvme.sanitize_state, device, deadline=TABLE)
        if state.failed:
            raise DiskError("the drive says that it failed")
        if not state.running:
            return
        progress(state.progress, "the drive sanitizes itself")


async def _format(worker: Worker, facts: Facts, progress: Progress) -> None:
    device = f"/dev/{facts.device}"
    able = await worker.call(nvme.abilities, device, deadline=LOOK)
    if not able.format:
        raise DiskError("the drive has no format command")
    progress(None, "the drive formats itself")
    await worker.call(nvme.format_namespace, device, able.crypto_format, deadline=_DAYS)


async def _security_erase(_: Worker, facts: Facts, progress: Progress) -> None:
    device = f"/dev/{facts.device}"
    told = await run_tool("hdparm", "-I", device, deadline=TABLE)
    if "supported: enhanced erase" not in told and "SECURITY ERASE UNIT" not in told:
        raise DiskError("the disk has no security erase")
    if "not\tfrozen" not in told:
        raise DiskError("the disk's firmware has frozen its security settings until the next power cycle")
    user = ("--user-master", "u")
    await run_tool("hdparm", *user, "--security-set-pass", _PASSWORD, device, deadline=TABLE)
    progress(None, "the disk erases itself")
    await run_tool("hdparm", *user, "--security-erase", _PASSWORD, device, deadline=_DAYS)


async def _discard(worker: Worker, facts: Facts, progress: Progress) -> None:
    await _in_pieces(worker, discard, facts, progress, "discarding")


async def _overwrite(worker: Worker, facts: Facts, progress: Progress) -> None:
    await _in_pieces(worker, overwrite, facts, progress, "writing zeros")


async def _in_pieces(
    worker: Worker, job: Callable[[str, int, int], None], facts: Facts, progress: Progress, what: str
) -> None:
    for start in range(0, facts.size, _PIECE):
        length = min(_PIECE, facts.size - start)
        await worker.call(job, f"/dev/{facts.device}", start, length, deadline=_PIECE_TIME)
        progress((start + length) / facts.size, what)


def discard(device: str, start: int, length: int) -> None:
    """Tell the disk that a range holds nothing any more. Run by the worker."""
    descriptor = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _DISCARD, struct.pack("=QQ", start, length))
    finally:
        os.close(descriptor)


def overwrite(device: str, start: int, length: int) -> None:
    """Zeros over a range, past the page cache. Run by the worker."""
    descriptor = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, _AT_ONCE) as zeros:
            for place in range(start, start + length, _AT_ONCE):
                left = min(_AT_ONCE, start + length - place)
                with memoryview(zeros)[:left] as piece:
                    os.pwritev(descriptor, [piece], place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_METHODS: Mapping[Method, Callable[[Worker, Facts, Progress], Awaitable[None]]] = {
    "sanitize": _sanitize,
    "format": _format,
    "security-erase": _security_erase,
    "discard": _discard,
    "overwrite": _overwrite,
}
