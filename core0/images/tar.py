"""Looks at a layer's tar while it passes: what has no place in a layer, or is too much, ends the pull.

It unpacks nothing: mkfs.erofs does, in a tree of its own that knows no files of the node. Even so it must not be
given ten million names, a name of a megabyte, or the marks by which overlayfs finds its way through layers. What the
two read differently is harmless still: layers are mounted nodev and nosuid.

Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; OCI image-spec 1.1, layer.md.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

_BLOCK = 512
MOST_ENTRIES = 500_000
LONGEST_PATH = 4096
LONGEST_NAME = 255
LARGEST_HEADER = 1 << 20
_XATTR = "SCHILY.xattr."
# Types: regular files (three ways), hard and symbolic links, devices, folders, FIFOs, pax and GNU's long names.
_DEVICES, _LINKS, _WITH_DATA = "34", "12", "\x00" + "07"
_KNOWN = _DEVICES + _LINKS + _WITH_DATA + "56"
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = "x", "g", "L", "K"
_EXTENSIONS = (_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK)
# Whiteouts of "", "." and "..".
_NOT_ONE_OF_ITS_FOLDER = {".wh.", ".wh..", ".wh..."}
_NOTHING: Mapping[str, str] = MappingProxyType({})


class TarError(Exception):
    """The tar is refused: the message names the entry and the reason."""


# Told of an entry's type, path and size; who takes its bytes, and at its end an empty piece.
Take = Callable[[str, str, int], Callable[[bytes], None] | None]


class TarCheck:
    """The look at one tar; feed it piece by piece.

    Args:
        take: is told of each entry that is good, and may refuse it or take its bytes; by default nobody does.
    """

    def __init__(self, take: Take = lambda *_: None) -> None:
        self._take = take
        self._sink: Callable[[bytes], None] | None = None
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
        """Look at more of it. Raises TarError."""
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
        path = pax.get("path", _name(block))
        _check_entry(kind, path, pax.get("linkpath", _text(block[157:257])), pax)
        self._skip = _padded(size) if kind in _WITH_DATA else 0
        self._left = size if self._skip else 0
        self._sink = self._take(kind, path, self._left)
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
            elif said.keys() & {"path", "linkpath", "size"} or any(key.startswith(_XATTR) for key in said):
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


def _check_entry(kind: str, path: str, target: str, pax: Mapping[str, str]) -> None:
    shown = ascii(path[:200])
    if kind in _DEVICES:
        raise TarError(f"{shown} is a device node; containers get theirs from the node: build it without")
    if kind not in _KNOWN:
        raise TarError(f"{shown} is of the unknown type {kind!a}; pack it as pax, without sparse files")
    _check_path(path, shown)
    if kind == "1":
        _check_path(target, f"the hard link {shown}")
    elif len(target) > LONGEST_PATH:
        raise TarError(f"the link {shown} leads to over {LONGEST_PATH} bytes")
    for key in pax:
        if key.startswith("GNU.sparse."):
            raise TarError(
                f"{shown} is a sparse file, of which readers differ in what it has; pack it without"
            )
        name = key.removeprefix(_XATTR)
        if name != key and (name.startswith("trusted.") or ".overlay." in name):
            raise TarError(f"{shown} has the attribute {name[:100]!a}, which only the node may set")


def _check_path(path: str, shown: str) -> None:
    parts = path.split("/")
    if _NOT_ONE_OF_ITS_FOLDER.intersection(parts):
        raise TarError(f"{shown} removes no name of its own folder")
    if ".." in parts or "\0" in path:
        raise TarError(f"{shown} leads outside by '..' or has a zero byte")
    if not path or len(path) > LONGEST_PATH or max(map(len, parts)) > LONGEST_NAME:
        raise TarError(f"{shown} has no name, or one of over {LONGEST_NAME} bytes, or {LONGEST_PATH} in all")


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
