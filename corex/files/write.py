"""Changing files: written whole or not at all, folders made, things deleted."""

import ctypes
import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from corex.files.look import etag_of, info_of
from corex.files.resolve import ChangedError, FileError, Handle, Root, open_beneath, shown
from corex.wire.files import FileInfo

NEW_FILE = 0o644
# What a file is called before it is whole.
_TEMPORARY = b".zn-"
_MOST_BITS = 0o7777
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NO_REPLACE = 1  # renameat2(2), RENAME_NOREPLACE
# How often somebody else may make or take away what a file is about to replace.
_TRIES = 8
# Deleted by one call of `Removal.step`.
_AT_ONCE = 500

_libc = ctypes.CDLL(None, use_errno=True)


class Ids(NamedTuple):
    """Whose something is."""

    uid: int
    gid: int


# Says whether a change is wanted of what has this ETag, or is not there. Raises what it wants to.
Check = Callable[[str | None], None]


class Draft:
    """A file of another name in the same folder that takes the place of a file once it is whole, or goes.

    Whoever closes it waits for a write that somebody gave up.
    """

    def __init__(self, folder: Handle, name: bytes, mode: int | None, owner: Ids | None) -> None:
        """Make it; the folder's descriptor is the draft's from now on.

        Raises:
            OSError: the kernel refuses it.
            FileError: what has the name now is no regular file.
        """
        self._folder, self._name, self._path = folder, name, temporary()
        self._mode, self._owner = mode, owner
        self._lock = threading.Lock()
        try:
            self._look()
            # nobody may read what is not whole yet
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = Handle(os.open(self._path, flags, 0o600, dir_fd=folder.fd))
        except BaseException:
            folder.close()
            raise

    def _look(self) -> os.stat_result | None:
        """What has the name now."""
        try:
            status = os.stat(self._name, dir_fd=self._folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            what = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link"}
            kind = what.get(stat.S_IFMT(status.st_mode), "no regular file")
            raise FileError(f"{shown(self._name)} is {kind}", "delete it first, or write to where it leads")
        return status

    def reserve(self, size: int) -> None:
        """See that there is room for so many bytes. Raises OSError (ENOSPC)."""
        room = os.fstatvfs(self._file.fd)
        if size > room.f_bavail * room.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, data: bytes) -> None:
        """Add to it. Raises OSError."""
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file.fd, rest) :]

    def commit(self, check: Check, modified: int | None = None, *, flush: bool = True) -> bool:
        """Put it where it belongs, with all that it has on the disk; whether none was there.

        Args:
            check: is asked with the ETag of what is there now.
            modified: seconds since 1970 UTC, if it is not new.
            flush: whether to wait for the disk.

        Raises:
            OSError: the kernel refuses it.
            FileError: something else than a file has its name by now.
            ChangedError: somebody else was faster.
        """
        with self._lock:
            return self._commit(check, modified, flush=flush)

    def _commit(self, check: Check, modified: int | None, *, flush: bool) -> bool:
        for _ in range(_TRIES):
            before = self._look()
            check(etag_of(before) if before else None)
            self._dress(before)
            if modified is not None:
                os.utime(self._file.fd, (modified, modified))
            if flush:
                os.fsync(self._file.fd)
            if rename(self._folder.fd, self._path, self._name, replaces=before is not None):
                break
        else:
            raise ChangedError
        if flush:
            _flush_folder(self._folder.fd)
        return before is None

    def info(self, path: bytes) -> FileInfo:
        """The file, once it is there; with the path that it has. Raises OSError."""
        return info_of(self._folder.fd, self._name, path)

    def _dress(self, before: os.stat_result | None) -> None:
        """Owner first: a change of it takes bits away (chown(2))."""
        owner = self._owner or (Ids(before.st_uid, before.st_gid) if before else None)
        now = os.fstat(self._file.fd)
        if owner and owner != (now.st_uid, now.st_gid):
            os.fchown(self._file.fd, *owner)
        mode = self._mode if self._mode is not None else before.st_mode if before else NEW_FILE
        os.fchmod(self._file.fd, mode & _MOST_BITS)

    def close(self) -> None:
        """Leave nothing behind that is not whole."""
        with self._lock:
            self._file.close()
            if self._folder.fd >= 0:
                with suppress(FileNotFoundError):
                    os.unlink(self._path, dir_fd=self._folder.fd)
            self._folder.close()


def draft(root: Root, path: bytes, mode: int | None, owner: Ids | None, check: Check) -> Draft:
    """Begin to write a file. Raises OSError, FileError, and what the check of its ETag raises."""
    folder, name = root.parent(path)
    try:
        if path.endswith(b"/"):
            raise FileError(f"{shown(path)} is the name of a folder", "leave the slash out", invalid=True)
        check(_etag(folder.fd, name))
    except BaseException:
        folder.close()
        raise
    return Draft(folder, name, mode, owner)


