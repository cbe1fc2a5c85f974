"""The base segments of an initramfs, kept between builds under the checksum of all that decides its bytes."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import lz4.version  # type: ignore[import-untyped]  # it has no annotations
import msgspec
import zstandard

from image import (
    bytecode,
    cpio,
    deb,
    elf,
    initramfs,
    kmod,
    licence,
    lock,
    node,
    outputs,
    runtime,
    sources,
    storage,
    tree,
    wheels,
)
from image.contents import Listed, listed
from image.fetch import Cache
from image.files import added_folder, write_durably
from image.lock import Lock
from image.manifest import ManifestError, NodeManifest, folders
from image.report import Report
from image.tree import Tree

# LZ4's strongest.
LEVEL = 12
KEPT = 4
# The parts of this builder that decide the base's bytes, besides this one.
_DECIDING = (bytecode, cpio, deb, elf, initramfs, kmod, licence, node, runtime, storage, tree, wheels)


@dataclass(frozen=True)
class Base:
    """A stored base: its compressed segments, the kernel, what is in it, and a runtime for compiling."""

    folder: Path

    @property
    def runtime(self) -> Path:
        """The folder in which the image's Python runs on the host."""
        return self.folder / "runtime"

    def segment(self) -> bytes:
        """The compressed archives."""
        return (self.folder / "segments").read_bytes()

    def kernel(self) -> bytes:
        """The bootable kernel."""
        return (self.folder / "vmlinuz").read_bytes()

    def listing(self) -> tuple[Listed, ...]:
        """What is in the segments."""
        return self._listed("listing.json")

    def storage(self) -> tuple[Listed, ...]:
        """What is in the storage part, with the paths that it has once it is mounted."""
        return self._listed("storage.json")

    def _listed(self, name: str) -> tuple[Listed, ...]:
        return msgspec.json.decode((self.folder / name).read_bytes(), type=tuple[Listed, ...])

    def licences(self) -> dict[str, str]:
        """What the packages say of their licences, by package."""
        return msgspec.json.decode((self.folder / "licences.json").read_bytes(), type=dict[str, str])


def key(manifest: NodeManifest, locked: Lock) -> str:
    """The checksum of all that decides the base: the lock, the manifest, the compressor and this builder."""
    deciding = (
        manifest.python,
        manifest.kernel.modules,
        manifest.kernel.before,
        manifest.storage,
        manifest.files,
        manifest.folders,
    )
    total = hashlib.sha256(lock.encode(locked) + msgspec.json.encode(deciding))
    total.update(f"lz4 {lz4.version.version} {LEVEL}, zstd {zstandard.ZSTD_VERSION}".encode())
    for module in _DECIDING:
        total.update(Path(str(module.__file__)).read_bytes())
    return total.hexdigest()


def make(manifest: NodeManifest, locked: Lock, cache: Path, report: Report) -> Base:
    """The base of an image from the cache, or built from package files that the cache has."""
    folder = cache / "base" / key(manifest, locked)
    if folder.exists() and outputs.mismatches(folder):
        report.warn(f"Removed the damaged base {folder}: its files do not match their checksums")
        shutil.rmtree(folder)
    if not folder.exists():
        with added_folder(folder) as new:
            _build(manifest, locked, sources.contents(locked.files, Cache(cache)), new)
        _prune(folder.parent)
    return Base(folder)


def _build(manifest: NodeManifest, locked: Lock, contents: Mapping[str, bytes], folder: Path) -> None:
    unpacked = node.unpack(locked, contents)
    sources = node.base_sources(manifest, unpacked)
    programs = folder / "runtime"
    stored = storage.tree(unpacked, manifest.storage, sources)
    runtime.write([*sources, *stored.values()], programs)
    entries = node.compiled(sources, programs, locked.arch, manifest.python.version)
    packed, mount_point = storage.pack(stored, programs, locked.arch, locked.epoch)
    composed = node.base_tree([*entries, packed], [*folders(manifest), mount_point])
    licences = {**licence.of_debian(unpacked), **licence.of_wheels(unpacked)}
    files = {
        "segments": _segments(composed, manifest.files.dense, locked.epoch),
        "vmlinuz": kmod.kernel(unpacked),
        "listing.json": msgspec.json.encode(listed(composed.values())),
        "storage.json": msgspec.json.encode(listed(storage.mounted(stored))),
        "licences.json": msgspec.json.encode(licences),
    }
    for name, content in {**files, outputs.SUMS: outputs.checksums(files)}.items():
        write_durably(folder / name, content)


def _segments(composed: Tree, dense: Sequence[str], epoch: int) -> bytes:
    """The files that `dense` names in an archive of their own, with the folders above them, then all else."""
    every = list(composed.values())
    for glob in dense:
        if len(tree.drop(every, (glob,), ())) == len(every):
            raise ManifestError(f"cannot find {glob}: no file of the base fits it; correct [files] dense")
    rest = tree.drop(every, dense, ())
    chosen = composed.keys() - {entry.path for entry in rest}
    above = {str(parent) for path in chosen for parent in PurePosixPath(path).parents}
    first = [entry for path, entry in composed.items() if path in chosen | above]
    packed = initramfs.dense_segment(first, epoch) if chosen else b""
    return packed + initramfs.segment(rest, epoch, LEVEL)


def _prune(folder: Path) -> None:
    """Keep the bases made last: a base is 60 MB, and editing the builder makes a new one each time."""
    made = sorted(folder.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in made[KEPT:]:
        shutil.rmtree(old)
