"""Volumes over the node's API: real TLS, the real node daemon, a real btrfs; what is wrong is told by its field."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from core0.client.client import NodeClient, NodeError, RefusedError
from core0.client.credentials import client_context
from core0.wire.types import ContainerSpec
from core0.wire.volumes import ImportRequest, IoLimits, Origin, Volume, VolumeSpec
from corex.http.problem import CONTENT_TYPE, Problem
from tests.core0.conftest import Loop
from tests.host_node import HostNode

pytestmark = pytest.mark.root
MIB = 1 << 20
SPEC = VolumeSpec(64 * MIB, "disk")


@pytest.fixture
async def node(host_node: HostNode, btrfs_disk: Loop) -> AsyncIterator[HostNode]:
    """A node that serves, with the pool `disk`."""
    host_node.pools["disk"] = btrfs_disk.place
    async with host_node.daemon(), host_node.api():
        yield host_node
        for mounted in (host_node.folder / "volumes").iterdir():
            if mounted.is_dir():
                await host_node.state.volumes.delete(mounted.name)  # type: ignore[union-attr]


@pytest.fixture
async def client(node: HostNode) -> AsyncIterator[NodeClient]:
    async with node.operator() as client:
        await node.told("Its volumes: none")
        yield client


async def test_the_life_of_a_volume(client: NodeClient, btrfs_disk: Loop) -> None:
    made = await client.put_volume("data", SPEC)
    assert (made.state, made.size, made.pool) == ("ready", 64 * MIB, "disk")
    assert await client.put_volume("data", SPEC) == made
    file = btrfs_disk.place / "volumes" / "data" / "file"
    file.write_text("monday")
    taken = await client.take_snapshot("data", "monday")
    assert [one.name for one in taken.snapshots] == ["monday"]
    file.write_text("tuesday")
    copy = await client.put_volume("copy", VolumeSpec(80 * MIB, "disk", origin=Origin("data", "monday")))
    assert (btrfs_disk.place / "volumes" / "copy" / "file").read_text() == "monday"
    assert copy.origin == Origin("data", "monday")
    await client.roll_back("data", "monday")
    assert file.read_text() == "monday"
    limited = await client.put_volume("data", VolumeSpec(128 * MIB, "disk", IoLimits(read_bps=1 << 20)))
    assert (limited.size, limited.io.read_bps) == (128 * MIB, 1 << 20)
    with pytest.raises(RefusedError, match="it has the snapshots monday; delete them first"):
        await client.delete_volume("data")
    await client.delete_snapshot("data", "monday")
    await client.delete_volume("data")
    assert [one.name for one in await client.volumes()] == ["copy"]
    await client.delete_volume("copy", "disk", snapshots=True)
    assert await client.volumes() == ()


async def test_a_volume_in_memory_needs_no_pool(client: NodeClient, node: HostNode) -> None:
    made = await client.put_volume("scratch", VolumeSpec(16 * MIB))
    assert (made.pool, made.state) == (None, "ready")
    assert (node.folder / "volumes" / "scratch").is_mount()
    assert await client.volume("scratch") == made
    await client.delete_volume("scratch")
    assert await client.volumes() == ()


SNAPSHOT = "/v1/volumes/data/snapshots/monday"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "pointer", "detail", "remedy"),
    [
        pytest.param(
            "PUT",
            "/v1/volumes/new",
            {"size": 1 << 50, "pool": "disk"},
            422,
            "/size",
            "cannot have volume new of 1024 TiB: pool disk has 4 GiB",
            "choose a smaller size",
            id="larger than the pool",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/new",
            {"size": 1, "pool": "disk"},
            422,
            "/size",
            "expected `int` >= 16777216",
            "schema",
            id="too small",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/data",
            {"size": 16 * MIB, "pool": "disk"},
            409,
            "/size",
            "cannot shrink volume data to 16 MiB: it takes 40",
            "delete files or snapshots first",
            id="shrunk below what it holds",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/new",
            {"size": 16 * MIB, "pool": "none"},
            422,
            "/pool",
            "cannot use pool 'none': there is none",
            "the node has: disk",
            id="unknown pool",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/data",
            {"size": 64 * MIB},
            409,
            "/pool",
            "pool disk has one",
            "choose another name",
            id="name in use",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/new",
            {"size": 64 * MIB, "pool": "disk", "from": {"volume": "data", "snapshot": "sunday"}},
            422,
            "/from/snapshot",
            "data has no snapshot 'sunday'",
            "it has: monday",
            id="copy of an unknown snapshot",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/data?pool=other",
            {"size": 64 * MIB, "pool": "disk"},
            422,
            "/pool",
            "the query names other",
            "in the body only",
            id="two pools named",
        ),
        pytest.param(
            "POST",
            "/v1/volumes/data/rollback",
            {"snapshot": "sunday"},
            404,
            None,
            "cannot find snapshot 'sunday' of volume data",
            "zn volume show data",
            id="rollback to an unknown snapshot",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/..%2Fx",
            {"size": 64 * MIB, "pool": "disk"},
            422,
            None,
            "parameter `name`",
            "openapi",
            id="a name that climbs",
        ),
        pytest.param(
            "PUT",
            "/v1/volumes/data/snapshots/..",
            None,
            422,
            None,
            "parameter `snapshot`",
            "openapi",
            id="a snapshot's name that climbs",
        ),
        pytest.param(
            "GET", "/v1/volumes/none", None, 404, None, "cannot find volume 'none'", "zn volume ls", id="none"
        ),
        pytest.param(
            "DELETE",
            "/v1/volumes/data",
            None,
            409,
            None,
            "it has the snapshots monday",
            "?snapshots=true",
            id="deleted with its snapshots",
        ),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_is_changed(
    client: NodeClient,
    node: HostNode,
    btrfs_disk: Loop,
    method: str,
    path: str,
    body: object,
    status: int,
    pointer: str | None,
    detail: str,
    remedy: str,
) -> None:
    await client.put_volume("data", SPEC)
    (btrfs_disk.place / "volumes" / "data" / "file").write_bytes(os.urandom(40 * MIB))
    await client.take_snapshot("data", "monday")
    before = listing(await client.volumes())
    problem = await asked(node, method, path, body, status)
    assert (problem.status, problem.pointer) == (status, pointer)
    assert problem.detail.startswith("cannot ")
    assert detail in problem.detail
    assert remedy in problem.remedy
    assert listing(await client.volumes()) == before
    assert names(btrfs_disk.place / "incoming") == []


CONTAINER = {"image": "http://127.0.0.1:9/demo/", "token_sha256": "ab" * 32}


@pytest.mark.parametrize(
    ("mounts", "pointer", "detail"),
    [
        pytest.param(
            [{"volume": "none", "target": "/x"}],
            "/mounts/0/volume",
            "cannot mount volume 'none': there is none",
            id="unknown volume",
        ),
        pytest.param(
            [{"volume": "data", "target": "/x"}, {"volume": "data", "target": "/proc/1"}],
            "/mounts/1/target",
            "cannot mount volume data at /proc/1: the node makes that folder itself",
            id="a folder of the node's",
        ),
        pytest.param(
            [{"volume": "data", "target": "/x"}, {"volume": "data", "target": "/x"}],
            "/mounts/1/target",
            "something else is seen at /x",
            id="twice the same folder",
        ),
        pytest.param(
            [{"volume": "data", "target": "x"}],
            "/mounts/0/target",
            "matching regex",
            id="no absolute path",
        ),
    ],
)
async def test_a_container_gets_no_volume_that_is_not_there_nor_hides_what_is_the_nodes(
    client: NodeClient, node: HostNode, mounts: object, pointer: str, detail: str
) -> None:
    await client.put_volume("data", SPEC)
    problem = await asked(node, "PUT", "/v1/containers/web", {**CONTAINER, "mounts": mounts}, 422)
    assert problem.pointer == pointer
    assert detail in problem.detail
    assert await client.containers() == ()


async def test_a_volume_that_a_container_has_stays(client: NodeClient, node: HostNode) -> None:
    await client.put_volume("data", SPEC)
    await client.take_snapshot("data", "monday")
    spec = msgspec.convert({**CONTAINER, "mounts": [{"volume": "data", "target": "/x"}]}, ContainerSpec)
    await client.put_container("web", spec)
    assert (await client.volume("data")).containers == ("web",)
    for method, path, body in (
        ("DELETE", "/v1/volumes/data?snapshots=true", None),
        ("POST", "/v1/volumes/data/rollback", {"snapshot": "monday"}),
        ("POST", "/v1/reset", {"fingerprint": node.fingerprint}),
    ):
        problem = await asked(node, method, path, body, 409)
        assert "container web has " in problem.detail
        assert problem.remedy == "remove the container first"
    assert (await client.put_volume("data", VolumeSpec(80 * MIB, "disk"))).size == 80 * MIB
    await client.delete_container("web")
    async with asyncio.timeout(30):
        while await client.containers():
            await client.events((await client.events()).cursor, wait=0.5)
    await client.delete_volume("data", snapshots=True)


async def stream_of(client: NodeClient, snapshot: str) -> bytes:
    return b"".join([piece async for piece in client.export_snapshot("data", snapshot)])


async def in_pieces(data: bytes, lost: Exception | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), MIB):
        yield data[at : at + MIB]
    if lost:
        raise lost


async def test_a_stream_goes_over_the_api_and_on_after_a_lost_connection(
    client: NodeClient, btrfs_disk: Loop
) -> None:
    await client.put_volume("data", SPEC)
    content = os.urandom(20 * MIB)
    (btrfs_disk.place / "volumes" / "data" / "file").write_bytes(content)
    await client.take_snapshot("data", "monday")
    stream = await stream_of(client, "monday")
    request = ImportRequest("first", SPEC, len(stream))
    begun = await client.begin_import("copy", request)
    assert (begun.state, begun.offset) == ("receiving", 0)
    with pytest.raises(NodeError):
        await client.feed_import(
            begun.operation, 0, in_pieces(stream[: 7 * MIB], ConnectionResetError("lost"))
        )
    async with asyncio.timeout(30):
        while not (found := await client.begin_import("copy", request)).offset:
            await client.operation(begun.operation, 0.1)
    assert found.operation == begun.operation
    with pytest.raises(RefusedError, match="go on at byte"):
        await client.feed_import(begun.operation, 5, in_pieces(b"x"))
    ended = await client.feed_import(begun.operation, found.offset, in_pieces(stream[found.offset :]))
    assert (ended.state, ended.offset) == ("done", len(stream)), ended.why
    assert (btrfs_disk.place / "volumes" / "copy" / "file").read_bytes() == content
    done = await client.operation(begun.operation)
    assert (done.state, done.progress) == ("done", 1.0)
    with pytest.raises(RefusedError, match="cannot go on with the stream: 20"):
        await client.feed_import(begun.operation, 0, in_pieces(b"x"))


async def test_an_upload_that_is_refused_is_told_while_it_comes(client: NodeClient) -> None:
    begun = await client.begin_import("copy", ImportRequest("first", SPEC))
    with pytest.raises(RefusedError, match="cannot import the stream: it is no btrfs stream") as caught:
        await client.feed_import(begun.operation, 0, in_pieces(bytes(64 * MIB)))
    assert caught.value.problem.status == 422
    assert (await client.imported(begun.operation, 30)).state == "failed"
    assert await client.volumes() == ()


async def test_what_is_no_upload_is_refused(client: NodeClient, node: HostNode) -> None:
    begun = await client.begin_import("copy", ImportRequest("first", SPEC))
    await asked(node, "PUT", f"/v1/imports/{begun.operation}/stream", {"no": "bytes"}, 415)
    problem = await asked(node, "GET", "/v1/imports/none", None, 404)
    assert "cannot find import 'none'" in problem.detail
    await client.cancel_operation(begun.operation)
    with pytest.raises(RefusedError, match="it was cancelled"):
        await client.feed_import(begun.operation, 0, in_pieces(b"x"))


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def listing(volumes: tuple[Volume, ...]) -> list[Volume]:
    """Without what the file system counts later."""
    return [msgspec.structs.replace(one, used=0) for one in volumes]


async def asked(node: HostNode, method: str, path: str, body: object, status: int) -> Problem:
    """The problem document that a request gets."""
    pin = aiohttp.Fingerprint(bytes.fromhex(node.fingerprint))
    data = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json"} if body else {}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pin)) as session,
        session.request(
            method,
            aiohttp.client.URL(f"https://{node.address}{path}", encoded=True),
            ssl=client_context(node.certificate()),
            data=data,
            headers=headers,
        ) as answer,
    ):
        text = await answer.read()
        assert (answer.status, answer.headers["Content-Type"]) == (status, CONTENT_TYPE), text
        return msgspec.json.decode(text, type=Problem)
