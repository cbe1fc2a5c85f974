"""Making a lock: apt and uv answer a manifest, in files with checksums."""

from dataclasses import dataclass
from pathlib import Path

from image import debian, fetch, manifest, wheels
from image.debian import Apt
from image.lock import SCHEMA, Lock, Wheel
from image.manifest import Manifest, NodeManifest


@dataclass(frozen=True)
class Question:
    """What to lock: the manifest on one architecture, with the repository's root for its references."""

    manifest: Manifest
    arch: str
    root: Path
    cache: Path
    mirror: debian.Mirror


def resolve(question: Question) -> Lock:
    """Ask apt and uv. Raises AptError, WheelError or FetchError."""
    apt = private_apt(question)
    return Lock(
        schema=SCHEMA,
        name=question.manifest.name,
        arch=question.arch,
        request=manifest.request_checksum(question.manifest, question.arch, question.root),
        epoch=apt.epoch(),
        packages=apt.resolve(manifest.wanted_packages(question.manifest, question.arch)),
        wheels=_wheels(question),
    )


def private_apt(question: Question) -> Apt:
    """Set up apt with fresh indexes in a root below the cache."""
    suite = question.manifest.suite
    mirror = debian.served(question.mirror, suite)
    apt = Apt(question.cache / "apt" / f"{suite}-{question.arch}", mirror, suite, question.arch)
    apt.update(question.manifest.packages.assume)
    return apt


def _wheels(question: Question) -> tuple[Wheel, ...]:
    """The Python packages of a node image; uv names no sizes, so the registry is asked for them."""
    if not isinstance(question.manifest, NodeManifest):
        return ()
    found = wheels.resolve(
        manifest.python_requirements(question.manifest, question.root),
        question.root / "requirements.lock",
        question.manifest.python.version,
        question.arch,
    )
    sizes = fetch.sizes([wheel.url for wheel in found])
    return tuple(
        Wheel(wheel.name, wheel.version, wheel.filename, size, wheel.sha256)
        for wheel, size in zip(found, sizes, strict=True)
    )
