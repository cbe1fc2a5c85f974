"""A container's files as a tar: a job of the worker, which has no more rights than the container's own root.

It enters the container's user and mount namespaces, gives up all but reading others' files, and takes the container's
own filter of system calls; a stranger wrote those files, so each is opened by its folder's descriptor, no link is
followed, and other mounts (volumes, /proc, /sys, /dev, tmpfs) are shown as the empty folders that they cover. What is
swapped between a look at it and its opening is left out: below a link nothing may lie that is unpacked there.
"""

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator

from core0.linux import files, mounts, namespaces, privileges
from core0.wire import paths, pieces
from core0.wire.control import Refusal, Reply
from corex.files import tar
from corex.files.tar import Entry

_PIECE = 256 << 10
_LONGEST_PATH, _DEEPEST = 4096, 1000
# Bytes that a file may seem to have beyond those that are there: they cost who makes them nothing.
_MOST_HOLES = 16 << 30
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
# Of what was a file a moment ago, and is gone, or a link, a socket, a mount by now.
_NO_FILE_ANY_MORE = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EXDEV)
# What `security.*` and `user.*` name belongs to a file wherever it goes.
_ATTRIBUTES = ("user.", "security.capability")


def send_root(user: int, mount: int, way: int) -> int:
    """Write a container's files to a connection.

    Args:
        user: its user namespace.
        mount: its mount namespace.
        way: the connection, blocking.

    Returns:
        The bytes of the tar.
    """
    with socket.socket(fileno=way) as talk:
        try:
            become_root(user, mount)
            root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            pieces.send_reply(talk, Reply(refusal=_refusal(error)))
            raise
        pieces.send_reply(talk, Reply())
        return _send_all(root, talk)


def _send_all(root: int, talk: socket.socket) -> int:
    """The tar, its end, and whether that was all."""
    sent = 0
    try:
        for piece in gathered(stream_of(root)):
            pieces.send(talk, piece)
            sent += len(piece)
    except OSError as error:
        pieces.send(talk, b"")
        pieces.send_reply(talk, Reply(refusal=_refusal(error)))
        raise
    pieces.send(talk, b"")
    pieces.send_reply(talk, Reply())
    return sent


def _refusal(error: OSError) -> Refusal:
    detail = f"cannot export it: {error.strerror or error}"
    return Refusal(503, "unavailable", detail, "see that the container runs, and try again")


def become_root(user: int, mount: int) -> None:
    """Be the container's root in its own root, with the right to read and nothing else.

    From here on nothing is imported: what lies there in the place of the node's modules is a stranger's.
    """
    sys.meta_path.clear()
    seccomp = files.read(paths.SECCOMP)
    namespaces.enter(user, namespaces.NEWUSER)
    namespaces.enter(mount, namespaces.NEWNS)
    privileges.become_user(0, 0)
    privileges.hide_process()
    privileges.keep_capabilities(("DAC_OVERRIDE",))
    privileges.forbid_new_privileges()
    privileges.install_seccomp(seccomp)


