"""Debian's registry, with a password and TLS, as skopeo pushes to it; umoci unpacks the same image to compare."""

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from core0.images.model import Job, parse_reference, sources_of
from core0.images.pull import pull
from core0.wire.images import ImagesConfig, RegistryConfig
from tests.core0.images.registry import CONFIG, LAYER, MANIFEST, digest_of, entry, tar_of
from tests.core0.images.test_fetch import certified
from tests.vm.layouts import blob

NEEDED = ("docker-registry", "skopeo", "umoci")
pytestmark = [
    pytest.mark.usefixtures("mkfs"),
    pytest.mark.root,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs Debian's {', '.join(NEEDED)}"),
]
PASSWORD = "correct horse"
# Its bcrypt, as `htpasswd -B` writes it.
HTPASSWD = "me:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n"
SETTINGS = """
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
http: {{addr: "127.0.0.1:{port}", tls: {{certificate: {folder}/tls.pem, key: {folder}/tls.pem}}}}
"""
FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}
LOWER = tar_of(
    entry("etc", **FOLDER),
    entry("etc/passwd", b"root:x:0:0::/:/bin/sh\n", mode=0o600),
    entry("etc/old", b"old"),
    entry("opaque", **FOLDER),
    entry("opaque/hidden", b"hidden"),
    entry("bin", **FOLDER),
    entry("bin/tool", os.urandom(300_000), mode=0o4755, uid=7, gid=8),
    entry("bin/same", type=tarfile.LNKTYPE, linkname="bin/tool"),
)
UPPER = tar_of(
    entry("etc", **FOLDER),
    entry("etc/.wh.old"),
    entry("etc/link", type=tarfile.SYMTYPE, linkname="/../passwd", mode=0o777),
    entry("opaque", **FOLDER),
    entry("opaque/.wh..wh..opq"),
    entry("opaque/seen", b"seen"),
)


def layout_of(folder: Path, *tars: bytes) -> Path:
    """An OCI layout of plain tars, which a pusher packs as it likes."""
    folder.mkdir()
    layers = [{"mediaType": LAYER, **blob(folder, tar)} for tar in tars]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/tool"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
    }
    described = {"mediaType": CONFIG, **blob(folder, json.dumps(config).encode())}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
    named = {"annotations": {"org.opencontainers.image.ref.name": "demo"}}
    index = [{"mediaType": MANIFEST, **blob(folder, json.dumps(manifest).encode()), **named}]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": index}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Debian's registry: its address, and the certificate of its authority."""
    folder = tmp_path / "registry"
    folder.mkdir()
    trust, ca = certified(folder, keep=True)
    del trust
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "config.yml").write_text(SETTINGS.format(folder=folder, port=port))
    words = ["docker-registry", "serve", str(folder / "config.yml")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr
            said = next((line for line in serving.stderr if "listening on" in line), "")
            assert said, "docker-registry ended"
            yield f"127.0.0.1:{port}", ca
        finally:
            serving.terminate()


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """Every file below a folder: type and mode, owner, links, and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, links, content)
    return found


def run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_what_skopeo_pushed_is_pulled_as_umoci_unpacks_it(
    registry: tuple[str, str],
    tmp_path: Path,
    mounted: Callable[[Path], AbstractContextManager[Path]],
    packing: str,
) -> None:
    address, ca = registry
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust/ca.crt").write_text(ca)
    layout = layout_of(tmp_path / "layout", LOWER, UPPER)
    options = ("--insecure-policy", "copy", f"--dest-compress-format={packing}")
    known = (f"--dest-cert-dir={tmp_path / 'trust'}", f"--dest-creds=me:{PASSWORD}")
    run("skopeo", *options, *known, f"oci:{layout}:demo", f"docker://{address}/team/demo:1")
    run("umoci", "unpack", "--image", f"{layout}:demo", tmp_path / "bundle")

    reference = parse_reference(f"https://{address}/team/demo:1")
    settings = RegistryConfig(user="me", password=PASSWORD, ca=ca)
    sources = sources_of(reference, ImagesConfig({f"https://{address}": settings}))
    image = pull(Job(reference, str(tmp_path), (), 1 << 30, sources))
    assert image.layers == (digest_of(LOWER), digest_of(UPPER))
    lower, upper = (tmp_path / f"{layer.removeprefix('sha256:')}.erofs" for layer in image.layers)
    with mounted(lower) as under, mounted(upper) as over:
        whole = tmp_path / "whole"
        whole.mkdir()
        run("mount", "-t", "overlay", "-o", f"ro,lowerdir={over}:{under}", "overlay", whole)
        try:
            assert seen(whole) == seen(tmp_path / "bundle/rootfs")
        finally:
            run("umount", whole)
