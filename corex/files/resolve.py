"""Paths of the container, resolved below its root: the one place where files of the container are opened.

The kernel does it: openat2(2) with RESOLVE_IN_ROOT takes the container's root for / in absolute paths, in links and
at '..', however somebody in the container moves things meanwhile, and follows no link of /proc. What lies on a file
system of the kernel's own is none of the container's files, and /proc would show Core-X's: it is refused.
"""

import ctypes
import functools
import os
import stat

from corex.files.openat import BENEATH, IN_ROOT, NO_MAGIC_LINKS, NO_SYMLINKS, NO_XDEV, openat2

# linux/magic.h: proc, sysfs, cgroup 1 and 2, devpts; securityfs, debugfs, tracefs, bpf; mqueue, efivarfs, binfmt.
_OF_KERNEL = frozenset(
    {
        *(0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1),
        *(0x73636673, 0x64626720, 0x74726163, 0xCAFE4A11),
        *(0x19800202, 0xDE5E81E4, 0x42494E4D),
    }
)
_STATFS_BYTES = 256
_PATH = os.O_PATH | os.O_CLOEXEC
# Never waits for who opens a FIFO, never takes a terminal.
_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class FileError(Exception):
    """What is asked for cannot be, whatever the kernel says.

    Attributes:
        invalid: whether the request itself is wrong, not what is there.
        remedy: what to do about it.
    """

    def __init__(self, reason: str, remedy: str = "", *, invalid: bool = False) -> None:
        super().__init__(reason)
        self.remedy, self.invalid = remedy, invalid


class ChangedError(Exception):
    """It is not what the request says it should be."""


class Handle:
    """A descriptor that is closed once."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it, if it is not."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Root:
    """The container's root."""

    def __init__(self, fd: int | None) -> None:
        """With a descriptor of the root folder; None for our own root."""
        self._given = fd

    @functools.cached_property
    def _fd(self) -> int:
        return os.open("/", _PATH | os.O_DIRECTORY) if self._given is None else self._given

    def folder(self, path: bytes) -> Handle:
        """A folder to look into; links are followed. Raises OSError, FileError."""
        folder = Handle(openat2(self._fd, path, _PATH | os.O_DIRECTORY, IN_ROOT | NO_MAGIC_LINKS))
        try:
            refuse_of_kernel(folder.fd, path)
        except BaseException:
            folder.close()
            raise
        return folder

    def parent(self, path: bytes) -> tuple[Handle, bytes]:
        """The folder of what a path names, and its name there, which need not be. Raises OSError, FileError."""
        above, name = split(path)
        return self.folder(above), name

    def file(self, path: bytes) -> Handle:
        """A regular file, to be read; links are followed. Raises OSError, FileError."""
        how = IN_ROOT | NO_MAGIC_LINKS
        with Handle(openat2(self._fd, path, _PATH, how)) as seen:
            # looked at before it is opened: a FIFO has a reader then, and a device may begin to work
            refuse_irregular(seen.fd, path)
        file = Handle(openat2(self._fd, path, os.O_RDONLY | _AT_ONCE, how))
        try:
            refuse_irregular(file.fd, path)
        except BaseException:
            file.close()
            raise
        return file


def open_beneath(folder: int, path: bytes, flags: int, *, same_mount: bool = False) -> Handle:
    """Open what lies in a folder or below it, following no link.

    Raises:
        OSError: ELOOP for a link on the way, EXDEV if it leads to another mount and must not.
    """
    how = BENEATH | NO_SYMLINKS | NO_MAGIC_LINKS | (NO_XDEV if same_mount else 0)
    more = os.O_CLOEXEC if flags & os.O_PATH else _AT_ONCE
    return Handle(openat2(folder, path, flags | more, how))


def split(path: bytes) -> tuple[bytes, bytes]:
    """The path of what something lies in, and its name there."""
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise FileError(f"{shown(path)} names nothing in a folder", "end it with a name", invalid=True)
    return above or b"/", name


def refuse_irregular(fd: int, path: bytes) -> None:
    """Raises FileError unless it is a regular file, none of the kernel's."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise FileError(f"{shown(path)} is a folder", "see /v1/fs/folder and /v1/fs/archive")
    if not stat.S_ISREG(mode):
        raise FileError(f"{shown(path)} is no regular file")
    refuse_of_kernel(fd, path)


def refuse_of_kernel(fd: int, path: bytes) -> None:
    """Raises FileError if it lies on one of the kernel's own file systems, such as /proc."""
    if is_of_kernel(fd):
        raise FileError(
            f"{shown(path)} is the kernel's, not the container's", "run a command there: POST /v1/exec"
        )


def is_of_kernel(fd: int) -> bool:
    """Whether it lies on one of the kernel's own file systems (fstatfs(2), f_type)."""
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(fd, found) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int.from_bytes(found.raw[:8], "little") & 0xFFFFFFFF in _OF_KERNEL


def shown(path: bytes) -> str:
    """A path for messages."""
    text = path.decode("utf-8", "backslashreplace")
    return ascii(text if len(text) <= 200 else f"…{text[-200:]}")
