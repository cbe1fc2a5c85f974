"""Scrubbing a mounted btrfs: reading all of it and correcting what its checksums say is wrong.

Source: include/uapi/linux/btrfs.h, struct btrfs_ioctl_scrub_args; btrfs-scrub(8).
"""

import errno
import fcntl
import os
import struct

import msgspec

# _IOWR(0x94, 27), _IO(0x94, 28), _IOWR(0x94, 29)
_SCRUB, _CANCEL, _PROGRESS = 0xC400941B, 0x941C, 0xC400941D
_SIZE = 1024
_ARGUMENTS = struct.Struct("=QQQQ15Q")
_EVERYTHING = (1 << 64) - 1


class ScrubFigures(msgspec.Struct, frozen=True):
    """How far a scrub of one device is: bytes read of data and metadata, and what was wrong.

    Attributes:
        done: bytes.
        last: where it is on the device, in bytes.
        errors: reads that failed, checksums and headers that were wrong.
        uncorrectable: those for which no good copy was found.
        corrected: those that were written again from a good copy.
    """

    done: int = 0
    last: int = 0
    errors: int = 0
    uncorrectable: int = 0
    corrected: int = 0


def scrub_device(path: str, number: int) -> ScrubFigures:
    """Scrub a device of the file system mounted at `path`; returns when all of it was read.

    Raises:
        OSError: EINPROGRESS if it is being scrubbed, ECANCELED if somebody ended it.
    """
    buffer = bytearray(_SIZE)
    _ARGUMENTS.pack_into(buffer, 0, number, 0, _EVERYTHING, 0, *[0] * 15)
    return _call(path, _SCRUB, buffer, f"cannot scrub device {number}")


def scrub_progress(path: str, number: int) -> ScrubFigures | None:
    """How far the scrub of a device is; None if it is not being scrubbed."""
    buffer = bytearray(_SIZE)
    struct.pack_into("=Q", buffer, 0, number)
    try:
        return _call(path, _PROGRESS, buffer, f"cannot read about the scrub of device {number}")
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return None


def cancel_scrub(path: str) -> None:
    """End the scrub of all devices; without one nothing happens."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _CANCEL)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    finally:
        os.close(descriptor)


def _call(path: str, request: int, buffer: bytearray, doing: str) -> ScrubFigures:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, request, buffer)
    except OSError as error:
        raise OSError(error.errno, f"{doing}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    # data_extents, tree_extents, data_bytes, tree_bytes, read, csum, verify, no_csum, csum_discards, super, malloc,
    # uncorrectable, corrected, last_physical, unverified
    numbers = _ARGUMENTS.unpack_from(buffer)[4:]
    return ScrubFigures(
        done=numbers[2] + numbers[3],
        last=numbers[13],
        errors=numbers[4] + numbers[5] + numbers[6] + numbers[9],
        uncorrectable=numbers[11],
        corrected=numbers[12],
    )
