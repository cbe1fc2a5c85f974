"""`zn container image` against a node's real API."""

from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from cli.container_image import _meant
from core0.wire.image_store import Collected, NodeImage, NodeImages
from tests.cli.conftest import Zn, beside, write_context
from tests.host_node import HostNode

REFERENCE = "http://127.0.0.1:9/demo:latest"
HERE = NodeImages(
    (
        NodeImage("sha256:" + "ab" * 32, (), 1, (), ()),
        NodeImage("sha256:" + "ac" * 32, (), 1, (), ()),
    ),
    0,
)


@pytest.fixture
def node(host_node: HostNode, contexts_file: Path) -> Iterator[HostNode]:
    @asynccontextmanager
    async def serving():
        async with host_node.daemon(), host_node.api():
            yield

    with beside(serving()):
        write_context(contexts_file, host_node)
        yield host_node


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
