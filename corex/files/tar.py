"""Headers of a tar. Pure.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header". What does not fit the plain header
stands in an extended header before it, and so do extended attributes, as star and GNU tar write them.
"""

import msgspec

BLOCK = 512
END = bytes(2 * BLOCK)
FILE, LINK, SYMLINK, FOLDER, FIFO = b"0", b"1", b"2", b"5", b"6"
_EXTENDED = b"x"
_LONGEST_NAME = 100
_LARGEST_SIZE, _LATEST = 8**11 - 1, 8**11 - 1


class Entry(msgspec.Struct, frozen=True):
    """One entry: its path and, of a link, what it leads to, without a slash at their beginning."""

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int = 0
    modified: int = 0
    leads_to: bytes = b""
    attributes: tuple[tuple[bytes, bytes], ...] = ()


def header(entry: Entry) -> bytes:
    """Everything of an entry that comes before its content."""
    return _extended(_records(entry)) + _block(entry)


def padding(size: int) -> bytes:
    """What follows a content of so many bytes."""
    return bytes(-size % BLOCK)


def _records(entry: Entry) -> bytes:
    records = {}
    if len(entry.path) > _LONGEST_NAME:
        records[b"path"] = entry.path
    if len(entry.leads_to) > _LONGEST_NAME:
        records[b"linkpath"] = entry.leads_to
    if entry.size > _LARGEST_SIZE:
        records[b"size"] = str(entry.size).encode()
    records |= {b"SCHILY.xattr." + name: value for name, value in entry.attributes}
    return b"".join(_record(key, value) for key, value in records.items())


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value`, where the length counts its own digits, too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _extended(records: bytes) -> bytes:
    if not records:
        return b""
    return _block(Entry(b"pax", _EXTENDED, 0o644, 0, 0, len(records))) + records + padding(len(records))


def _block(entry: Entry) -> bytes:
    """The plain header (ustar)."""
    fields = (
        (entry.path[:_LONGEST_NAME], 100),
        (b"%07o" % (entry.mode & 0o7777), 8),
        (b"%07o" % entry.uid, 8),
        (b"%07o" % entry.gid, 8),
        (b"%011o" % min(entry.size, _LARGEST_SIZE), 12),
        (b"%011o" % max(0, min(entry.modified, _LATEST)), 12),
        (b" " * 8, 8),
        (entry.kind, 1),
        (entry.leads_to[:_LONGEST_NAME], 100),
        (b"ustar\x0000", 8),
    )
    block = b"".join(value.ljust(width, b"\0") for value, width in fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
