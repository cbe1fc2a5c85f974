"""What a container wrote, as a layer's tar: a job of the worker, with no more rights than an export's.

The container's root is held against its image's, both as overlayfs shows them. A file that was written, or a folder
in which one was, has been copied to the writable layer, and has its change time (ctime) there, which nobody can set;
all else has the image's. What is gone is a whiteout (OCI image-spec 1.1, layer.md).
"""

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Generator, Iterator
from typing import NamedTuple

from core0.containers.export import (
    become_root,
    check_depth,
    entry_of,
    file_stream,
    gathered,
    open_folder,
    shown,
)
from core0.wire import pieces
from corex.files import tar
from corex.files.tar import Entry

_WHITEOUT = b".wh."
# Written by the node for each container.
_NODES_OWN = (b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")


def send_changes(user: int, mount: int, image: int, way: int) -> int:
    """Write what a container changed to a connection.

    Args:
        user: its user namespace.
        mount: its mount namespace.
        image: a detached mount of its image's files, owners mapped as the container's are.
        way: the connection, blocking.

    Returns:
        The bytes of the tar.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # who reads says itself why it wants no more
    become_root(user, mount)
    flags, sent = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0
    root, before = os.open("/", flags), os.open(".", flags, dir_fd=image)
    with socket.socket(fileno=way) as talk, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for piece in gathered(changes_of(root, before)):
            pieces.send(talk, piece)
            sent += len(piece)
        pieces.send(talk, b"")
    return sent


class _Level(NamedTuple):
    """A folder that is being gone through: itself, the same one of the image if that has one, its path, its names."""

    folder: int
    below: int | None
    above: bytes
    here: frozenset[str]
    before: frozenset[str]
    left: Iterator[str]

    def close(self) -> None:
        os.close(self.folder)
        if self.below is not None:
            os.close(self.below)


def _level(folder: int, below: int | None, above: bytes) -> _Level:
    """Takes both descriptors."""
    here = frozenset(os.listdir(folder))
    before = frozenset(os.listdir(below) if below is not None else ())  # noqa: PTH208 — a descriptor
    return _Level(folder, below, above, here, before, iter(sorted(here | before)))


def changes_of(root: int, image: int) -> Iterator[bytes]:
    """The tar of what differs between two folders.

    Raises:
        OSError: naming the file that cannot be read, or be in a layer.
    """
    known: dict[tuple[int, int], bytes] = {}
    waiting = [_level(os.dup(root), os.dup(image), b"")]
    try:
        while waiting:
            level = waiting[-1]
            name = next(level.left, None)
            if name is None:
                waiting.pop().close()
                continue
            path = level.above + os.fsencode(name)
            check_depth(path, len(waiting))
            inner = yield from _difference(level, name, path, known)
            if inner:
                waiting.append(inner)
    finally:
        for level in waiting:
            level.close()
    yield tar.END


def _difference(
    level: _Level, name: str, path: bytes, known: dict[tuple[int, int], bytes]
) -> Generator[bytes, None, _Level | None]:
    """How one name of a folder differs; returns the folder that it is, if that is to be gone through, too."""
    if path in _NODES_OWN:
        return None
    if os.fsencode(name).startswith(_WHITEOUT):
        raise OSError(f"{shown(path)}: its name is one that hides others in a layer; rename it")
    if name not in level.here:
        yield tar.header(Entry(level.above + _WHITEOUT + os.fsencode(name), tar.FILE, 0, 0, 0))
        return None
    below = level.below if name in level.before else None
    status = os.stat(name, dir_fd=level.folder, follow_symlinks=False)
    was = None if below is None else os.stat(name, dir_fd=below, follow_symlinks=False)
    if was and _is_same(was, status):
        return None
    if not stat.S_ISDIR(status.st_mode):
        yield from file_stream(level.folder, name, path, status, known)
        return None
    inner = open_folder(level.folder, name)
    if inner is None:  # another mount
        return None
    yield tar.header(entry_of(path + b"/", tar.FOLDER, status))
    is_folder = was is not None and stat.S_ISDIR(was.st_mode)
    under = open_folder(below, name) if below is not None and is_folder else None
    return _level(inner, under, path + b"/")


def _is_same(was: os.stat_result, status: os.stat_result) -> bool:
    return was.st_ctime_ns == status.st_ctime_ns and stat.S_IFMT(was.st_mode) == stat.S_IFMT(status.st_mode)
