"""The storage part: what a node runs only after its boot, as one compressed EROFS file in the base.

Drivers of disks, file systems, ciphers, and the programs that make and look at them; what containers and the clock
need: 35 MB that a boot must neither unpack nor keep in memory. The node mounts the file when it needs it
(core0/linux/tools.py), at a folder that is empty until then. docs/decisions/0009-storage-in-one-erofs.md has the
options in numbers.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from core0.wire import paths
from image import elf, kmod, node, oci, runtime
from image.contents import STORAGE_FILE
from image.errors import ImageError
from image.manifest import Storage
from image.tree import Entry, Kind, Tree, compose, drop, file, folder, without_empty_folders

FILE, MOUNT = STORAGE_FILE, paths.STORAGE.lstrip("/")
_ORIGIN = "storage"
# LZMA is a tenth smaller than Zstandard and made in a tenth of the time; it is unpacked once, page by page.
_OPTIONS = (
    "--quiet",
    "-zlzma,9",
    "-C262144",
    "-Efragments",  # the ends of files and small ones share blocks: 0.3 MB less
    "--all-root",
    "-x-1",
    "-Uclear",
    "--workers=2",
)


class StorageError(ImageError):
    """The storage part cannot be made: a file or library is missing, or mkfs.erofs refuses."""


def tree(unpacked: Sequence[Entry], wanted: Storage, base: Iterable[Entry]) -> dict[str, Entry]:
    """The file system of the storage part.

    Args:
        unpacked: what all packages bring.
        wanted: which of them are the storage part's, the files to take of these, and the kernel modules.
        base: what the base has. Its libraries and modules are not taken twice.
    """
    there = {entry.path: entry for entry in base}
    files = _chosen([entry for entry in unpacked if entry.origin in wanted.packages], wanted)
    modules = kmod.take(unpacked, wanted.modules, wanted.before, there)
    made = without_empty_folders(compose([*map(node.loadable, files), *modules]), ())
    _require_libraries(made, there)
    return made


def _chosen(ours: Sequence[Entry], wanted: Storage) -> list[Entry]:
    """The files that the manifest names; each glob must find one, so that a renamed program is not just missing."""
    for glob in wanted.files:
        if len(drop(ours, (glob,), ())) == len(ours):
            raise StorageError(f"cannot find {glob}: no package of [storage] brings it; correct its files")
    left = {entry.path for entry in drop(ours, wanted.files, ())}
    return [entry for entry in ours if entry.path not in left]


def _require_libraries(made: Tree, base: Mapping[str, Entry]) -> None:
    """Refuse a program whose libraries are neither here nor in the base: it would only fail on a node."""
    names = {PurePosixPath(path).name for path in (*made, *base)}
    for entry in made.values():
        if entry.kind is Kind.FILE and elf.is_elf(entry.content):
            for needed in elf.needed(entry.content):
                if needed not in names:
                    raise StorageError(
                        f"cannot use /{entry.path}: it needs {needed}, which neither the base nor [storage] has; "
                        "add it to the files of [storage]"
                    )


def pack(made: Tree, programs: Path, arch: str, epoch: int) -> tuple[Entry, Entry]:
    """The file of the storage part, and the empty folder to mount it at, for the base.

    Args:
        made: the file system.
        programs: where the image's mkfs.erofs runs.
        arch: for which architecture it is.
        epoch: the time of all files.
    """
    with tempfile.TemporaryDirectory(prefix="zn-storage-") as scratch:
        target = Path(scratch) / "storage.erofs"
        command = [
            *runtime.command(programs, arch, "mkfs.erofs"),
            *_OPTIONS,
            f"-T{epoch}",
            "--tar=f",
            str(target),
        ]
        done = runtime.run(command, oci.layer(made.values(), epoch))
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise StorageError(f"cannot make {FILE}: mkfs.erofs: {said[-1]}")
        return file(FILE, target.read_bytes(), _ORIGIN), folder(MOUNT, _ORIGIN)


def mounted(made: Tree) -> list[Entry]:
    """The entries as a node has them once the file is mounted."""
    return [replace(entry, path=f"{MOUNT}/{path}") for path, entry in made.items()]
