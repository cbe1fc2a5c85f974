"""Single steps on block devices and mounts. Run by the worker: each may wait for a disk for ever."""

import errno
import fcntl
import os
import struct
import time
from contextlib import suppress

from core0.linux import blkid, mounts

_ZEROS = bytes(1 << 20)
_PAGE = 4096
_BLKDISCARD = 0x1277
_FLAGS = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOATIME
# Seconds that the end of a mount waits for the node's own looks at it.
_LOOKS = 3.0


def check_writable(device: str) -> None:
    """Write a disk's first bytes as they are: some tell of a write protection only when they are written to.

    Raises:
        OSError: if it takes no writes.
    """
    descriptor = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, os.pread(descriptor, _PAGE, 0), 0)
        os.fsync(descriptor)
    except OSError as error:
        remedy = "take its write protection off, or replace it"
        raise OSError(f"it takes no writes ({error.strerror}); {remedy}") from None
    finally:
        os.close(descriptor)


def clear(device: str) -> None:
    """Zeros over the first and the last MiB, where signatures stand."""
    _zero(device, len(_ZEROS), discard=False)


def forget(device: str, length: int) -> None:
    """Zeros over the first bytes and the last MiB; the rest is discarded, if the disk can."""
    _zero(device, length, discard=True)


def _zero(device: str, length: int, *, discard: bool) -> None:
    descriptor = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if discard:
            with suppress(OSError):
                fcntl.ioctl(descriptor, _BLKDISCARD, struct.pack("=QQ", 0, size))
        last = max(0, size - len(_ZEROS))
        for start in (*range(0, min(length, last), len(_ZEROS)), last):
            os.pwrite(descriptor, _ZEROS[: size - start], start)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def holds_part(device: str, uuid: str) -> bool:
    """Whether a device holds a part of the btrfs with that UUID."""
    return any(found.type == "btrfs" and found.uuid == uuid for found in blkid.probe(device).signatures)


def mount(source: str, target: str, options: str, flags: int) -> None:
    """Mount a btrfs, or change its options."""
    os.makedirs(target, mode=0o700, exist_ok=True)
    mounts.mount(source, target, "btrfs", flags | _FLAGS, options)


def unmount(target: str) -> None:
    """Unmount, or fail: a pool in use is not pulled from below its users.

    Raises:
        OSError: EBUSY if somebody uses it for longer than the worker's other jobs look at it.
    """
    end = time.monotonic() + _LOOKS
    while True:
        try:
            mounts.unmount_now(target)
            break
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.05)
    os.rmdir(target)


def release(target: str) -> None:
    """Detach a mount that serves no more, whoever uses it."""
    mounts.unmount(target)
    os.rmdir(target)


def space(path: str) -> tuple[int, int]:
    """Size and free space of a mounted file system in bytes (statvfs(3))."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
