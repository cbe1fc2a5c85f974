"""Looks at a layer's tar while it passes: what has no place in a layer, or is too much, ends the pull.

It unpacks nothing: mkfs.erofs does, in a tree of its own that knows no files of the node. Even so it must not be
given ten million names, a name of a megabyte, or the marks by which overlayfs finds its way through layers. What the
two read differently is harmless still: layers are mounted nodev and nosuid.

Source: OCI image-spec 1.1, layer.md.
"""

from collections.abc import Callable

from corex.files.untar import (
    DEVICES,
    FIFO,
    FILES,
    FOLDER,
    LINK,
    SYMLINK,
    XATTR,
    Member,
    Sink,
    TarError,
    TarReader,
)

LONGEST_PATH = 4096
LONGEST_NAME = 255
_KNOWN = DEVICES + LINK + SYMLINK + FILES + FOLDER + FIFO
# Whiteouts of "", "." and "..".
_NOT_ONE_OF_ITS_FOLDER = {".wh.", ".wh..", ".wh..."}


# Told of an entry's type, path and size; who takes its bytes, and at its end an empty piece.
Take = Callable[[str, str, int], Sink | None]


class TarCheck(TarReader):
    """The look at one tar; feed it piece by piece.

    Args:
        take: is told of each entry that is good, and may refuse it or take its bytes; by default nobody does.
    """

    def __init__(self, take: Take = lambda *_: None) -> None:
        def look(member: Member) -> Sink | None:
            _check_entry(member)
            return take(member.kind, member.path, member.size)

        super().__init__(look)


def _check_entry(member: Member) -> None:
    kind, path, target = member.kind, member.path, member.target
    shown = ascii(path[:200])
    if kind in DEVICES:
        raise TarError(f"{shown} is a device node; containers get theirs from the node: build it without")
    if kind not in _KNOWN:
        raise TarError(f"{shown} is of the unknown type {kind!a}; pack it as pax, without sparse files")
    _check_path(path, shown)
    if kind == LINK:
        _check_path(target, f"the hard link {shown}")
    elif len(target) > LONGEST_PATH:
        raise TarError(f"the link {shown} leads to over {LONGEST_PATH} bytes")
    for key in member.pax:
        if key.startswith("GNU.sparse."):
            raise TarError(
                f"{shown} is a sparse file, of which readers differ in what it has; pack it without"
            )
        name = key.removeprefix(XATTR)
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