def _etag(folder: int, name: bytes) -> str | None:
    try:
        return info_of(folder, name, name).etag or None
    except FileNotFoundError:
        return None


def temporary() -> bytes:
    """A name that nobody has, and nobody knows before."""
    return _TEMPORARY + secrets.token_hex(8).encode()


def rename(folder: int, name: bytes, to: bytes, *, replaces: bool) -> bool:
    """Give something in a folder another name; False if it should replace nothing, and would. Raises OSError."""
    if _libc.renameat2(folder, name, folder, to, 0 if replaces else _NO_REPLACE) == 0:
        return True
    number = ctypes.get_errno()
    if not replaces and number == errno.EEXIST:
        return False
    if not replaces and number == errno.EINVAL:  # a file system that cannot promise it
        return rename(folder, name, to, replaces=True)
    raise OSError(number, os.strerror(number))


def make_folder(
    root: Root, path: bytes, mode: int, owner: Ids | None, *, parents: bool
) -> tuple[FileInfo, bool]:
    """Make a folder, if it is not there; what it is then, and whether it is new. Raises OSError, FileError."""
    if parents:
        parts = path.strip(b"/").split(b"/")
        for count in range(1, len(parts)):
            folder, name = root.parent(b"/" + b"/".join(parts[:count]))
            with folder:
                _make(folder.fd, name, mode, owner)
    folder, name = root.parent(path)
    with folder:
        is_new = _make(folder.fd, name, mode, owner)
        found = info_of(folder.fd, name, path)
        if found.kind != "folder":
            raise FileError(f"{shown(path)} is there, and is no folder", "delete it first")
        return found, is_new


def _make(folder: int, name: bytes, mode: int, owner: Ids | None) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        return False
    with open_beneath(folder, name, _FOLDER) as made:
        if owner:
            os.fchown(made.fd, *owner)
        os.fchmod(made.fd, mode)
    return True


def delete_file(root: Root, path: bytes, check: Check) -> None:
    """Delete what is no folder: of a link the link itself. Raises OSError, FileError, and what the check raises."""
    folder, name = root.parent(path)
    with folder:
        found = info_of(folder.fd, name, path)
        if found.kind == "folder" or path.endswith(b"/"):
            raise FileError(f"{shown(path)} is a folder", "DELETE /v1/fs/folder")
        check(found.etag or None)
        os.unlink(name, dir_fd=folder.fd)
        _flush_folder(folder.fd)


class Removal:
    """A folder that is being deleted, with all that is in it, some entries at a time; where links lead stays."""

    def __init__(self, root: Root, path: bytes, *, recursive: bool) -> None:
        """Begin. Raises OSError, FileError: it is no folder."""
        self.entries = 0
        self._folder, self._name = root.parent(path)
        found = info_of(self._folder.fd, self._name, path)
        if found.kind != "folder":
            raise FileError(f"{shown(path)} is no folder", "DELETE /v1/fs/file")
        self._steps = self._remove(recursive=recursive)

    def step(self) -> bool:
        """Go on for a while; whether something is left. Raises OSError."""
        end = self.entries + _AT_ONCE
        return any(self.entries >= end for _ in self._steps)

    def _remove(self, *, recursive: bool) -> Iterator[None]:
        """Deepest first, with pauses."""
        waiting = [self._name] if recursive else []
        while waiting:
            path = waiting[-1]
            below = []
            with self._open(path, _FOLDER) as folder, os.scandir(folder.fd) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        below.append(path + b"/" + os.fsencode(one.name))
                        continue
                    with suppress(FileNotFoundError):
                        os.unlink(one.name, dir_fd=folder.fd)
                    self.entries += 1
                    if self.entries % _AT_ONCE == 0:
                        yield
            if below:
                waiting += below
                continue
            if path != self._name:
                self._remove_empty(path)
                yield
            waiting.pop()
        self._remove_empty(self._name)
        _flush_folder(self._folder.fd)
        self._folder.close()

    def _open(self, path: bytes, flags: int) -> Handle:
        return open_beneath(self._folder.fd, path, flags, same_mount=True)

    def _remove_empty(self, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        with self._open(above or b".", os.O_PATH | os.O_DIRECTORY) as folder:
            os.rmdir(name, dir_fd=folder.fd)
        self.entries += 1


def _flush_folder(folder: int) -> None:
    """Have a folder's names on the disk; not every file system can, and not everybody may read a folder."""
    with suppress(OSError), open_beneath(folder, b".", _FOLDER) as opened:
        os.fsync(opened.fd)
