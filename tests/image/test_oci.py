"""Packing containers: digests, determinism, and the demo's nginx answering from its own root."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from image import lock, manifest, oci
from image.manifest import ContainerManifest
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
    layout = oci.layout(DEMO, TREE.values(), LOCK)
    image = json.loads(blob(layout, json.loads(layout["index.json"])["manifests"][0]))
    config = json.loads(blob(layout, image["config"]))["config"]
    assert config["Entrypoint"] == ["/usr/sbin/nginx"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["StopSignal"] == "SIGQUIT"


def test_the_layer_keeps_modes_owners_and_links() -> None:
    with tarfile.open(fileobj=io.BytesIO(oci.layer(TREE.values(), 86400))) as archive:
        members = {member.name: member for member in archive}
    assert members["proc"].mode == 0o555
    assert (members["var"].uid, members["var"].gid, members["var"].mode) == (33, 33, 0o700)
    assert (members["b"].linkname, members["etc/a"].mtime) == ("etc/a", 86400)


def test_packing_twice_gives_the_same_bytes() -> None:
    assert oci.layout(DEMO, TREE.values(), LOCK) == oci.layout(DEMO, TREE.values(), LOCK)
