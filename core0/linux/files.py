"""Small files, read and written as a whole, for processes that a boot waits for: they do without pathlib."""

import os
from collections.abc import Callable

StrPath = str | os.PathLike[str]
_RENAME_EXCHANGE = 2


def read(path: StrPath) -> bytes:
    """The content of a file."""
    with open(path, "rb") as file:
        return file.read()


def read_text(path: StrPath) -> str:
    """The content of a text file, as UTF-8."""
    return read(path).decode(errors="replace")


def write(path: StrPath, text: str) -> None:
    """Write one of the kernel's files: by one call, as the kernel wants it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def replace(path: StrPath, content: bytes, mode: int = 0o644) -> None:
    """Write a file that appears whole or not at all; whoever reads it meanwhile sees the earlier one."""
    new = f"{os.fspath(path)}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.rename(new, path)


def remove_tree(path: StrPath) -> None:
    """Delete a folder with all that is in it, as far as the kernel lets it; links go, what they lead to stays.

    shutil would do, but brings the node daemon the libraries of three compressions.
    """
    if not os.path.isdir(path):
        return
    for _, folders, names, here in os.fwalk(path, topdown=False):
        for name in names:
            _remove(name, os.unlink, here)
        for name in folders:
            _remove(name, os.rmdir, here)
            _remove(name, os.unlink, here)  # a link to a folder
    _remove(path, os.rmdir, None)


def _remove(name: StrPath, how: Callable[..., None], folder: int | None) -> None:
    try:
        how(name, dir_fd=folder)
    except OSError:
        return


def exchange(folder: int, name: str, other_folder: int, other: str) -> None:
    """Let two entries change their places at once (renameat2(2), RENAME_EXCHANGE)."""
    from core0.linux.libc import syscall

    doing = f"cannot exchange {name} and {other}"
    syscall("renameat2", folder, name, other_folder, other, _RENAME_EXCHANGE, doing=doing)
