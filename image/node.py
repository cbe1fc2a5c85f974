"""The two trees of a node image: the base (Debian, wheels, kernel modules) and our own part.

The base changes with the lock, our part with every edit. They become two segments of one initramfs, so that
a rebuild after an edit compresses our part only. The own part comes last and ends with the sentinel file:
a machine with too little memory unpacks a truncated archive, and PID 1 sees at once that the end is missing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from image import bytecode, deb, elf, kmod, seccomp, wheels
from image.lock import Lock
from image.manifest import NodeManifest
from image.tree import Entry, Kind, Tree, compose, drop, file, link, merged_usr_links, without_empty_folders

ZERONODE = "usr/lib/zeronode"
SITE = f"{ZERONODE}/site"
SENTINEL = "etc/zn/sentinel"
# Where each Python module of the image is, for core0.importer.
MODULES = f"{ZERONODE}/modules"
OWN = "zeronode"

# What is open before PID 1 can mount devtmpfs: /dev/console by the kernel, /dev/null by Python, and /dev/urandom by
# Python, which seeds its hashes from there while getrandom(2) would block: on a processor without RDRAND.
DEVICES: Mapping[str, tuple[int, int]] = {"dev/console": (5, 1), "dev/null": (1, 3), "dev/urandom": (1, 9)}

_INIT = f"""\
#!/usr/bin/python{{python}} -ISB
import sys
sys.path += ["/{SITE}", "/{ZERONODE}"]
from core0.importer import install
install("/{MODULES}")
from core0.__main__ import main
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Identity:
    """What an image says about itself: in os-release and in /etc/zn/image.json."""

    version: str
    arch: str
    flavour: str
    build_id: str
    epoch: int


def unpack(lock: Lock, contents: Mapping[str, bytes]) -> list[Entry]:
    """Everything that the packages of a lock bring; `contents` maps checksums to their files."""
    debian = [entry for found in lock.packages for entry in deb.read(contents[found.sha256], found.name)]
    site = [entry for found in lock.wheels for entry in wheels.read(contents[found.sha256], SITE, found.name)]
    return [*debian, *site]


def base_sources(manifest: NodeManifest, unpacked: Sequence[Entry]) -> list[Entry]:
    """What of the packages goes into the base, before byte-compiling; the storage part's packages do not."""
    modules = kmod.take(unpacked, manifest.kernel.modules, manifest.kernel.before)
    apart = set(manifest.storage.packages)
    system = [
        entry
        for entry in unpacked
        if not entry.path.startswith("usr/lib/modules/") and entry.origin not in apart
    ]
    kept = drop(system, manifest.files.drop, manifest.files.keep)
    return [*map(loadable, kept), *modules]


def loadable(entry: Entry) -> Entry:
    """The entry without what the dynamic loader never reads: a fifth of all bytes, mostly of wheels."""
    if entry.kind is not Kind.FILE or not elf.is_elf(entry.content):
        return entry
    return replace(entry, content=elf.loadable(entry.content))


def base_tree(sources: Iterable[Entry], folders: Iterable[Entry]) -> dict[str, Entry]:
    """The composed base; `folders` stay although they are empty."""
    wanted = list(folders)
    tree = compose([*sources, *wanted])
    tree = compose([*tree.values(), *merged_usr_links(tree), *_devices()])
    return without_empty_folders(tree, [entry.path for entry in wanted])


def _devices() -> Iterator[Entry]:
    for path, numbers in DEVICES.items():
        yield Entry(path, Kind.DEVICE, 0o600 if path.endswith("console") else 0o666, b"", OWN, numbers)


def compiled(tree: Iterable[Entry], runtime: Path, arch: str, python: str) -> list[Entry]:
    """The entries with Python modules as byte code instead of source."""
    entries = list(tree)
    sources = [entry for entry in entries if is_module(entry)]
    rest = [entry for entry in entries if not is_module(entry)]
    return [*rest, *bytecode.compile_sources(sources, runtime, arch, python)]


def is_module(entry: Entry) -> bool:
    """Whether an entry is the source of a Python module (and not a script such as /init)."""
    return entry.kind is Kind.FILE and entry.path.endswith(".py") and entry.path.startswith("usr/lib/")


