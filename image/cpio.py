"""The archive that the kernel unpacks as its first root: cpio, 'newc' format.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel and cpio(5). Header: magic
070701 and 13 numbers of 8 hexadecimal digits; name and content are padded to 4 bytes. The order is given by
the caller, inode numbers count up, times are fixed: the same entries give the same bytes.
"""

import stat
from collections.abc import Iterable, Iterator

from image.errors import ImageError
from image.tree import Entry, Kind

_TRAILER = "TRAILER!!!"
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.FOLDER: stat.S_IFDIR,
    Kind.LINK: stat.S_IFLNK,
    Kind.DEVICE: stat.S_IFCHR,
}
_KINDS = {number: kind for kind, number in _TYPES.items()}


class CpioError(ImageError):
    """The bytes are not a complete newc archive."""


def pack(entries: Iterable[Entry], epoch: int, first_inode: int = 1) -> bytes:
    """The archive of some entries, each with the modification time `epoch` (seconds)."""
    pieces: list[bytes] = []
    for inode, entry in enumerate(entries, first_inode):
        pieces += _member(entry, inode, epoch)
    pieces += _member(Entry(_TRAILER, Kind.FILE, 0), 0, 0)
    return b"".join(pieces)


def _member(entry: Entry, inode: int, epoch: int) -> Iterator[bytes]:
    name = entry.path.encode() + b"\0"
    mode = entry.mode | (_TYPES[entry.kind] if entry.path != _TRAILER else 0)
    links = 2 if entry.kind is Kind.FOLDER else 1
    major, minor = entry.device
    size = len(entry.content)
    numbers = (inode, mode, entry.owner, entry.group, links, epoch, size, 0, 0, major, minor, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    yield from (header, _padding(len(header)), entry.content, _padding(size))


def _padding(length: int) -> bytes:
    return bytes(-length % 4)


def unpack(archive: bytes) -> Iterator[Entry]:
    """The entries of an archive up to its trailer; the origin is empty. Raises CpioError."""
    view, offset = memoryview(archive), 0
    while True:
        if bytes(view[offset : offset + 6]) != b"070701" or len(view) < offset + 110:
            raise CpioError(f"no newc header at byte {offset}: the archive is cut or damaged")
        numbers = [int(bytes(view[at : at + 8]), 16) for at in range(offset + 6, offset + 110, 8)]
        _, mode, owner, group, _, _, size, _, _, major, minor, name_size, _ = numbers
        name_end = offset + 110 + name_size
        start = name_end + -name_end % 4
        end = start + size
        if end > len(view):
            raise CpioError(f"member at byte {offset} ends behind the archive")
        path = bytes(view[offset + 110 : name_end - 1]).decode()
        if path == _TRAILER:
            return
        kind = _KINDS[stat.S_IFMT(mode)]
        content = bytes(view[start:end])
        yield Entry(path, kind, stat.S_IMODE(mode), content, "", (major, minor), owner, group)
        offset = end + -end % 4
