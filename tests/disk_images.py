"""Disks for test machines as operators find them: blank, used, broken, odd. All are sparse files."""

import hashlib
import os
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ci.qemu.disk_files import make_blank
from ci.qemu.spec import Disk
from core0.disks.model import DATA_NAME, DATA_TYPE, STATE_NAME, STATE_TYPE
from core0.state import area

MIB = 1 << 20
# Enough for the node to claim a disk, and to make a pool of it.
SIZE = 640 * MIB
_PIECE = MIB
_SECTOR = 512
_FIRST = 2048 * _SECTOR  # where sfdisk starts a first partition


def blank(folder: Path, name: str, size: int = SIZE, **how: object) -> Disk:
    """A disk that holds nothing. `how` are attributes of `ci.qemu.spec.Disk`."""
    path = make_blank(folder / f"{name}.img", size)
    return Disk(name, path, **how)  # type: ignore[arg-type]  # a wrong one fails the test at once


def with_ext4(disk: Disk, label: str) -> Disk:
    """The disk with a file system right on it."""
    _run("mkfs.ext4", "-q", "-F", "-L", label, disk.path)
    return disk


def with_partitions(disk: Disk, label: str) -> Disk:
    """The disk, of sectors of 512 bytes, with a GUID partition table; its first partition holds an ext4."""
    _run("sfdisk", "--quiet", disk.path, given=f"label: gpt\nsize={64 * MIB // _SECTOR}\ntype=linux\n")
    _run("mkfs.ext4", "-q", "-F", "-L", label, "-E", f"offset={_FIRST}", disk.path, f"{32 * MIB >> 10}k")
    return disk


def with_broken_table(disk: Disk) -> Disk:
    """The disk with a GUID partition table that has lost its primary header's checksum and all of its copy."""
    with_partitions(disk, "torn")
    with disk.path.open("r+b") as file:
        file.seek(_SECTOR + 16)
        file.write(b"\xff" * 4)
        file.seek(-64 * _SECTOR, os.SEEK_END)
        file.write(bytes(64 * _SECTOR))
    return disk


def with_claim(disk: Disk, pool: str) -> Disk:
    """The disk as another node has claimed it, with a pool of that name on it."""
    state, data = 16 * MIB // _SECTOR, disk.path.with_suffix(".data")
    table = f"label: gpt\nsize={state}, type={STATE_TYPE}, name={STATE_NAME}\ntype={DATA_TYPE}, name={DATA_NAME}\n"
    _run("sfdisk", "--quiet", disk.path, given=table)
    first = _FIRST + 16 * MIB
    with data.open("xb") as file:
        file.truncate(disk.path.stat().st_size - first - MIB)
    _run("mkfs.btrfs", "-q", "-L", f"zn:{pool}", data)
    _run("dd", f"if={data}", f"of={disk.path}", "bs=1M", f"seek={first // MIB}", "conv=sparse,notrunc")
    data.unlink()
    return disk


def with_noise(disk: Disk, seed: int = 1) -> Disk:
    """The disk with bytes in front that mean nothing to anybody; the same ones for the same seed."""
    with disk.path.open("r+b") as file:
        file.write(random.Random(seed).randbytes(2 * MIB))
    return disk


def with_newer_state(disk: Path, version: int = 7) -> None:
    """The file of a disk that a node has claimed, as if an image with another format of states had written last."""
    with disk.open("r+b") as file:
        for place in area.HEADERS:
            file.seek(_FIRST + place)
            block = bytearray(file.read(area.BLOCK))
            if area.parse_header(bytes(block)):
                struct.pack_into("<I", block, 16, version)
                block[-32:] = hashlib.sha256(block[:-32]).digest()
                file.seek(_FIRST + place)
                file.write(block)


def digest(path: Path) -> str:
    """SHA-256 of what a file holds; zeros count the same, written or not."""
    whole = hashlib.sha256(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        for place in _data(file.fileno()):
            if (piece := os.pread(file.fileno(), _PIECE, place)).strip(b"\0"):
                whole.update(place.to_bytes(8, "big") + piece)
    return whole.hexdigest()


def holds(path: Path, words: bytes) -> bool:
    """Whether a file has these bytes somewhere; they must not begin with a zero."""
    with path.open("rb") as file:
        descriptor = file.fileno()
        length = _PIECE + len(words) - 1
        return any(words in os.pread(descriptor, length, place) for place in _data(descriptor))


def _data(descriptor: int) -> Iterator[int]:
    """Where the pieces begin that may hold anything (lseek(2), SEEK_DATA)."""
    place = 0
    while True:
        try:
            place = os.lseek(descriptor, place, os.SEEK_DATA) // _PIECE * _PIECE
        except OSError:  # ENXIO: nothing but a hole up to the end
            return
        yield place
        place += _PIECE


def _run(*command: str | Path, given: str = "") -> None:
    subprocess.run(command, input=given, text=True, check=True, capture_output=True)