def own_sources(root: Path, packages: Sequence[str], apart: str) -> list[Entry]:
    """Our packages as they stand in the repository, data files included but for those of the folder `apart`."""
    paths = sorted(path for package in packages for path in (root / package).rglob("*") if path.is_file())
    return [
        file(f"{ZERONODE}/{path.relative_to(root)}", path.read_bytes(), OWN)
        for path in paths
        if "__pycache__" not in path.parts
        and not path.name.startswith(".")
        and not path.is_relative_to(root / apart)
    ]


# The system call filters: what containers start with, what carries out strangers' streams, what fetches their images.
_FILTERS: Mapping[str, str] = {
    "policy.toml": "seccomp.bpf",
    "receive.toml": "receive.bpf",
    "pull.toml": "pull.bpf",
}


def system_call_filters(folder: Path, arch: str) -> Iterator[Entry]:
    """The filters of a folder's policies."""
    numbers = seccomp.load_numbers(folder / f"syscalls.{arch}.tsv")
    for policy, name in _FILTERS.items():
        program = seccomp.build(seccomp.load_policy(folder / policy), numbers, arch)
        yield file(f"{ZERONODE}/{name}", program, OWN)


def static_files(static: Path) -> list[Entry]:
    """The files and links of a folder as they are."""
    paths = sorted(path for path in static.rglob("*") if path.is_symlink() or path.is_file())
    return [_static(path, str(path.relative_to(static))) for path in paths]


def _static(path: Path, name: str) -> Entry:
    if path.is_symlink():
        return link(name, str(path.readlink()), "static")
    # git keeps of a mode only whether the file can be executed.
    mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    return file(name, path.read_bytes(), "static", mode)


def own_tree(
    entries: Sequence[Entry], base: Iterable[str], identity: Identity, python: str
) -> dict[str, Entry]:
    """Our part of the image, the sentinel last; `base` are the paths of the other part."""
    init = file("init", _INIT.format(python=python).encode(), OWN, 0o755)
    paths = (*base, *(entry.path for entry in entries))
    listing = file(MODULES, module_listing(paths, python).encode(), OWN)
    tree = compose([*entries, init, listing, *_identity_files(identity)])
    return {**tree, SENTINEL: file(SENTINEL, f"{identity.build_id}\n".encode(), OWN)}


def module_listing(paths: Iterable[str], python: str) -> str:
    """A line for each Python module of an image: its full name and its file. Of two, the first of sys.path counts."""
    library = f"usr/lib/python{python}"
    # those within others before these
    folders = (f"{library}/lib-dynload/", f"{library}/", f"{SITE}/", f"{ZERONODE}/")
    found: dict[str, tuple[int, str]] = {}
    for path in paths:
        folder = next((folder for folder in folders if path.startswith(folder)), None)
        if folder and path.endswith((".pyc", ".so")):
            name = _module_name(path.removeprefix(folder))
            rank = folders.index(folder)
            found[name] = min(found.get(name, (rank, path)), (rank, path))
    return "".join(f"{name} /{path}\n" for name, (_, path) in sorted(found.items()))


def _module_name(file: str) -> str:
    """`a/b.pyc` is a.b, `a/__init__.pyc` is a, `a/b.cpython-313-x86_64-linux-gnu.so` is a.b."""
    *packages, last = file.split("/")
    stem = last.partition(".")[0]
    return ".".join(packages if stem == "__init__" else [*packages, stem])


def _identity_files(identity: Identity) -> list[Entry]:
    facts = {
        "version": identity.version,
        "arch": identity.arch,
        "flavour": identity.flavour,
        "build_id": identity.build_id,
        "source_date_epoch": identity.epoch,
    }
    release = (
        f'NAME="Zeronode"\nID=zeronode\nVERSION="{identity.version}"\nVERSION_ID={identity.version}\n'
        f'PRETTY_NAME="Zeronode {identity.version}"\nIMAGE_ID={identity.arch}-{identity.flavour}\n'
        f"BUILD_ID={identity.build_id}\n"
    )
    return [
        file("etc/os-release", release.encode(), OWN),
        file("etc/zn/image.json", json.dumps(facts, indent=1).encode() + b"\n", OWN),
    ]


def without_folders_of(tree: Tree, base: Iterable[str]) -> list[Entry]:
    """The entries of a later segment without folders that an earlier one has made."""
    made = set(base)
    return [entry for entry in tree.values() if entry.kind is not Kind.FOLDER or entry.path not in made]
