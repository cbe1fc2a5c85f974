"""The lock: every file that an image is built from, by name, version, size and SHA-256.

A lock names no host: a Debian file stands relative to its archive, a wheel by its file name, an npm package relative
to its registry. Where the
bytes come from is decided when they are fetched, and does not matter, because the checksum is here.
"""

import difflib
import hashlib
from pathlib import Path, PurePosixPath

import msgspec

from image.errors import ImageError
from image.files import write_atomically

SCHEMA = 1


class LockError(ImageError):
    """A lock cannot be used; the message names the file, the cause and the remedy."""


class DebFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One Debian package: `archive` is a name out of ARCHIVES, `path` is relative to that archive."""

    name: str
    version: str
    arch: str
    archive: str
    path: str
    size: int
    sha256: str


class Wheel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One Python package as a wheel (PEP 427)."""

    name: str
    version: str
    filename: str
    size: int
    sha256: str


class NpmPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One npm package: `path` is relative to a registry."""

    name: str
    version: str
    path: str
    size: int
    sha256: str


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer to one manifest on one architecture.

    `request` is the checksum of the manifest's question; `epoch` (seconds since 1970) is the newest date
    that the archives signed, the image's SOURCE_DATE_EPOCH and the least time that its clock may show.
    """

    schema: int
    name: str
    arch: str
    request: str
    epoch: int
    packages: tuple[DebFile, ...]
    wheels: tuple[Wheel, ...] = ()
    npm: tuple[NpmPackage, ...] = ()

    @property
    def files(self) -> tuple[DebFile | Wheel | NpmPackage, ...]:
        """All files, Debian's first."""
        return (*self.packages, *self.wheels, *self.npm)


def path_of(manifest: Path, arch: str) -> Path:
    """Where the lock of a manifest stands: `virt.toml` on amd64 has `virt.amd64.lock.json` beside it."""
    return manifest.with_name(f"{manifest.stem}.{arch}.lock.json")


def load(path: Path) -> Lock:
    """Read and check a lock."""
    try:
        lock = msgspec.json.decode(path.read_bytes(), type=Lock)
    except FileNotFoundError as error:
        raise LockError(f"cannot read lock {path}: no such file; make it with 'zn image lock'") from error
    except (msgspec.DecodeError, OSError) as error:
        raise LockError(f"cannot read lock {path}: {error}; make it anew with 'zn image lock'") from error
    _check(lock, path)
    return lock


def _check(lock: Lock, path: Path) -> None:
    if lock.schema != SCHEMA:
        raise LockError(f"cannot use lock {path}: schema {lock.schema}, this builder reads {SCHEMA}")
    for file in lock.files:
        if len(file.sha256) != 64 or not set(file.sha256) <= set("0123456789abcdef"):
            raise LockError(f"cannot use lock {path}: {file.name}: sha256 is not 64 hexadecimal digits")
        if file.size <= 0:
            raise LockError(f"cannot use lock {path}: {file.name}: size {file.size} is not positive")
    debian, npm = (deb.path for deb in lock.packages), (one.path for one in lock.npm)
    for relative in (*debian, *npm, *(wheel.filename for wheel in lock.wheels)):
        if relative.startswith("/") or ".." in PurePosixPath(relative).parts or "://" in relative:
            raise LockError(f"cannot use lock {path}: {relative!r} is not a relative path")


def check_request(lock: Lock, request: str, path: Path) -> None:
    """Refuse a lock that answers another question than the manifest asks now."""
    if lock.request != request:
        raise LockError(
            f"cannot use lock {path}: the manifest's packages changed since; run 'zn image lock --update'"
        )


def encode(lock: Lock) -> bytes:
    """The lock as written: one line per value, keys in the order of the types, packages by name."""
    return msgspec.json.format(msgspec.json.encode(lock), indent=1) + b"\n"


def checksum(lock: Lock) -> str:
    """SHA-256 of a lock in hexadecimal."""
    return hashlib.sha256(encode(lock)).hexdigest()


def save(lock: Lock, path: Path) -> None:
    """Write a lock so that a reader sees the old or the new one, never half."""
    write_atomically(path, encode(lock))


def difference(old: Lock | None, new: Lock) -> list[str]:
    """What changes from one lock to another: one line per package, as a unified diff without context."""
    before = _summary(old) if old else []
    lines = difflib.unified_diff(before, _summary(new), "lock", "new lock", lineterm="", n=0)
    return [line for line in lines if not line.startswith("@@")]


def _summary(lock: Lock) -> list[str]:
    return [f"epoch {lock.epoch}", *(f"{file.name} {file.version} {file.sha256[:12]}" for file in lock.files)]