def gathered(stream: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces."""
    gathered = bytearray()
    for data in stream:
        gathered += data
        if len(gathered) >= _PIECE:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def stream_of(root: int) -> Iterator[bytes]:
    """The tar of a folder.

    Raises:
        OSError: naming the file that cannot be read.
    """
    known: dict[tuple[int, int], bytes] = {}
    for folder, name, path, status in _walk(root):
        if stat.S_ISDIR(status.st_mode):
            yield tar.header(entry_of(path + b"/", tar.FOLDER, status))
        else:
            yield from file_stream(folder, name, path, status, known)
    yield tar.END


def file_stream(
    folder: int, name: str, path: bytes, status: os.stat_result, known: dict[tuple[int, int], bytes]
) -> Iterator[bytes]:
    """What is no folder, as part of a tar; sockets and devices are left out.

    Args:
        folder: where it is.
        name: its name there.
        path: in the tar.
        status: of it.
        known: the paths of files with several names, by device and inode; it is added to.
    """
    key = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode) and key in known:
        yield tar.header(entry_of(path, tar.LINK, status, leads_to=known[key]))
    elif stat.S_ISREG(status.st_mode):
        yield from _file(folder, name, path, known)
    elif stat.S_ISLNK(status.st_mode):
        target = _target(folder, name)
        if target:
            yield tar.header(entry_of(path, tar.SYMLINK, status, leads_to=target))
    elif stat.S_ISFIFO(status.st_mode):
        yield tar.header(entry_of(path, tar.FIFO, status))


def _target(folder: int, name: str) -> bytes:
    """Where a link leads; nowhere if it is none any more."""
    try:
        return os.fsencode(os.readlink(name, dir_fd=folder))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return b""
        raise


def _walk(root: int) -> Iterator[tuple[int, str, bytes, os.stat_result]]:
    """Each entry below a folder: its folder's descriptor, its name there, its path, what it is.

    A folder comes before what is in it.
    """
    waiting = [(os.dup(root), b"", _names(root))]
    try:
        while waiting:
            folder, above, names = waiting[-1]
            if not names:
                os.close(folder)
                waiting.pop()
                continue
            name = names.pop()
            path = above + os.fsencode(name)
            check_depth(path, len(waiting))
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:  # it went since its folder was read
                continue
            yield folder, name, path, status
            below = open_folder(folder, name) if stat.S_ISDIR(status.st_mode) else None
            if below is not None:
                waiting.append((below, path + b"/", _names(below)))
    finally:
        for folder, _, _ in waiting:
            os.close(folder)


def check_depth(path: bytes, depth: int) -> None:
    """Refuse what is too deep for whoever unpacks it, and for us. Raises OSError."""
    if len(path) > _LONGEST_PATH or depth > _DEEPEST:
        raise OSError(errno.ENAMETOOLONG, f"{shown(path)}: its path is too long")


def _names(folder: int) -> list[str]:
    """Last first, so that they are taken from the end."""
    return sorted(os.listdir(folder), reverse=True)


def open_folder(above: int, name: str) -> int | None:
    """A folder of the same mount; None for anything else."""
    try:
        return mounts.open_in_root(above, name, _OPEN | os.O_DIRECTORY, same_mount=True)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENOENT):
            return None
        raise


def _file(folder: int, name: str, path: bytes, known: dict[tuple[int, int], bytes]) -> Iterator[bytes]:
    """A file as it is when it is read: what it loses meanwhile is filled with zeros, what it gains is left out."""
    try:
        file = mounts.open_in_root(folder, name, _OPEN, same_mount=True)
    except OSError as error:
        if error.errno in _NO_FILE_ANY_MORE:
            return
        raise OSError(error.errno, f"{shown(path)}: {os.strerror(error.errno or 0)}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return
        _check_holes(path, status)
        yield tar.header(entry_of(path, tar.FILE, status, status.st_size, attributes=_attributes(file)))
        if status.st_nlink > 1:
            known[status.st_dev, status.st_ino] = path
        left = status.st_size
        while left:
            data = os.read(file, min(_PIECE, left)) or bytes(min(_PIECE, left))
            left -= len(data)
            yield data
        yield tar.padding(status.st_size)
    finally:
        os.close(file)


def _check_holes(path: bytes, status: os.stat_result) -> None:
    there = status.st_blocks * 512  # stat(2)
    if status.st_size - there > _MOST_HOLES:
        said = (
            f"{shown(path)}: it has {status.st_size} bytes, of which {there} are there; delete it, or cut it"
        )
        raise OSError(errno.EFBIG, said)


def entry_of(
    path: bytes,
    kind: bytes,
    status: os.stat_result,
    size: int = 0,
    leads_to: bytes = b"",
    attributes: tuple[tuple[bytes, bytes], ...] = (),
) -> Entry:
    """A file's entry in a tar."""
    modified = int(status.st_mtime)
    return Entry(
        path, kind, status.st_mode, status.st_uid, status.st_gid, size, modified, leads_to, attributes
    )


def _attributes(file: int) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = [name for name in os.listxattr(file) if name.startswith(_ATTRIBUTES)]
        return tuple((os.fsencode(name), os.getxattr(file, name)) for name in names)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODATA):
            return ()
        raise


def shown(path: bytes) -> str:
    """The end of a path, for messages."""
    return ascii(path[-200:].decode(errors="replace"))
