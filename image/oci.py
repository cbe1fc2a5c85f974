"""Packing a container image from Debian packages: an OCI image layout, the same bytes for the same lock.

Specification: OCI image format 1.1 (image-layout.md, manifest.md, config.md, layer.md). One layer, a tar
compressed by gzip. The layer's gzip bytes come from the host's zlib, which may differ between hosts; the
diff id, over the tar itself, does not.
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from image import deb, dpkg, manifest, node, sources
from image.fetch import Cache
from image.files import write_folder
from image.lock import Lock
from image.manifest import ContainerManifest
from image.report import Report
from image.sources import Places
from image.sources import Request as Request
from image.tree import Entry, Kind, compose, drop, merged_usr_links, without_empty_folders

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_TYPES = {Kind.FILE: tarfile.REGTYPE, Kind.FOLDER: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE}
_LEVEL = 6


@dataclass(frozen=True)
class _Blob:
    """A file of the layout that is found by its digest."""

    media_type: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def path(self) -> str:
        return f"blobs/sha256/{self.sha256}"

    @property
    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": f"sha256:{self.sha256}", "size": len(self.content)}


def pack(request: Request, report: Report) -> Path:
    """Pack a container image; gives the folder of the layout. Raises ImageError."""
    composed = compose_root(request.manifest, request.arch, request.places, report)
    with report.step("layout"):
        write_folder(request.output, layout(composed.wanted, composed.tree.values(), composed.lock))
    return request.output


class Composed(NamedTuple):
    """The root file system of a container image: by what manifest, of which packages."""

    wanted: ContainerManifest
    lock: Lock
    tree: dict[str, Entry]


def compose_root(path: Path, arch: str, places: Places, report: Report) -> Composed:
    """Fetch a manifest's packages and compose the root file system of them. Raises ImageError."""
    wanted = manifest.load_kind(path, ContainerManifest)
    lock = sources.load_lock(path, wanted, arch, places.root)
    with report.step("fetch"):
        lock = sources.obtain(wanted, lock, places, report).lock
    with report.step("tree"):
        files = sources.contents(lock.files, Cache(places.cache))
        return Composed(wanted, lock, container_tree(wanted, path.parent, lock, files))


def container_tree(
    wanted: ContainerManifest, folder: Path, lock: Lock, files: Mapping[str, bytes]
) -> dict[str, Entry]:
    """The root file system of a container; `files` maps checksums to packages."""
    unpacked = [entry for found in lock.packages for entry in deb.read(files[found.sha256], found.name)]
    kept = drop(unpacked, wanted.files.drop, wanted.files.keep)
    made = manifest.folders(wanted)
    packages = compose(kept)
    needed = [entry.path for entry in made]
    bare = without_empty_folders(packages, ())
    noted = dpkg.database(files[found.sha256] for found in lock.packages) if wanted.packages.database else []
    tree = compose([*made, *bare.values(), *noted, *node.static_files(folder / wanted.static)])
    return without_empty_folders(compose([*tree.values(), *merged_usr_links(tree)]), needed)


def layout(wanted: ContainerManifest, entries: Iterable[Entry], lock: Lock) -> dict[str, bytes]:
    """The files of an OCI image layout by path."""
    archive = layer(entries, lock.epoch)
    packed = _Blob(_LAYER, gzip.compress(archive, _LEVEL, mtime=0))
    config = _Blob(_CONFIG, _json(_config(wanted, lock, hashlib.sha256(archive).hexdigest())))
    described = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": config.descriptor,
        "layers": [packed.descriptor],
    }
    image = _Blob(_MANIFEST, _json(described))
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [_indexed(image, wanted, lock)]}
    return {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        **{blob.path: blob.content for blob in (packed, config, image)},
    }


def _indexed(image: _Blob, wanted: ContainerManifest, lock: Lock) -> dict[str, object]:
    return {
        **image.descriptor,
        "platform": {"architecture": lock.arch, "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": wanted.tag},
    }


def _config(wanted: ContainerManifest, lock: Lock, diff_id: str) -> dict[str, object]:
    container = wanted.container
    created = datetime.fromtimestamp(lock.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "created": created,
        "architecture": lock.arch,
        "os": "linux",
        "config": {
            "User": container.user,
            "ExposedPorts": {port: {} for port in container.ports},
            "Volumes": {folder: {} for folder in container.volumes},
            "Env": list(container.environment),
            "Entrypoint": list(container.entrypoint),
            "Cmd": list(container.command),
            "WorkingDir": container.folder,
            "StopSignal": container.stop_signal,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [{"created": created, "created_by": f"zn image pack {wanted.name}"}],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def layer(entries: Iterable[Entry], epoch: int) -> bytes:
    """The tar of a layer: entries in the given order, times fixed, owners by number only."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            archive.addfile(*_member(entry, epoch))
    return out.getvalue()


def _member(entry: Entry, epoch: int) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    info = tarfile.TarInfo(entry.path)
    info.type, info.mode, info.mtime = _TYPES[entry.kind], entry.mode, epoch
    info.uid, info.gid = entry.owner, entry.group
    if entry.kind is Kind.LINK:
        info.linkname = entry.content.decode()
    if entry.kind is not Kind.FILE:
        return info, None
    info.size = len(entry.content)
    return info, io.BytesIO(entry.content)
