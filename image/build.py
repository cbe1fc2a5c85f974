"""Building a node image: from a lock to a folder with all that a netboot server offers.

Needs no root, runs no maintainer script. The same lock and sources give the same bytes in every output.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from image import base, contents, debian, fetch, initramfs, lock, manifest, node, outputs, sbom, wheels
from image.base import Base
from image.contents import Contents
from image.fetch import Cache, Wanted
from image.files import replaced_folder
from image.lock import Lock
from image.manifest import NodeManifest
from image.node import Identity
from image.tree import Entry, digest

OWN_LEVEL = 10
VERSION = "0.1.0"


@dataclass(frozen=True)
class Request:
    """What to build and from where: paths are absolute, `output` is the folder that the image becomes."""

    root: Path
    manifest: Path
    arch: str
    output: Path
    cache: Path
    mirror: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class _Own:
    """Our part of an image and what it says about itself."""

    identity: Identity
    tree: Mapping[str, Entry]


class Steps:
    """Times of a build's steps, told as they end. The default tells nobody."""

    def __init__(self, tell: Callable[[str, float], None] = lambda _name, _seconds: None) -> None:
        self._tell = tell

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        start = perf_counter()
        yield
        self._tell(name, perf_counter() - start)


def build(request: Request, steps: Steps | None = None) -> Path:
    """Build an image; gives the output folder, which was replaced as a whole."""
    steps = steps or Steps()
    wanted = manifest.load_kind(request.manifest, NodeManifest)
    locked = _load_lock(request, wanted)
    cache = Cache(request.cache)
    with steps.step("base"):
        made = base.make(wanted, locked, request.cache, lambda: _contents(request, wanted, locked, cache))
    with steps.step("own"):
        own = _own(request, wanted, locked, made)
    with steps.step("write"):
        _write(request.output, _outputs(wanted, locked, made, own))
    return request.output


def _load_lock(request: Request, wanted: NodeManifest) -> Lock:
    path = lock.path_of(request.manifest, request.arch)
    locked = lock.load(path)
    lock.check_request(locked, manifest.request_checksum(wanted, request.arch, request.root), path)
    return locked


def _contents(request: Request, wanted: NodeManifest, locked: Lock, cache: Cache) -> Mapping[str, bytes]:
    """Every file of a lock by its checksum, fetched if need be, verified."""
    files = _locate(request, wanted, locked, cache)
    cache.drop_damaged(files)
    fetch.fetch_all(files, cache)
    return {file.sha256: cache.read(file) for file in files}


def _locate(request: Request, wanted: NodeManifest, locked: Lock, cache: Cache) -> list[Wanted]:
    """Where each file of a lock is now; asks apt and uv only if the cache lacks something."""
    packages = [Wanted(file.name, file.sha256, file.size, ()) for file in locked.packages]
    if not all(map(cache.has, packages)):
        mirror = choose_mirror(request.mirror)
        packages = [
            Wanted(file.name, file.sha256, file.size, (mirror.url(file.archive, file.path),))
            for file in locked.packages
        ]
    found = [Wanted(wheel.filename, wheel.sha256, wheel.size, ()) for wheel in locked.wheels]
    if not all(map(cache.has, found)):
        urls = wheel_urls(request, wanted)
        found = [Wanted(file.name, file.sha256, file.size, urls[file.sha256]) for file in found]
    return [*packages, *found]


def choose_mirror(named: str | None) -> debian.Mirror:
    """The mirror that was named, else the one that this machine's apt uses."""
    return debian.with_security(named) if named else debian.machine_mirror()


def wheel_urls(request: Request, wanted: NodeManifest) -> dict[str, tuple[str, ...]]:
    """Where uv finds the wheels of the lock, by checksum."""
    requirements = manifest.python_requirements(wanted, request.root)
    constraints = request.root / "requirements.lock"
    found = wheels.resolve(requirements, constraints, wanted.python.version, request.arch)
    return {wheel.sha256: (wheel.url,) for wheel in found}


def _own(request: Request, wanted: NodeManifest, locked: Lock, made: Base) -> _Own:
    folder = request.manifest.parent
    sources = [
        *node.static_files(folder / wanted.static),
        *node.own_sources(request.root, wanted.source),
        node.container_filter(folder / wanted.seccomp, locked.arch),
    ]
    entries = node.compiled(sources, made.runtime, locked.arch, wanted.python.version)
    identity = Identity(VERSION, locked.arch, wanted.name, _build_id(made, entries), locked.epoch)
    return _Own(identity, node.own_tree(entries, identity, wanted.python.version))


def _build_id(made: Base, entries: Iterable[Entry]) -> str:
    """The build id comes from the content, never from the time."""
    total = hashlib.sha256(made.segment())
    total.update(made.kernel())
    total.update(digest({entry.path: entry for entry in entries}).encode())
    return total.hexdigest()[:16]


def _outputs(wanted: NodeManifest, locked: Lock, made: Base, own: _Own) -> dict[str, bytes]:
    """Every file of the build folder by name; each of the later ones describes those before."""
    listing = made.listing()
    added = node.without_folders_of(own.tree, (there.path for there in listing))
    segment = initramfs.segment(added, locked.epoch, OWN_LEVEL, first_inode=len(listing) + 1)
    boot = {
        "vmlinuz": made.kernel(),
        "initramfs": made.segment() + segment,
        "cmdline": f"{wanted.kernel.cmdline}\n".encode(),
        "boot.ipxe": outputs.ipxe_script(wanted.kernel.cmdline),
    }
    files = (*listing, *contents.listed(added))
    described = Contents(
        name=wanted.name,
        arch=locked.arch,
        version=VERSION,
        build_id=own.identity.build_id,
        epoch=locked.epoch,
        outputs={name: contents.output(content) for name, content in boot.items()},
        packages=contents.packages(locked, files, made.licences()),
        files=files,
    )
    every = {**boot, "contents.json": contents.encode(described), "sbom.spdx.json": sbom.encode(described)}
    return {**every, "SHA256SUMS": outputs.checksums(every)}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    with replaced_folder(folder) as new:
        for name, content in files.items():
            (new / name).write_bytes(content)
