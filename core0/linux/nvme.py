"""The NVMe admin commands that erase: Format NVM and Sanitize, with what tells whether a drive has them.

Sources: include/uapi/linux/nvme_ioctl.h; NVM Express Base Specification 2.0, 5.14 (Format), 5.17.2.1 (Identify
Controller), 5.16.1.25 (Sanitize Status), 5.24 (Sanitize).
"""

import ctypes
import fcntl
import os
import struct

import msgspec

_ADMIN = 0xC0484E41  # _IOWR('N', 0x41, struct nvme_admin_cmd)
_IDENTIFY, _LOG, _FORMAT, _SANITIZE = 0x06, 0x02, 0x80, 0x84
_ALL_NAMESPACES = 0xFFFFFFFF
_SANITIZE_LOG = 0x81
_COMMAND = struct.Struct("=BBHIIIQQII6III")
_BLOCK_ERASE, _CRYPTO_ERASE = 2, 4
_FORMAT_TIME = 24 * 3600 * 1000  # milliseconds; a drive may erase all of itself within this one command


class Abilities(msgspec.Struct, frozen=True):
    """Which erasing commands a controller has."""

    format: bool
    crypto_format: bool
    block_sanitize: bool
    crypto_sanitize: bool


class SanitizeState(msgspec.Struct, frozen=True):
    """How far a sanitize operation is (0 to 1), whether it goes on, and whether the last one failed."""

    progress: float
    running: bool
    failed: bool


def abilities(device: str) -> Abilities:
    """What the controller of a namespace's device can do."""
    data = _read(device, _IDENTIFY, 0, 4096, 1)
    admin, sanitize = struct.unpack_from("<H", data, 256)[0], struct.unpack_from("<I", data, 328)[0]
    return Abilities(
        format=bool(admin & 2),
        crypto_format=bool(admin & 2 and data[524] & 4),
        block_sanitize=bool(sanitize & 2),
        crypto_sanitize=bool(sanitize & 1),
    )


def format_namespace(device: str, crypto: bool) -> None:
    """Format a namespace with the layout that it has; returns when all its user data is gone."""
    number = _namespace(device)
    layout = _read(device, _IDENTIFY, number, 4096, 0)[26]
    # bits 5 and 6 of the layout's number moved to 12 and 13 (FLBAS, LBAFU)
    settings = layout & 0xF | (layout & 0x10) | (2 if crypto else 1) << 9 | (layout >> 5 & 3) << 12
    _send(device, _FORMAT, number, (settings,), timeout=_FORMAT_TIME)


def start_sanitize(device: str, crypto: bool) -> None:
    """Begin to sanitize the whole drive, which goes on by itself, over a power cut, too."""
    _send(device, _SANITIZE, 0, (_CRYPTO_ERASE if crypto else _BLOCK_ERASE,))


def sanitize_state(device: str) -> SanitizeState:
    """How far sanitizing is."""
    data = _read(device, _LOG, _ALL_NAMESPACES, 512, _SANITIZE_LOG | (512 // 4 - 1) << 16)
    progress, status = struct.unpack_from("<HH", data)
    return SanitizeState(progress / 65536, status & 7 == 2, status & 7 == 3)


def _namespace(device: str) -> int:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(descriptor, 0x4E40)  # NVME_IOCTL_ID
    finally:
        os.close(descriptor)


def _read(device: str, opcode: int, namespace: int, length: int, selector: int) -> bytes:
    buffer = ctypes.create_string_buffer(length)
    _send(device, opcode, namespace, (selector,), buffer)
    return buffer.raw


def _send(
    device: str,
    opcode: int,
    namespace: int,
    words: tuple[int, ...],
    buffer: "ctypes.Array[ctypes.c_char] | None" = None,
    timeout: int = 0,
) -> None:
    address, length = (ctypes.addressof(buffer), len(buffer)) if buffer is not None else (0, 0)
    padded = (*words, *[0] * (6 - len(words)))
    command = bytearray(
        _COMMAND.pack(opcode, 0, 0, namespace, 0, 0, 0, address, 0, length, *padded, timeout, 0)
    )
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        status = fcntl.ioctl(descriptor, _ADMIN, command)
    finally:
        os.close(descriptor)
    if status:
        raise OSError(f"the drive refused admin command {opcode:#x} with status {status:#x}")
