"""The tree of an image: frozen entries by path, composed from packages, wheels and our own files.

Paths are relative, with slashes, without a leading one. Debian's merged /usr holds: what a package puts
under bin, lib, lib64 or sbin is placed under usr/, and the four names are links.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import translate
from pathlib import PurePosixPath
from re import compile as compile_pattern

from image.errors import ImageError

_MERGED = frozenset(("bin", "lib", "lib64", "sbin"))


class TreeError(ImageError):
    """Two sources disagree about a path, or a path would leave the tree."""


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of an image.

    `content` holds a file's bytes or a link's target; `device` the major and minor number of a character
    device; `origin` names the package or step that brought the entry.
    """

    path: str
    kind: Kind
    mode: int
    content: bytes = b""
    origin: str = ""
    device: tuple[int, int] = (0, 0)
    owner: int = 0
    group: int = 0

    @property
    def sha256(self) -> str:
        """The checksum of the content in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


Tree = Mapping[str, Entry]


def file(path: str, content: bytes, origin: str, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(normalise(path), Kind.FILE, mode, content, origin)


def folder(path: str, origin: str, mode: int = 0o755) -> Entry:
    """A folder."""
    return Entry(normalise(path), Kind.FOLDER, mode, b"", origin)


def link(path: str, target: str, origin: str) -> Entry:
    """A symbolic link."""
    return Entry(normalise(path), Kind.LINK, 0o777, target.encode(), origin)


def normalise(path: str) -> str:
    """The path relative to the root with merged /usr; TreeError if it would leave the root."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise TreeError(f"cannot place {path!r}: it leaves the tree")
    if len(parts) > 1 and parts[0] in _MERGED:
        parts.insert(0, "usr")
    return "/".join(parts)


def compose(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Put entries together; folders and equal entries may come twice, anything else is a conflict."""
    tree: dict[str, Entry] = {}
    for entry in entries:
        if entry.path:
            _add(tree, entry)
    for path in [path for path, entry in tree.items() if entry.kind is not Kind.FOLDER]:
        _require_folders(tree, path)
    return dict(sorted(tree.items()))


def _add(tree: dict[str, Entry], entry: Entry) -> None:
    there = tree.get(entry.path)
    if there is None:
        tree[entry.path] = entry
    elif replace(there, origin="") != replace(entry, origin="") and not _both_folders(there, entry):
        raise TreeError(f"cannot place /{entry.path}: both {there.origin} and {entry.origin} bring it")


def _both_folders(one: Entry, other: Entry) -> bool:
    return one.kind is Kind.FOLDER and other.kind is Kind.FOLDER


def _require_folders(tree: dict[str, Entry], path: str) -> None:
    for parent in PurePosixPath(path).parents:
        name = str(parent)
        if name == ".":
            return
        there = tree.setdefault(name, Entry(name, Kind.FOLDER, 0o755, b"", tree[path].origin))
        if there.kind is not Kind.FOLDER:
            raise TreeError(f"cannot place /{path}: {there.origin} makes /{name} a {there.kind}")


def merged_usr_links(tree: Tree) -> list[Entry]:
    """The links of merged /usr for the folders that the tree has under usr/."""
    return [link(name, f"usr/{name}", "merged /usr") for name in sorted(_MERGED) if f"usr/{name}" in tree]


def drop(entries: Iterable[Entry], drop: Sequence[str], keep: Sequence[str]) -> list[Entry]:
    """The entries without those that match a `drop` glob and no `keep` glob; empty folders go with them."""
    dropped, kept = _matcher(drop), _matcher(keep)
    return [entry for entry in entries if not dropped(entry.path) or kept(entry.path)]


def _matcher(globs: Sequence[str]) -> Callable[[str], object]:
    return compile_pattern("|".join(translate(glob) for glob in globs) or "(?!)").match


def without_empty_folders(tree: Tree, wanted: Iterable[str]) -> dict[str, Entry]:
    """The tree without folders that hold nothing, except those named in `wanted`."""
    needed = set(wanted)
    for path, entry in tree.items():
        if entry.kind is not Kind.FOLDER or path in needed:
            needed.add(path)
            needed.update(str(parent) for parent in PurePosixPath(path).parents)
    return {path: entry for path, entry in tree.items() if path in needed}


def digest(tree: Tree) -> str:
    """SHA-256 over everything that ends up in an image, independent of how it was put together."""
    total = hashlib.sha256()
    for path, entry in sorted(tree.items()):
        facts = (path, entry.kind, entry.mode, entry.device, entry.owner, entry.group, entry.sha256)
        total.update(repr(facts).encode() + b"\n")
    return total.hexdigest()
