"""The base segment of an initramfs, kept between builds under the checksum of all that decides its bytes."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard

from image import bytecode, cpio, lock, node
from image.files import replaced_folder
from image.lock import Lock
from image.manifest import NodeManifest
from image.tree import Entry, Kind

LEVEL = 19
KEPT = 4


class Listed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One path of an image as the outputs list it: size in bytes, SHA-256 of the content."""

    path: str
    kind: Kind
    mode: int
    origin: str
    size: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Base:
    """A stored base: its compressed segment, the kernel, what is in it, and a runtime for compiling."""

    folder: Path

    @property
    def runtime(self) -> Path:
        """The folder in which the image's Python runs on the host."""
        return self.folder / "runtime"

    def segment(self) -> bytes:
        """The compressed archive."""
        return (self.folder / "segment.cpio.zst").read_bytes()

    def kernel(self) -> bytes:
        """The bootable kernel."""
        return (self.folder / "vmlinuz").read_bytes()

    def listing(self) -> tuple[Listed, ...]:
        """What is in the segment."""
        return msgspec.json.decode((self.folder / "listing.json").read_bytes(), type=tuple[Listed, ...])


def listed(entries: Iterable[Entry]) -> tuple[Listed, ...]:
    """The listing of some entries."""
    return tuple(
        Listed(entry.path, entry.kind, entry.mode, entry.origin, len(entry.content), entry.sha256)
        if entry.kind is Kind.FILE
        else Listed(entry.path, entry.kind, entry.mode, entry.origin)
        for entry in entries
    )


def key(manifest: NodeManifest, locked: Lock) -> str:
    """The checksum of all that decides the base: the lock, the manifest, the compressor and this builder."""
    total = hashlib.sha256(lock.encode(locked) + msgspec.json.encode(manifest))
    total.update(f"{zstandard.__version__} {LEVEL}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()


def make(
    manifest: NodeManifest, locked: Lock, cache: Path, contents: Callable[[], Mapping[str, bytes]]
) -> Base:
    """The base of an image from the cache, or built; `contents` gives the package files by checksum."""
    folder = cache / "base" / key(manifest, locked)
    if not folder.exists():
        with replaced_folder(folder) as new:
            _build(manifest, locked, contents(), new)
        _prune(folder.parent)
    return Base(folder)


def _build(manifest: NodeManifest, locked: Lock, contents: Mapping[str, bytes], folder: Path) -> None:
    sources, kernel = node.base_sources(manifest, locked, contents)
    runtime = folder / "runtime"
    bytecode.write_runtime({entry.path: entry for entry in sources}, runtime)
    entries = node.compiled(sources, runtime, locked.arch, manifest.python.version)
    tree = node.base_tree(entries)
    (folder / "segment.cpio.zst").write_bytes(compress(cpio.pack(tree.values(), locked.epoch), LEVEL))
    (folder / "vmlinuz").write_bytes(kernel)
    (folder / "listing.json").write_bytes(msgspec.json.encode(listed(tree.values())))


def compress(archive: bytes, level: int) -> bytes:
    """One Zstandard frame with its content's size; two threads, because the count is part of the bytes."""
    return zstandard.ZstdCompressor(level=level, threads=2).compress(archive)


def _prune(folder: Path) -> None:
    """Keep the bases made last: a base is 60 MB, and editing the builder makes a new one each time."""
    made = sorted(folder.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in made[KEPT:]:
        shutil.rmtree(old)
