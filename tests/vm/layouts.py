"""OCI image layouts for booted nodes, made of Debian's static busybox."""

import gzip
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
# Of Debian's perl-base, which every Debian has: it has any socket that there is.
PERL = "/usr/bin/perl"
APPLETS = [
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
]
SERVES_WWW = {"Cmd": ["/bin/httpd", "-f", "-p", "80", "-h", "/www"], "Env": ["COLOUR=green"]}


def blob(folder: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def layer_of_busybox(*programs: str) -> bytes:
    """A root with a shell and a page to serve; and with these programs of this machine, with their libraries."""
    files = {
        BUSYBOX: Path("bin/busybox"),
        **{path: path.relative_to("/") for path in _with_libraries(programs)},
    }
    folders = {parent for path in files.values() for parent in path.parents[:-1]}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in sorted({"bin", "etc", "tmp", "www"} | {str(one) for one in folders}):
            tar.addfile(folder_entry(name))
        for path, name in files.items():
            tar.addfile(file_entry(str(name), path.read_bytes(), 0o755), io.BytesIO(path.read_bytes()))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        page = b"served from a container\n"
        tar.addfile(file_entry("www/index.html", page, 0o644), io.BytesIO(page))
        users = b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/www:/bin/sh\n"
        tar.addfile(file_entry("etc/passwd", users, 0o644), io.BytesIO(users))
    return archive.getvalue()


def _with_libraries(programs: Iterable[str]) -> set[Path]:
    """Programs, and what the loader loads for them (ldd(1))."""
    found = set(programs)
    for program in programs:
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        found |= set(re.findall(r"(/\S+) \(0x", said))
    return {Path(one) for one in found}


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
