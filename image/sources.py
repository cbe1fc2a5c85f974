"""From a lock to verified bytes: the cache, then the mirror, then a snapshot, then a new resolution.

Debian's archive drops a version as soon as a newer one is there. What no source has any more is resolved
anew, with the archive's signature checked; the build says so loudly and the outputs list it. A locked build
refuses instead.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from image import debian, fetch, manifest, npm, resolve, wheels
from image import lock as locks
from image.fetch import Cache, FetchError, GoneError, Wanted
from image.files import write_atomically
from image.lock import DebFile, Lock, NpmPackage, Wheel
from image.manifest import Manifest, NodeManifest
from image.report import Report


@dataclass(frozen=True)
class Places:
    """Where a build finds things: the repository, the cache, and the archives (see debian.named_mirror).

    `snapshot` is asked for what the mirror has dropped. `locked` refuses any substitution, `offline` any
    use of the network.
    """

    root: Path
    cache: Path
    mirror: str | None = None
    snapshot: str | None = None
    locked: bool = False
    offline: bool = False


@dataclass(frozen=True)
class Request:
    """What to make: the manifest, the architecture, the folder that it becomes, and where from."""

    manifest: Path
    arch: str
    output: Path
    places: Places


class Sources(msgspec.Struct, frozen=True):
    """The lock that really is built from, and what differs in it from the one asked for."""

    lock: Lock
    substituted: tuple[str, ...] = ()


def load_lock(path: Path, wanted: Manifest, arch: str, root: Path) -> Lock:
    """The lock of a manifest; LockError if it is missing or answers another question."""
    target = locks.path_of(path, arch)
    locked = locks.load(target)
    locks.check_request(locked, manifest.request_checksum(wanted, arch, root), target)
    return locked


def choose_mirror(named: str | None) -> debian.Mirror:
    """The mirror that was named, else the one that this machine's apt uses."""
    return debian.named_mirror(named) if named else debian.machine_mirror()


def obtain(wanted: Manifest, lock: Lock, places: Places, report: Report) -> Sources:
    """Have every file of the lock, or of a substitute for it, in the cache. Raises FetchError, AptError."""
    known = None if places.locked else _remembered(lock, places.cache)
    try:
        _fetch(wanted, known.lock if known else lock, places, report)
    except GoneError as gone:
        if places.locked:
            raise
        present = known.lock if known else lock
        fresh = _resolve(wanted, lock.arch, places)
        known = substitute(lock, present, fresh, [file.name for file in gone.wanted])
        _fetch(wanted, known.lock, places, report)
        _remember(lock, known, places.cache)
    sources = known or Sources(lock)
    for line in sources.substituted:
        report.warn(f"Substituted {line}: the archive no longer has the locked version")
    return sources


def contents(files: Iterable[DebFile | Wheel | NpmPackage], cache: Cache) -> dict[str, bytes]:
    """The verified bytes of files of a lock by checksum."""
    return {file.sha256: cache.read(Wanted(file.name, file.sha256, file.size, ())) for file in files}


def _fetch(wanted: Manifest, lock: Lock, places: Places, report: Report) -> None:
    cache = Cache(places.cache)
    files = [Wanted(file.name, file.sha256, file.size, ()) for file in lock.files]
    for path in cache.drop_damaged(files):
        report.warn(f"Removed the damaged cache file {path}: its bytes do not match its checksum")
    missing = {file.sha256 for file in files if not cache.has(file)}
    if missing and places.offline:
        names = ", ".join(file.name for file in files if file.sha256 in missing)
        raise FetchError(f"cannot fetch {names}: not in the cache {places.cache}, and the build is offline")
    report.expect(sum(file.size for file in files if file.sha256 in missing))
    fetch.fetch_all(_located(wanted, lock, places, missing), cache, report.arrived)


def _located(wanted: Manifest, lock: Lock, places: Places, missing: set[str]) -> list[Wanted]:
    """The missing files with their addresses; apt's configuration, uv and npm are asked only if need be."""
    packages = [file for file in lock.packages if file.sha256 in missing]
    found = [Wanted(file.name, file.sha256, file.size, urls) for file, urls in _addresses(packages, places)]
    if any(wheel.sha256 in missing for wheel in lock.wheels) and isinstance(wanted, NodeManifest):
        urls = _wheel_urls(wanted, lock.arch, places.root)
        found += [
            Wanted(wheel.filename, wheel.sha256, wheel.size, urls.get(wheel.sha256, ()))
            for wheel in lock.wheels
            if wheel.sha256 in missing
        ]
    return [*found, *_npm_packages(lock, missing)]


def _npm_packages(lock: Lock, missing: set[str]) -> list[Wanted]:
    wanted = [one for one in lock.npm if one.sha256 in missing]
    registry = npm.registry() if wanted else ""
    return [Wanted(one.name, one.sha256, one.size, (f"{registry}/{one.path}",)) for one in wanted]


def _addresses(packages: Sequence[DebFile], places: Places) -> Iterable[tuple[DebFile, tuple[str, ...]]]:
    if not packages:
        return
    mirrors = [choose_mirror(places.mirror)]
    if places.snapshot:
        mirrors.append(debian.named_mirror(places.snapshot))
    for file in packages:
        yield file, tuple(mirror.url(file.archive, file.path) for mirror in mirrors)


def _wheel_urls(wanted: NodeManifest, arch: str, root: Path) -> Mapping[str, tuple[str, ...]]:
    requirements = manifest.python_requirements(wanted, root)
    found = wheels.resolve(requirements, root / "requirements.lock", wanted.python.version, arch)
    return {wheel.sha256: (wheel.url,) for wheel in found}


def _resolve(wanted: Manifest, arch: str, places: Places) -> tuple[DebFile, ...]:
    question = resolve.Question(wanted, arch, places.root, places.cache, choose_mirror(places.mirror))
    return resolve.private_apt(question).resolve(manifest.wanted_packages(wanted, arch))


def substitute(lock: Lock, present: Lock, fresh: Iterable[DebFile], gone: Sequence[str]) -> Sources:
    """Replace the packages of `present` that are gone by what apt resolves now, told against `lock`.

    A kernel bears its version in its name, so packages are compared by their names without digits.
    Everything comes from one suite, whose versions fit together. Raises GoneError if apt has no such package.
    """
    by_stem = {_stem(file.name): file for file in fresh}
    new = {name: by_stem.get(_stem(name)) for name in gone}
    lost = [name for name, file in new.items() if file is None]
    if lost:
        raise GoneError([Wanted(name, "", 0, ()) for name in lost])
    packages = tuple(new.get(file.name) or file for file in present.packages)
    changes = tuple(
        f"{old.name} {old.version} by {file.name} {file.version}"
        for old, file in zip(lock.packages, packages, strict=True)
        if old != file
    )
    return Sources(msgspec.structs.replace(lock, packages=packages), changes)


def _stem(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _remembered(lock: Lock, cache: Path) -> Sources | None:
    """What an earlier build substituted for this lock, so that the next one needs no network."""
    try:
        return msgspec.json.decode(_memory(lock, cache).read_bytes(), type=Sources)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _remember(lock: Lock, sources: Sources, cache: Path) -> None:
    write_atomically(_memory(lock, cache), msgspec.json.encode(sources))


def _memory(lock: Lock, cache: Path) -> Path:
    return cache / "substituted" / f"{locks.checksum(lock)}.json"
