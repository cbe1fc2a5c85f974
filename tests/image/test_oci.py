"""Packing containers: digests, determinism, and the demo's nginx answering from its own root."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from cli.image import cache_folder
from image import lock, manifest, oci
from image.errors import ImageError
from image.manifest import ContainerManifest
from image.report import Report
from image.sources import Places
from image.tree import Entry, compose, file, folder, link

ROOT = Path(__file__).parents[2]
DEMO = manifest.load_kind(ROOT / "initramfs/demo.toml", ContainerManifest)
LOCK = lock.load(ROOT / "initramfs/demo.amd64.lock.json")
TREE = compose(
    [
        folder("proc", "t", 0o555),
        file("etc/a", b"1", "t"),
        link("b", "etc/a", "t"),
        Entry("var", folder("var", "t").kind, 0o700, owner=33, group=33),
    ]
)


def blob(layout: dict[str, bytes], descriptor: dict[str, object]) -> bytes:
    algorithm, digest = str(descriptor["digest"]).split(":")
    content = layout[f"blobs/{algorithm}/{digest}"]
    assert hashlib.sha256(content).hexdigest() == digest
    assert len(content) == descriptor["size"]
    return content


def test_every_descriptor_leads_to_a_blob_of_its_digest_and_size() -> None:
    layout = oci.layout(DEMO, TREE.values(), LOCK)
    index = json.loads(layout["index.json"])
    image = json.loads(blob(layout, index["manifests"][0]))
    config = json.loads(blob(layout, image["config"]))
    layers = [gzip.decompress(blob(layout, layer)) for layer in image["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert json.loads(layout["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert len(layout) == 5


def test_the_configuration_says_how_to_run_it() -> None:
    wanted = replace(DEMO, container=replace(DEMO.container, volumes=("/var/www",)))
    layout = oci.layout(wanted, TREE.values(), LOCK)
    image = json.loads(blob(layout, json.loads(layout["index.json"])["manifests"][0]))
    config = json.loads(blob(layout, image["config"]))["config"]
    assert config["Entrypoint"] == ["/usr/sbin/nginx"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Volumes"] == {"/var/www": {}}
    assert config["StopSignal"] == "SIGQUIT"


def test_the_layer_keeps_modes_owners_and_links() -> None:
    with tarfile.open(fileobj=io.BytesIO(oci.layer(TREE.values(), 86400))) as archive:
        members = {member.name: member for member in archive}
    assert members["proc"].mode == 0o555
    assert (members["var"].uid, members["var"].gid, members["var"].mode) == (33, 33, 0o700)
    assert (members["b"].linkname, members["etc/a"].mtime) == ("etc/a", 86400)


def test_packing_twice_gives_the_same_bytes() -> None:
    assert oci.layout(DEMO, TREE.values(), LOCK) == oci.layout(DEMO, TREE.values(), LOCK)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's root file system, unpacked from the layer that was packed."""
    folder = tmp_path_factory.mktemp("demo")
    manifest_path = ROOT / "initramfs/demo.toml"
    try:
        packed = oci.pack(
            oci.Request(manifest_path, "amd64", folder / "oci", Places(ROOT, cache_folder())), Report()
        )
    except ImageError as error:
        pytest.skip(f"the files of the lock are neither cached nor to be had: {error}")
    image = json.loads((packed / "index.json").read_bytes())["manifests"][0]
    layer = json.loads(_blob_file(packed, image).read_bytes())["layers"][0]
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "--extract", "--file", _blob_file(packed, layer), "--directory", root], check=True)
    return root


def _blob_file(packed: Path, descriptor: dict[str, str]) -> Path:
    return packed / "blobs" / descriptor["digest"].replace(":", "/")


def test_the_demo_is_small(demo: Path) -> None:
    size = sum(path.lstat().st_size for path in demo.rglob("*") if path.is_file() and not path.is_symlink())
    assert size <= 20_000_000


@pytest.mark.root
def test_the_demo_serves_its_page_and_logs_to_standard_output(demo: Path) -> None:
    if os.geteuid():
        pytest.skip("a root and a network of its own need root")
    command = ["unshare", "--net", "--pid", "--fork", "--mount", "sh", "-euc", SERVE, "serve", str(demo)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "A container on a Zeronode answers" in done.stdout
    assert '"GET / HTTP/1.1" 200' in done.stdout
    assert "worker runs as 33" in done.stdout


# nginx is killed with the pid namespace when the shell ends.
SERVE = """
mount -t proc proc "$1/proc"
ip link set lo up
chroot "$1" /usr/sbin/nginx -g 'daemon off;' | cat &
curl --silent --fail --retry 50 --retry-connrefused --retry-delay 0 http://127.0.0.1/
for status in "$1"/proc/[0-9]*/status; do
    grep -q 'Name:.nginx' "$status" && echo "worker runs as $(awk '/^Uid:/ {print $2}' "$status")"
done
kill -QUIT "$(cat "$1/run/nginx.pid")"
wait
"""
