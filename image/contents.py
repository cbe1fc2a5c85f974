"""contents.json: what an image is made of, by package and by file, and the outputs' checksums."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from core0.wire import paths
from image.errors import ImageError
from image.lock import DebFile, Lock, NpmPackage, Wheel
from image.tree import Entry, Kind

STORAGE_FILE = paths.STORAGE_FILE.lstrip("/")


class ContentsError(ImageError):
    """A build folder has no readable contents.json."""


class Listed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One path of an image: size in bytes and SHA-256 of a file's content, target of a link."""

    path: str
    kind: Kind
    mode: int
    origin: str
    size: int = 0
    sha256: str = ""
    target: str = ""


class Package(msgspec.Struct, frozen=True):
    """One package: `size` of its file, `installed` bytes of it in the image, `licence` as far as known."""

    name: str
    version: str
    kind: str
    arch: str
    size: int
    sha256: str
    installed: int
    licence: str


class Output(msgspec.Struct, frozen=True):
    """One file of the build folder."""

    size: int
    sha256: str


class Contents(msgspec.Struct, frozen=True):
    """The whole listing.

    Attributes:
        files: what the initramfs has.
        storage: what the storage part has, which is one of the files, with the paths of the mounted file system.
        substituted: packages that differ from the lock, and how.
    """

    name: str
    arch: str
    version: str
    build_id: str
    epoch: int
    outputs: Mapping[str, Output]
    packages: tuple[Package, ...]
    files: tuple[Listed, ...]
    storage: tuple[Listed, ...] = ()
    substituted: tuple[str, ...] = ()

    @property
    def unpacked(self) -> tuple[Listed, ...]:
        """Every path of a node, with the storage part's content in place of its file."""
        return (*(file for file in self.files if file.path != STORAGE_FILE), *self.storage)


def listed(entries: Iterable[Entry]) -> tuple[Listed, ...]:
    """The listing of some entries."""
    return tuple(map(_listed, entries))


def _listed(entry: Entry) -> Listed:
    if entry.kind is Kind.FILE:
        size, sha256 = len(entry.content), entry.sha256
        return Listed(entry.path, entry.kind, entry.mode, entry.origin, size=size, sha256=sha256)
    target = entry.content.decode()
    return Listed(entry.path, entry.kind, entry.mode, entry.origin, target=target)


def packages(lock: Lock, files: Iterable[Listed], licences: Mapping[str, str]) -> tuple[Package, ...]:
    """The lock's packages with what each brought into the image."""
    installed: Counter[str] = Counter()
    for entry in files:
        installed[entry.origin] += entry.size
    return tuple(_package(file, installed[file.name], licences.get(file.name, "")) for file in lock.files)


def _package(file: DebFile | Wheel | NpmPackage, installed: int, licence: str) -> Package:
    match file:
        case DebFile():
            kind, arch = "deb", file.arch
        case Wheel():
            kind, arch = "wheel", "any"
        case NpmPackage():
            kind, arch = "npm", "any"
    return Package(file.name, file.version, kind, arch, file.size, file.sha256, installed, licence)


def output(content: bytes) -> Output:
    """Size and checksum of an output."""
    return Output(len(content), hashlib.sha256(content).hexdigest())


def encode(contents: Contents) -> bytes:
    """The listing as written, a line per value."""
    return msgspec.json.format(msgspec.json.encode(contents), indent=1) + b"\n"


def load(folder: Path) -> Contents:
    """Read the listing of a build folder."""
    path = folder / "contents.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Contents)
    except OSError as error:
        cause = f"{error.strerror}; build the image with 'zn image build'"
        raise ContentsError(f"cannot read {path}: {cause}") from error
    except msgspec.DecodeError as error:
        raise ContentsError(f"cannot read {path}: {error}; build the image again") from error
