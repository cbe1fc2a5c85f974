"""Looking at files: what is at a path, what is in a folder, the content of a file."""

import heapq
import os
import stat
import threading
import urllib.parse

from corex.files.resolve import Handle, Root
from corex.wire.files import FileInfo, FileKind, FolderPage

_KINDS: dict[int, FileKind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


def info_of(folder: int, name: bytes, path: bytes) -> FileInfo:
    """What a name of a folder is; a link itself. Raises OSError."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else b""
    return _info(status, path, target)


def look(root: Root, path: bytes) -> FileInfo:
    """What is at a path; a link itself. Raises OSError, FileError."""
    if not path.strip(b"/."):
        with root.folder(path) as folder:
            return _info(os.fstat(folder.fd), b"/", b"")
    folder, name = root.parent(path)
    with folder:
        return info_of(folder.fd, name, path)


def list_folder(root: Root, path: bytes, after: bytes, limit: int) -> FolderPage:
    """A page of a folder, by names as bytes. Raises OSError, FileError."""
    with (
        root.folder(path) as folder,
        Handle(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder.fd)) as opened,
    ):
        with os.scandir(opened.fd) as found:
            # not all names of a folder that has a million are in memory at a time
            names = heapq.nsmallest(
                limit + 1, (name for one in found if (name := os.fsencode(one.name)) > after)
            )
        base = path.rstrip(b"/")
        entries = []
        for name in names[:limit]:
            try:
                entries.append(info_of(opened.fd, name, base + b"/" + name))
            except FileNotFoundError:  # it went since the folder was read
                continue
        return FolderPage(entries, quoted(names[limit - 1]) if len(names) > limit else None)


class Content:
    """A regular file that is being read, and what it was when it was opened.

    Attributes:
        size: bytes.
        etag: its ETag.
        modified: seconds since 1970 UTC.
    """

    def __init__(self, root: Root, path: bytes) -> None:
        """Open it. Raises OSError, FileError."""
        self._file = root.file(path)
        self._lock = threading.Lock()
        status = os.fstat(self._file.fd)
        self.size, self.etag, self.modified = status.st_size, etag_of(status), status.st_mtime

    def read(self, at: int, most: int) -> bytes:
        """Bytes from an offset on; nothing at the end. Raises OSError."""
        with self._lock:
            return os.pread(self._file.fd, most, at)

    def close(self) -> None:
        """Let go of the file, once a read that somebody gave up has ended."""
        with self._lock:
            self._file.close()


def etag_of(status: os.stat_result) -> str:
    """An ETag of a file as it is: which one it is, its length, and when it was changed, by whatever (ctime)."""
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"'


def quoted(path: bytes) -> str:
    """A path as a query's parameter."""
    return urllib.parse.quote_from_bytes(path, safe="/")


def _info(status: os.stat_result, path: bytes, target: bytes) -> FileInfo:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "other")
    return FileInfo(
        name=_text(path.rstrip(b"/").rpartition(b"/")[2] or b"/"),
        path=quoted(path),
        kind=kind,
        size=status.st_size,
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        uid=status.st_uid,
        gid=status.st_gid,
        modified=status.st_mtime,
        etag=etag_of(status) if kind == "file" else "",
        target=_text(target),
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
