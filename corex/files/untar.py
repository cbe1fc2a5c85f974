"""Reads a tar while it passes, piece by piece; what its reader does not want ends it.

Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar, "Basic Tar Format".
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

_BLOCK = 512
MOST_ENTRIES = 500_000
LARGEST_HEADER = 1 << 20
XATTR = "SCHILY.xattr."
# Types: regular files (three ways), hard and symbolic links, folders, devices, FIFOs.
FILES, LINK, SYMLINK, FOLDER, DEVICES, FIFO = "\x00" + "07", "1", "2", "5", "34", "6"
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = "x", "g", "L", "K"
_EXTENSIONS = (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK)
_NOTHING: Mapping[str, str] = MappingProxyType({})


class TarError(Exception):
    """The tar is refused: the message names the entry and the reason."""


class Member(NamedTuple):
    """One entry. Texts are its bytes, each a letter (latin-1).

    Attributes:
        kind: the type's letter.
        path: where it belongs.
        size: bytes that follow; 0 for what is no regular file.
        mode: its permissions, with the bits above them.
        uid: its user.
        gid: its group.
        modified: seconds since 1970 UTC.
        target: what a link leads to.
        pax: what its extended headers say.
    """

    kind: str
    path: str
    size: int
    mode: int
    uid: int
    gid: int
    modified: int
    target: str
    pax: Mapping[str, str]


# Takes an entry's bytes, and at its end an empty piece.
Sink = Callable[[bytes], None]
# Told of an entry; who takes its bytes, if anybody does. Raises TarError.
Take = Callable[[Member], Sink | None]


class TarReader:
    """Reads one tar; feed it piece by piece.

    Args:
        take: is told of each entry, and may refuse it or take its bytes.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._sink: Sink | None = None
        self._left = 0
        self._held = bytearray()
        self._wanted = _BLOCK
        self._skip = 0
        self._entries = 0
        self._ended = False
        self._pax: Mapping[str, str] = _NOTHING
        self._said = 0
        self._next: Callable[[bytes], None] = self._header

    def feed(self, piece: bytes) -> None:
        """Read more of it. Raises TarError."""
        at = 0
        while at < len(piece) and not self._ended:
            if self._skip:
                step = min(self._skip, len(piece) - at)
                self._skip -= step
                if self._sink:
                    self._pass_on(piece[at : at + step])
            else:
                step = min(self._wanted - len(self._held), len(piece) - at)
                self._held += piece[at : at + step]
                if len(self._held) == self._wanted:
                    block = bytes(self._held)
                    self._held.clear()
                    self._next(block)
            at += step

    @property
    def ended(self) -> bool:
        """Whether its end was seen: what follows is no part of it."""
        return self._ended

    def _pass_on(self, data: bytes) -> None:
        """Hand out an entry's bytes without its padding."""
        if self._left and self._sink:
            self._sink(data[: self._left])
            self._left -= min(self._left, len(data))
        if not self._left and self._sink:
            self._sink(b"")
            self._sink = None

    def end(self) -> None:
        """It is over. Raises TarError if it was within an entry."""
        if self._skip or self._held or self._next != self._header:
            raise TarError("it ends within an entry")

    def _header(self, block: bytes) -> None:
        if not any(block):
            self._ended = True  # whatever follows is no part of the archive
            return
        _check_sum(block)
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            raise TarError(f"it has over {MOST_ENTRIES} entries")
        kind, size = chr(block[156]), _number(block[124:136])
        if kind in _EXTENSIONS:
            self._extension(kind, size)
            return
        pax, self._pax, self._said = self._pax, _NOTHING, 0
        size = _decimal(pax["size"]) if "size" in pax else size
        self._skip = _padded(size) if kind in FILES else 0
        self._left = size if self._skip else 0
        member = Member(
            kind=kind,
            path=pax.get("path", _name(block)),
            size=self._left,
            mode=_number(block[100:108]) & 0o7777,
            uid=_decimal(pax["uid"]) if "uid" in pax else _number(block[108:116]),
            gid=_decimal(pax["gid"]) if "gid" in pax else _number(block[116:124]),
            modified=_number(block[136:148]) if block[136] <= 0x80 else 0,  # 0xff: before 1970
            target=pax.get("linkpath", _text(block[157:257])),
            pax=pax,
        )
        self._sink = self._take(member)
        if self._sink and not self._skip:
            self._pass_on(b"")

    def _extension(self, kind: str, size: int) -> None:
        """Collect what is said of the next entry, or, by a global header, of all."""
        self._said += size
        if not 0 < size <= self._said <= LARGEST_HEADER:
            raise TarError(f"an entry's extended headers have {self._said} bytes, not 1 to {LARGEST_HEADER}")

        def read(data: bytes) -> None:
            self._wanted, self._next = _BLOCK, self._header
            said = _said(kind, data[:size])
            if kind != _GLOBAL:
                self._pax = {**self._pax, **said}
            elif said.keys() & {"path", "linkpath", "size"} or any(key.startswith(XATTR) for key in said):
                raise TarError("a global header names files, sizes or attributes; pack it without")

        self._wanted, self._next = _padded(size), read


def _said(kind: str, data: bytes) -> dict[str, str]:
    if kind == _LONG_NAME:
        return {"path": _text(data)}
    return {"linkpath": _text(data)} if kind == _LONG_LINK else _records(data)


def _records(data: bytes) -> dict[str, str]:
    """The records of a pax header: length, key, value, each with a newline at its end."""
    found: dict[str, str] = {}
    while data:
        digits, _, _ = data[:20].partition(b" ")
        length = _decimal(digits.decode("latin-1"))
        record, data = data[:length], data[length:]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or not equals or record[-1:] != b"\n":
            raise TarError("a pax header is damaged")
        found[key.decode(errors="replace")] = value.decode("latin-1")
    return found


def _name(block: bytes) -> str:
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    name = _text(block[:100])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("latin-1")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _check_sum(block: bytes) -> None:
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise TarError("it is no tar, or damaged: a header's checksum is wrong")


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary numbers, which begin with 0x80; nothing here may be negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):  # int() would take signs and underscores, too
        raise TarError("it is no tar, or damaged: a header's number is none")
    return int(digits, 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise TarError("a pax header is damaged: a length is no number")
    return int(text)
