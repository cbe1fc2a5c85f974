"""OCI image layouts for booted nodes, made of Debian's static busybox."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
SERVES_WWW = {"Cmd": ["/bin/httpd", "-f", "-p", "80", "-h", "/www"], "Env": ["COLOUR=green"]}


def blob(folder: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def layer_of_busybox() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "www"):
            tar.addfile(folder_entry(name))
        tar.addfile(file_entry("bin/busybox", BUSYBOX.read_bytes(), 0o755), io.BytesIO(BUSYBOX.read_bytes()))
        for name in (
            "sh",
            "cat",
            "httpd",
            "id",
            "ls",
            "mount",
            "ping",
            "sleep",
            "unshare",
            "nc",
            "dd",
            "cp",
            "chown",
            "grep",
        ):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        page = b"served from a container\n"
        tar.addfile(file_entry("www/index.html", page, 0o644), io.BytesIO(page))
        users = b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/www:/bin/sh\n"
        tar.addfile(file_entry("etc/passwd", users, 0o644), io.BytesIO(users))
    return archive.getvalue()


def folder_entry(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def file_entry(name: str, content: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    return entry


def write_layout(
    folder: Path, tar: bytes, architecture: str = "amd64", run: Mapping[str, Any] = SERVES_WWW
) -> Path:
    """An OCI image layout with one layer; returns the layer's blob. `run` is how a container of it starts."""
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        **blob(folder, gzip.compress(tar, 1, mtime=0)),
    }
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": dict(run),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            **blob(folder, json.dumps(config).encode()),
        },
        "layers": [layer],
    }
    described = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        **blob(folder, json.dumps(manifest).encode()),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
