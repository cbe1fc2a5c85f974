"""The manifests: what an image is made of, as a person writes it in TOML.

Two kinds share their vocabulary: a node image (kernel + initramfs) and a container image (OCI layout).
Unknown keys are refused, so that a typing error cannot silently drop something from an image.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from image import tree
from image.errors import ImageError
from image.tree import Entry

ARCHITECTURES = ("amd64", "arm64")


class ManifestError(ImageError):
    """A manifest cannot be used; the message names the file and the key."""


class Packages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Debian packages: what is wanted, and what apt shall take as already there.

    `assume` stops apt from adding what only maintainer scripts need; nothing of it is in the image. With `database` a
    container's image says in dpkg's own files what it has, so that apt and dpkg can be used there.
    """

    install: tuple[str, ...]
    assume: tuple[str, ...] = ()
    database: bool = False


class Python(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The image's interpreter and where the list of its packages stands ([project] dependencies)."""

    version: str
    project: str


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The kernel's package ({arch} is replaced), the modules wanted from it, and its command line.

    `before` are modules to load before some of them.
    """

    package: str
    modules: tuple[str, ...]
    cmdline: str
    before: Mapping[str, tuple[str, ...]] = {}


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node needs a moment after its boot, or never: one file system beside the root, mounted late.

    `packages` are Debian packages of which only `files` (globs) are taken, and nothing into the root; `modules`
    are kernel modules, `before` those to load before some of them.
    """

    packages: tuple[str, ...]
    files: tuple[str, ...]
    modules: tuple[str, ...]
    before: Mapping[str, tuple[str, ...]] = {}


class Console(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Core-X's web console: its own files are in the folder `source` of the repository.

    `packages` are npm packages (`NAME` or `NAME@RANGE`), of which `files` takes some: the path in the console by
    `PACKAGE:PATH`.
    """

    source: str
    packages: tuple[str, ...]
    files: Mapping[str, str]


class Files(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Globs over paths without a leading slash: `drop` removes, `keep` protects from `drop`.

    `dense` names what a node's base packs as small as it can be, for a slower boot.
    `*` also matches slashes, as in fnmatch(3) without FNM_PATHNAME.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()


class Folder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty folder that the image starts with."""

    path: str
    mode: int = 0o755
    owner: int = 0
    group: int = 0


class NodeManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="node"):
    """A bootable image. `source` names our own packages.

    `static` and `seccomp` are folders beside the manifest: files as they are, and the policies of the filters.
    """

    name: str
    suite: str
    packages: Packages
    python: Python
    kernel: Kernel
    source: tuple[str, ...]
    static: str
    seccomp: str
    storage: Storage
    console: Console
    files: Files = Files()
    folders: tuple[Folder, ...] = ()


class Container(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The run-time half of a container image, in the words of the OCI image configuration."""

    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    user: str = "0:0"
    folder: str = "/"
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"


class ContainerManifest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="container"
):
    """A container image packed from Debian packages."""

    name: str
    tag: str
    suite: str
    packages: Packages
    container: Container
    static: str
    files: Files = Files()
    folders: tuple[Folder, ...] = ()


Manifest = NodeManifest | ContainerManifest
_Kind = TypeVar("_Kind", NodeManifest, ContainerManifest)


def load(path: Path) -> Manifest:
    """Read a manifest; ManifestError names the key that is unknown, missing or of the wrong type."""
    try:
        return msgspec.convert(_read(path), NodeManifest | ContainerManifest)
    except msgspec.ValidationError as error:
        raise ManifestError(f"cannot use manifest {path}: {error}; see docs/image.md for the keys") from error


def _read(path: Path) -> dict[str, Any]:
    """A manifest's tables; one that `extends` another of its folder has that one's, changed by its own."""
    own = _toml(path)
    other = own.pop("extends", None)
    if other is None:
        return own
    if not isinstance(other, str) or Path(other).name != other:
        raise ManifestError(f"cannot use manifest {path}: extends must name another manifest of its folder")
    base = _toml(path.with_name(other))
    if "extends" in base:
        raise ManifestError(f"cannot use manifest {path}: {other}, which it extends, extends one itself")
    return _merged(base, own)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"cannot read manifest {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read manifest {path}: not TOML: {error}") from error


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Tables of both are one, lists of both one behind the other; of all else it is the own that counts."""
    merged = dict(base)
    for key, value in own.items():
        there = base.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            merged[key] = _merged(there, value)
        elif isinstance(value, list) and isinstance(there, list):
            merged[key] = [*there, *value]
        else:
            merged[key] = value
    return merged


def load_kind(path: Path, kind: type[_Kind]) -> _Kind:
    """Read a manifest of one kind; ManifestError if it is of the other."""
    manifest = load(path)
    if not isinstance(manifest, kind):
        wanted = kind.__struct_config__.tag
        raise ManifestError(f"cannot use manifest {path}: its kind is not {wanted!r}")
    return manifest


def wanted_packages(manifest: Manifest, arch: str) -> tuple[str, ...]:
    """The Debian packages to ask apt for on one architecture, the kernel's included."""
    if isinstance(manifest, ContainerManifest):
        return manifest.packages.install
    kernel = manifest.kernel.package.format(arch=arch)
    return (*manifest.packages.install, *manifest.storage.packages, kernel)


def folders(manifest: Manifest) -> list[Entry]:
    """The folders that a manifest asks for."""
    return [
        replace(tree.folder(new.path, "manifest", new.mode), owner=new.owner, group=new.group)
        for new in manifest.folders
    ]


def python_requirements(manifest: NodeManifest, root: Path) -> tuple[str, ...]:
    """The `[project] dependencies` of the file that the manifest names, relative to the repository's root."""
    path = root / manifest.python.project
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    return tuple(project["dependencies"])


def request_checksum(manifest: Manifest, arch: str, root: Path) -> str:
    """SHA-256 of what a lock answers: suite, packages, Python packages and npm packages.

    Globs, folders and modules are not part of it: changing them needs a build, not a new resolution.
    """
    others: object = None
    if isinstance(manifest, NodeManifest):
        others = (manifest.python, python_requirements(manifest, root), manifest.console.packages)
    request = (manifest.suite, arch, wanted_packages(manifest, arch), manifest.packages.assume, others)
    return hashlib.sha256(msgspec.json.encode(request)).hexdigest()
