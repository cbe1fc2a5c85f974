"""Packing a folder as a container image: an OCI image layout with one layer, the same bytes for the same folder.

Specification: OCI image format 1.1 (image-layout.md, manifest.md, config.md, layer.md). Device nodes are left out, as
no container gets one from its image, and so are sockets.
"""

import gzip
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from image.errors import ImageError

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LEVEL = 6


class _Hashing:
    """Writes on to a file, and knows the digest of what was written."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self.size += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()

    @property
    def hex(self) -> str:
        return self._digest.hexdigest()

    @property
    def file(self) -> IO[bytes]:
        """Itself, for libraries that only write and flush."""
        return cast("IO[bytes]", self)


def pack_folder(rootfs: Path, output: Path, architecture: str, config: Mapping[str, object]) -> str:
    """Pack a folder into a layout.

    Args:
        rootfs: the folder.
        output: the layout's folder, which must not be there yet; it appears when it is whole.
        architecture: as OCI names it, `amd64` or `arm64`.
        config: the `config` object of the image.

    Returns:
        The digest of the manifest.

    Raises:
        ImageError: with the file that cannot be read or written.
    """
    if output.exists():
        raise ImageError(f"cannot write {output}: there is one; name another, or remove it")
    part = output.with_name(f".{output.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        blobs = part / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        digest = _write_layout(rootfs, part, blobs, architecture, config)
        part.rename(output)
    except OSError as error:
        raise ImageError(f"cannot pack {rootfs}: {error.filename or output}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return digest


def _write_layout(
    rootfs: Path, folder: Path, blobs: Path, architecture: str, config: Mapping[str, object]
) -> str:
    packed, diff_id = _write_layer(rootfs, blobs)
    described = {
        "architecture": architecture,
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _blob(blobs, _CONFIG, described),
        "layers": [packed],
    }
    image = _blob(blobs, _MANIFEST, manifest)
    index = {
        "schemaVersion": 2,
        "manifests": [{**image, "annotations": {"org.opencontainers.image.ref.name": "latest"}}],
    }
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(image["digest"])


def _write_layer(rootfs: Path, blobs: Path) -> tuple[dict[str, object], str]:
    """The layer's blob; returns its descriptor and the digest of its tar."""
    unnamed = blobs / "layer"
    with unnamed.open("wb") as file:
        packed = _Hashing(file)
        with gzip.GzipFile("", "wb", _LEVEL, packed.file, mtime=0) as zipped:
            plain = _Hashing(cast("IO[bytes]", zipped))
            with tarfile.open(fileobj=plain.file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for path, name in _walk(rootfs):
                    archive.add(path, name, recursive=False, filter=_kept)
    unnamed.rename(blobs / packed.hex)
    return {"mediaType": _LAYER, "digest": f"sha256:{packed.hex}", "size": packed.size}, plain.hex


def _walk(rootfs: Path) -> Iterator[tuple[Path, str]]:
    """Each file below a folder in order, with its path in the tar; no link is followed."""
    with os.scandir(rootfs) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        yield Path(entry.path), entry.name
        if entry.is_dir(follow_symlinks=False):
            for path, name in _walk(Path(entry.path)):
                yield path, f"{entry.name}/{name}"


def _kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if entry.isdev() and not entry.isfifo():
        return None
    entry.uname = entry.gname = ""
    entry.mtime = int(entry.mtime)
    return entry


def _blob(blobs: Path, media_type: str, document: Mapping[str, object]) -> dict[str, object]:
    content = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
