"""A folder as a tar, and a tar into a folder.

Whoever made either may mean harm. Below the folder no link is ever followed, and each path is resolved anew by the
kernel from the folder's own descriptor: what is swapped meanwhile leads nowhere else.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress

from corex.files import tar
from corex.files.resolve import Handle, Root, is_of_kernel, open_beneath, shown
from corex.files.tar import Entry
from corex.files.untar import DEVICES, FIFO, FILES, FOLDER, LINK, SYMLINK, Member, Sink, TarError, TarReader
from corex.files.write import Draft, Ids, rename, temporary

PIECE = 256 << 10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_LONGEST_PATH, _LONGEST_NAME = 4096, 255
_PERMISSIONS, _ALL_BITS = 0o777, 0o7777
_NEW_FOLDER = 0o755
# No id of anybody (chown(2)), and a time that every file system has (year 2486).
_NO_ID, _LATEST = 2**32 - 1, 1 << 34
# Of what was there a moment ago, and is gone, or something else by now.
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR)


# Packing.


def pack(root: Root, path: bytes) -> Iterator[bytes]:
    """A folder's content as a tar, in pieces; its own entry is './'. The first piece comes once it is open.

    Folders, files and links are in it; FIFOs, sockets, devices and what is the kernel's are not. A file that becomes
    shorter while it is read is filled with zeros, what it gains is left out.

    Raises:
        OSError: naming what cannot be read.
        FileError: there is no such folder.
    """
    with root.folder(path) as top:
        yield b""
        gathered = bytearray()
        known: dict[tuple[int, int], bytes] = {}
        waiting = [b"."]
        while waiting:
            folder = waiting.pop()
            below = []
            for name, piece in _pack_folder(top.fd, folder, known):
                if name is not None:
                    below.append(name)
                gathered += piece
                if len(gathered) >= PIECE:
                    yield bytes(gathered)
                    gathered.clear()
            waiting += reversed(below)
        yield bytes(gathered) + tar.END


def _pack_folder(
    top: int, path: bytes, known: dict[tuple[int, int], bytes]
) -> Iterator[tuple[bytes | None, bytes]]:
    """Pieces of a tar, and the paths of the folders in a folder."""
    try:
        opened = open_beneath(top, path, _FOLDER)
    except OSError as error:
        if error.errno in _GONE and path != b".":
            return
        raise _named(error, path) from None
    with opened as folder:
        if is_of_kernel(folder.fd):
            return
        yield None, tar.header(_entry(path + b"/", tar.FOLDER, os.fstat(folder.fd)))
        for name in sorted(map(os.fsencode, os.listdir(folder.fd))):
            inner = path + b"/" + name
            try:
                yield from _pack_entry(folder.fd, name, inner, known)
            except OSError as error:
                if error.errno not in (*_GONE, errno.EINVAL):
                    raise _named(error, inner) from None


def _pack_entry(
    folder: int, name: bytes, path: bytes, known: dict[tuple[int, int], bytes]
) -> Iterator[tuple[bytes | None, bytes]]:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        yield path, b""
    elif stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=folder)
        yield None, tar.header(_entry(path, tar.SYMLINK, status, leads_to=target))
    elif stat.S_ISREG(status.st_mode):
        for piece in _pack_file(folder, name, path, known):
            yield None, piece


def _pack_file(folder: int, name: bytes, path: bytes, known: dict[tuple[int, int], bytes]) -> Iterator[bytes]:
    with open_beneath(folder, name, os.O_RDONLY) as file:
        status = os.fstat(file.fd)
        if not stat.S_ISREG(status.st_mode):
            return
        key = (status.st_dev, status.st_ino)
        if key in known:
            yield tar.header(_entry(path, tar.LINK, status, leads_to=known[key]))
            return
        if status.st_nlink > 1:
            known[key] = path
        yield tar.header(_entry(path, tar.FILE, status, status.st_size))
        left = status.st_size
        while left:
            data = os.read(file.fd, min(PIECE, left)) or bytes(min(PIECE, left))
            left -= len(data)
            yield data
        yield tar.padding(status.st_size)


def _entry(path: bytes, kind: bytes, status: os.stat_result, size: int = 0, leads_to: bytes = b"") -> Entry:
    return Entry(
        path, kind, status.st_mode, status.st_uid, status.st_gid, size, int(status.st_mtime), leads_to
    )


def _named(error: OSError, path: bytes) -> OSError:
    return OSError(error.errno, f"{shown(path)}: {os.strerror(error.errno or 0)}")


# Unpacking.


class Unpacking:
    """A tar that is unpacked while it comes: each entry appears whole or not at all.

    Refused are absolute paths, '..', links on the way to an entry, devices, FIFOs, sparse files. A file or link takes
    the place of a file or link; a folder that is there keeps what it has, and its owner and mode.
    """

    def __init__(self, folder: Handle, owner: Ids, *, keep_owner: bool) -> None:
        """Unpack into a folder, whose descriptor is this one's from now on."""
        self.entries = self.bytes = 0
        self._folder, self._owner, self._keeps_owner = folder, owner, keep_owner
        self._reader = TarReader(self._take)
        self._draft: Draft | None = None
        self._lock = threading.Lock()

    def feed(self, piece: bytes) -> None:
        """Take more of it. Raises TarError, OSError, FileError."""
        with self._lock:
            self._reader.feed(piece)

    def end(self) -> None:
        """It is over. Raises TarError if it was within an entry."""
        self._reader.end()

    def close(self) -> None:
        """Leave nothing behind that is not whole."""
        with self._lock:
            if self._draft is not None:
                self._draft.close()
            self._folder.close()

    def _take(self, member: Member) -> Sink | None:
        parts = _parts(member.path, "the entry")
        if max(member.uid, member.gid) >= _NO_ID:
            raise TarError(f"the entry {member.path[:200]!a} belongs to nobody that can be")
        self.entries += 1
        if member.kind == FOLDER:
            self._make_folders(parts, self._mode(member, _ALL_BITS), self._ids(member))
            return None
        if not parts:
            raise TarError(f"the entry {member.path[:200]!a} has no name")
        if member.kind in DEVICES or member.kind == FIFO:
            raise TarError(f"{member.path[:200]!a} is a device node or a FIFO")
        if any(key.startswith("GNU.sparse.") for key in member.pax):
            raise TarError(f"{member.path[:200]!a} is a sparse file; pack it without")
        if member.kind in FILES:
            return self._take_file(member, parts)
        if member.kind == SYMLINK:
            self._link(member, parts, None)
        elif member.kind == LINK:
            self._link(member, parts, _parts(member.target, "the hard link"))
        else:
            raise TarError(f"{member.path[:200]!a} is of the unknown type {member.kind!a}")
        return None

    def _take_file(self, member: Member, parts: list[bytes]) -> Sink:
        draft = Draft(self._parent(parts), parts[-1], self._mode(member, _ALL_BITS), self._ids(member))
        self._draft = draft

        def take(data: bytes) -> None:
            if data:
                draft.write(data)
                self.bytes += len(data)
                return
            draft.commit(lambda _: None, min(member.modified, _LATEST), flush=False)
            draft.close()
            self._draft = None

        return take

    def _link(self, member: Member, parts: list[bytes], source: list[bytes] | None) -> None:
        if not 0 < len(member.target) <= _LONGEST_PATH or "\0" in member.target:
            raise TarError(f"the link {member.path[:200]!a} leads to nothing that can be")
        with self._parent(parts) as folder:
            name = temporary()
            if source is None:
                os.symlink(member.target.encode("latin-1"), name, dir_fd=folder.fd)
                os.chown(name, *self._ids(member), dir_fd=folder.fd, follow_symlinks=False)
            else:
                self._link_hard(source, folder, name)
            try:
                rename(folder.fd, name, parts[-1], replaces=True)
            finally:
                with suppress(FileNotFoundError):  # two names of one file: rename(2) leaves both
                    os.unlink(name, dir_fd=folder.fd)

    def _link_hard(self, source: list[bytes], folder: Handle, name: bytes) -> None:
        if not source:
            raise TarError("a hard link leads to a folder")
        with self._parent(source) as other:
            if not stat.S_ISREG(os.stat(source[-1], dir_fd=other.fd, follow_symlinks=False).st_mode):
                raise TarError(f"a hard link leads to {shown(b'/'.join(source))}, which is no file")
            os.link(source[-1], name, src_dir_fd=other.fd, dst_dir_fd=folder.fd, follow_symlinks=False)

    def _parent(self, parts: list[bytes]) -> Handle:
        return self._make_folders(parts[:-1], _NEW_FOLDER, self._owner)

    def _make_folders(self, parts: list[bytes], mode: int, owner: Ids) -> Handle:
        """Open a folder below the one that is unpacked into; what is missing of it is made."""
        try:
            return self._open(parts)
        except FileNotFoundError:
            pass
        for count in range(1, len(parts) + 1):
            is_last = count == len(parts)
            with self._open(parts[: count - 1]) as above:
                try:
                    os.mkdir(parts[count - 1], 0o700, dir_fd=above.fd)
                except FileExistsError:
                    continue
            with self._open(parts[:count]) as made:
                os.chown(".", *(owner if is_last else self._owner), dir_fd=made.fd)
                os.chmod(".", mode if is_last else _NEW_FOLDER, dir_fd=made.fd)
        return self._open(parts)

    def _open(self, parts: list[bytes]) -> Handle:
        path = b"/".join(parts)
        try:
            opened = open_beneath(self._folder.fd, path or b".", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise TarError(f"{shown(path)} is a link or a file, and should be a folder") from None
            raise
        if is_of_kernel(opened.fd):
            raise TarError(f"{shown(path)} is the kernel's, not the container's")
        return opened

    def _mode(self, member: Member, bits: int) -> int:
        return member.mode & (bits if self._keeps_owner else _PERMISSIONS)

    def _ids(self, member: Member) -> Ids:
        return Ids(member.uid, member.gid) if self._keeps_owner else self._owner


def _parts(path: str, what: str) -> list[bytes]:
    """The names on the way to an entry. Raises TarError."""
    shown_path = ascii(path[:200])
    parts = [part for part in path.encode("latin-1").split(b"/") if part not in (b"", b".")]
    if path.startswith("/") or b".." in parts or "\0" in path:
        raise TarError(f"{what} {shown_path} leads outside: it is absolute, or has '..' or a zero byte in it")
    if not path or len(path) > _LONGEST_PATH or max(map(len, parts), default=0) > _LONGEST_NAME:
        raise TarError(
            f"{what} {shown_path} is longer than {_LONGEST_PATH} bytes, or a name of it than {_LONGEST_NAME}"
        )
    return parts
