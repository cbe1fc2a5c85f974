"""`zn container image` against a node's real API."""

import base64
import json
from pathlib import Path

import msgspec
import pytest

from cli.container_image import _meant
from cli.operator import KEY_FILE
from core0.client.credentials import make_key
from core0.wire.image_signatures import ANNOTATION, REF_NAME, tag_of, trouble_with
from core0.wire.image_store import Collected, NodeImage, NodeImages
from tests.cli.conftest import Zn
from tests.host_node import HostNode
from tests.vm.layouts import write_layout

REFERENCE = "http://127.0.0.1:9/demo:latest"
HERE = NodeImages(
    (
        NodeImage("sha256:" + "ab" * 32, (), 1, (), ()),
        NodeImage("sha256:" + "ac" * 32, (), 1, (), ()),
    ),
    0,
)


def test_a_node_without_images_says_so(node: HostNode, zn: Zn) -> None:
    assert zn("container", "image", "ls").out == "no images\n"
    assert msgspec.json.decode(zn("container", "image", "ls", "--json").out, type=NodeImages).images == ()
    assert zn("container", "image", "gc").out.startswith("removed 0 images")
    said = zn("container", "image", "gc", "--json").out
    assert msgspec.json.decode(said, type=Collected) == Collected((), 0)
    for verb in ("inspect", "rm"):
        said = zn("container", "image", verb, REFERENCE)
        assert (said.code, "the node has none; see 'zn container image ls'" in said.err) == (3, True)


def test_what_is_no_reference_is_refused(node: HostNode, zn: Zn) -> None:
    said = zn("container", "image", "pull", "demo")
    assert said.code == 3
    assert "cannot read image reference 'demo'" in said.err


@pytest.mark.parametrize(
    ("which", "count"),
    [
        (REFERENCE, 1),
        ("sha256:" + "ac" * 32, 1),
        ("ac", 1),
        ("sha256:a", 2),
        ("", 0),
        ("sha256:", 0),
        ("f", 0),
    ],
)
def test_an_image_is_meant_by_its_name_or_how_its_digest_begins(which: str, count: int) -> None:
    named = msgspec.structs.replace(HERE.images[0], references=(REFERENCE,))
    assert len(_meant(NodeImages((named, HERE.images[1]), 0), which)) == count


def test_a_layout_is_signed_by_the_operators_key(contexts_file: Path, zn: Zn, tmp_path: Path) -> None:
    key = make_key(contexts_file.parent / KEY_FILE)
    write_layout(tmp_path / "demo", b"")
    said = zn("container", "image", "sign", str(tmp_path / "demo"), "--as", "registry.example.com/demo")
    index = json.loads((tmp_path / "demo/index.json").read_text())
    image, signatures = index["manifests"]
    assert said.out == f"signed {image['digest']} as registry.example.com/demo\n"
    assert signatures["annotations"][REF_NAME] == tag_of(image["digest"])
    manifest = json.loads((tmp_path / "demo/blobs" / signatures["digest"].replace(":", "/")).read_text())
    (layer,) = manifest["layers"]
    payload = (tmp_path / "demo/blobs" / layer["digest"].replace(":", "/")).read_bytes()
    key.public_key().verify(base64.b64decode(layer["annotations"][ANNOTATION]), payload)
    assert trouble_with(payload, image["digest"], "registry.example.com/demo") == ""


def test_what_is_no_layout_is_not_signed(contexts_file: Path, zn: Zn, tmp_path: Path) -> None:
    make_key(contexts_file.parent / KEY_FILE)
    said = zn("container", "image", "sign", str(tmp_path))
    assert (said.code, "it is no OCI layout" in said.err) == (2, True)


def test_what_cannot_be_loaded_says_why(node: HostNode, zn: Zn, tmp_path: Path) -> None:
    said = zn("container", "image", "load", str(tmp_path / "absent.tar"), "--name", "demo")
    assert (said.code, "there is no such file" in said.err) == (2, True)
    (tmp_path / "x.tar").write_bytes(b"x")
    said = zn("container", "image", "load", str(tmp_path / "x.tar"), "--name", "../demo")
    assert (said.code, "is no name, as demo or team/demo:1 is" in said.err) == (3, True)
