"""Writing to disk so that nothing half-made is ever seen: temporary name, fsync, rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EACCES, EDQUOT, ENOSPC, EPERM, EROFS
from pathlib import Path

from image.errors import ImageError

# What the operator can mend; anything else that fails inside a block is not about writing.
_CAUSES = (ENOSPC, EDQUOT, EROFS, EACCES, EPERM)


class WriteError(ImageError):
    """Something could not be written; what was there before is untouched."""


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        raise WriteError(
            f"cannot write {path}: {error.strerror}; make room or choose another folder"
        ) from error


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file so that readers see the old or the new content. Raises WriteError."""
    with _explained(path):
        _write(path, content, mode)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new.{os.getpid()}")
    try:
        write_durably(temporary, content)
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that is gone afterwards unless it was renamed."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.new.", dir=path.parent))
    try:
        with _explained(path):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends well and vanishes when it does not.

    rename(2) cannot replace a folder that has files, so the old one is moved aside first.
    """
    with _temporary_folder(path) as temporary:
        yield temporary
        temporary.chmod(0o755)
        _swap(temporary, path)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files, by relative path, so that readers see the old or the new one as a whole."""
    with replaced_folder(path) as new:
        for name, content in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            write_durably(new / name, content)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it, so that a rename never shows an empty one after a crash."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def added_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path`, unless somebody else made the same one meanwhile."""
    with _temporary_folder(path) as temporary:
        yield temporary
        if not path.exists():
            temporary.chmod(0o755)
            temporary.rename(path)


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = path.with_name(f".{path.name}.old.{os.getpid()}")
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old)
