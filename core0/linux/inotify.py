"""Being told of files that change (inotify(7))."""

import os
import struct
from collections.abc import Iterator

from core0.linux.libc import syscall

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_MODIFY = 2
# struct inotify_event: the watch, what happened, a cookie, the length of a name behind it.
_EVENT = struct.Struct("iIII")


class FileWatch:
    """A descriptor that is readable once one of some files was written to."""

    def __init__(self) -> None:
        """Begin without files. Raises OSError: the user has too many of these."""
        self._descriptor = syscall("inotify_init1", _NONBLOCK_CLOEXEC, doing="cannot watch files")

    def fileno(self) -> int:
        """For who waits until it is readable."""
        return self._descriptor

    def add(self, path: os.PathLike[str]) -> int:
        """Watch one more; returns a number for it. Raises OSError: there is no such file, or they are too many."""
        name = os.fspath(path)
        doing = f"cannot watch {name}"
        return syscall("inotify_add_watch", self._descriptor, name, _MODIFY, doing=doing)

    def remove(self, number: int) -> None:
        """Watch one no more; one that was deleted is not watched any more either."""
        try:
            syscall("inotify_rm_watch", self._descriptor, number, doing="cannot end watching a file")
        except OSError:
            return

    def changed(self) -> Iterator[int]:
        """The numbers of the files that were written to since the last time."""
        while True:
            try:
                data = os.read(self._descriptor, 4096)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, _, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                yield number

    def close(self) -> None:
        """End it."""
        os.close(self._descriptor)
