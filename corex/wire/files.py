"""Files of a container, as Core-X and its clients speak of them.

Names in Linux are bytes: what is said of a file has its `name` for people, in which bytes that are not UTF-8 are
written as backslash, x and two digits, and its `path` for programs, percent-encoded, as a query's `path` takes it.
"""

from typing import Annotated, Literal

import msgspec

from corex.wire.api import Wait

# Absolute, percent-encoded in the query: its bytes need not be UTF-8.
FilePath = Annotated[str, msgspec.Meta(pattern=r"^/", max_length=4096)]
# Permissions in octal (chmod(2)).
Mode = Annotated[str, msgspec.Meta(pattern=r"^[0-7]{3,4}$(?!\n)")]
# `uid`, `uid:gid`, `name` or `name:group`, from the container's own /etc.
Owner = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
FileKind = Literal["file", "folder", "link", "other"]
MOST_NAMES = 10_000


class FileInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is at a path; of a symbolic link the link itself.

    Attributes:
        name: its last part, for people.
        path: percent-encoded.
        kind: `other` is a FIFO, a socket or a device.
        size: bytes.
        mode: permissions in octal, with the bits above them.
        uid: its user.
        gid: its group.
        modified: seconds since 1970 UTC.
        etag: of a file, as GET gives it.
        target: of a link, for people.
    """

    name: str
    path: str
    kind: FileKind
    size: int
    mode: str
    uid: int
    gid: int
    modified: float
    etag: str = ""
    target: str = ""


class FolderPage(msgspec.Struct, frozen=True):
    """What is in a folder, by name as bytes; `next` is the next page's `after`, percent-encoded, None for no more."""

    entries: list[FileInfo]
    next: str | None


class Unpacked(msgspec.Struct, frozen=True):
    """How many entries of an archive were unpacked, and the bytes of its files."""

    entries: int
    bytes: int


class Removed(msgspec.Struct, frozen=True):
    """How many files and folders were deleted so far."""

    entries: int


class ByPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file's path."""

    path: FilePath


class FolderQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of a folder: names behind `after`."""

    path: FilePath
    after: Annotated[str, msgspec.Meta(max_length=255)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_NAMES)] = 1000


class WriteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a file goes, and as what.

    Attributes:
        path: the file's; its folder is there.
        mode: permissions; what is replaced keeps its own without, another one gets 0644.
        owner: whose it is; what is replaced keeps its own without, another one is root's.
    """

    path: FilePath
    mode: Mode | None = None
    owner: Owner | None = None


class MakeQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a folder goes, and as what.

    Attributes:
        path: the folder's.
        mode: permissions of a new one.
        owner: whose a new one is, root's without.
        parents: whether folders above it are made, too.
    """

    path: FilePath
    mode: Mode = "0755"
    owner: Owner | None = None
    parents: bool = False


class RemoveQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder to delete.

    Attributes:
        path: the folder's.
        recursive: whether it goes with all that is in it.
        wait: seconds that the answer may wait for the end.
    """

    path: FilePath
    recursive: bool = False
    wait: Wait = 30.0


class UnpackQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an archive goes.

    Attributes:
        path: the folder's, which is there.
        owner: whose all that comes is; root's without.
        keep_owner: whether the archive's own user and group numbers count, and its bits above permissions.
    """

    path: FilePath
    owner: Owner | None = None
    keep_owner: bool = False
