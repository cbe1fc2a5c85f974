"""Building a node image: from a lock to a folder with all that a netboot server offers.

Needs no root, runs no maintainer script. The same lock and sources give the same bytes in every output.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from image import base, cpio, debian, fetch, lock, manifest, node, outputs, wheels
from image.base import Base
from image.fetch import Cache, Wanted
from image.files import replaced_folder
from image.lock import Lock
from image.manifest import NodeManifest
from image.node import Identity
from image.tree import Entry, digest

OWN_LEVEL = 10
FLAVOURS_VERSION = "0.1.0"


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
        tree = _own(request, wanted, locked, made)
    with steps.step("write"):
        _write(request, wanted, locked, made, tree)
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


def _own(request: Request, wanted: NodeManifest, locked: Lock, made: Base) -> dict[str, Entry]:
    static = node.static_files(request.manifest.parent / wanted.static)
    sources = node.own_sources(request.root, wanted.source)
    entries = node.compiled([*static, *sources], made.runtime, locked.arch, wanted.python.version)
    return node.own_tree(entries, _identity(wanted, locked, made, entries), wanted.python.version)


def _identity(wanted: NodeManifest, locked: Lock, made: Base, entries: Iterable[Entry]) -> Identity:
    """The build id comes from the content, never from the time."""
    total = hashlib.sha256(made.segment())
    total.update(made.kernel())
    total.update(digest({entry.path: entry for entry in entries}).encode())
    return Identity(FLAVOURS_VERSION, locked.arch, wanted.name, total.hexdigest()[:16], locked.epoch)


def _write(
    request: Request, wanted: NodeManifest, locked: Lock, made: Base, tree: Mapping[str, Entry]
) -> None:
    listing = made.listing()
    own = node.without_folders_of(tree, (there.path for there in listing))
    segment = base.compress(cpio.pack(own, locked.epoch, first_inode=len(listing) + 1), OWN_LEVEL)
    files = {
        "vmlinuz": made.kernel(),
        "initramfs": made.segment() + segment,
        "cmdline": f"{wanted.kernel.cmdline}\n".encode(),
        "boot.ipxe": outputs.ipxe_script(wanted.kernel.cmdline),
    }
    with replaced_folder(request.output) as folder:
        for name, content in {**files, "SHA256SUMS": outputs.checksums(files)}.items():
            (folder / name).write_bytes(content)
