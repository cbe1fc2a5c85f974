"""Making a lock: apt, uv and npm answer a manifest, in files with checksums."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from image import debian, fetch, manifest, npm, wheels
from image.debian import Apt
from image.lock import SCHEMA, Lock, NpmPackage, Wheel
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
    """Ask apt, uv and npm. Raises AptError, WheelError, NpmError or FetchError."""
    apt = private_apt(question)
    return Lock(
        schema=SCHEMA,
        name=question.manifest.name,
        arch=question.arch,
        request=manifest.request_checksum(question.manifest, question.arch, question.root),
        epoch=apt.epoch(),
        packages=apt.resolve(manifest.wanted_packages(question.manifest, question.arch)),
        wheels=_wheels(question),
        npm=npm_packages(question.manifest),
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


def npm_packages(wanted: Manifest) -> tuple[NpmPackage, ...]:
    """The npm packages of a node image, which its console has files of. Raises NpmError."""
    if not isinstance(wanted, NodeManifest):
        return ()
    return tuple(
        NpmPackage(
            one.name,
            one.version,
            npm.path(one.name, one.version),
            len(one.content),
            hashlib.sha256(one.content).hexdigest(),
        )
        for one in npm.resolve(wanted.console.packages)
    )
