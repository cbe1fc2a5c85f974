"""Images over the node's API: the real daemon, store and puller, but in this process, and a registry."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core0.client.client import NodeClient, RefusedError
from core0.images import store as store_module
from core0.images.model import Image, Job
from core0.images.pull import pull
from core0.wire import paths
from core0.wire.image_store import Collected, NodeImages
from core0.wire.types import ContainerSpec
from tests.core0.images.registry import Registry, digest_of, entry, gzipped, tar_of
from tests.host_node import HostNode

BASE, ONE, TWO = (tar_of(entry(name, name.encode())) for name in ("base", "one", "two"))


@pytest.fixture
async def client(
    host_node: HostNode, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[NodeClient]:
    async def run_puller(job: Job) -> Image:
        return await asyncio.to_thread(pull, job)

    monkeypatch.setattr(store_module, "_run_puller", run_puller)
    monkeypatch.setattr(store_module.os, "chown", lambda *_, **__: None)
    async with host_node.daemon(), host_node.api(), host_node.operator() as client:
        monkeypatch.setattr(paths, "STORAGE", str(programs))
        yield client


async def pulled(client: NodeClient, reference: str) -> str:
    """Pull an image; returns its digest."""
    operation = await client.pull_image(reference)
    ended = await client.operation(operation.id, 30)
    assert ended.state == "done", ended.detail
    return ended.detail.removeprefix("it is here: ")


async def test_images_share_layers_and_only_those_that_nobody_needs_go(
    client: NodeClient, registry: Registry
) -> None:
    assert await client.images() == NodeImages((), 0)
    registry.push(gzipped(BASE), gzipped(ONE), tag="one:latest")
    registry.push(gzipped(BASE), gzipped(TWO), tag="two:latest")
    one, two = [await pulled(client, f"{registry.origin}/{name}") for name in ("one:latest", "two:latest")]
    listed = await client.images()
    assert [image.digest for image in listed.images] == sorted([one, two])
    shown = await client.image(one)
    assert shown.references == (f"{registry.origin}/one:latest",)
    assert [(layer.diff_id, layer.images) for layer in shown.layers] == [
        (digest_of(BASE), 2),
        (digest_of(ONE), 1),
    ]
    assert sum(image.bytes for image in listed.images) > listed.bytes, "a shared layer counts once"
    removed = await client.delete_image(one)
    assert removed == Collected((one,), shown.layers[1].bytes)
    (left,) = (await client.images()).images
    assert (left.digest, left.layers[0].images) == (two, 1)
    assert await client.collect_images() == Collected((two,), left.bytes)
    assert await client.images() == NodeImages((), 0)
    with pytest.raises(RefusedError, match="the node has none of that digest") as refused:
        await client.delete_image(two)
    assert refused.value.problem.status == 404


async def test_what_a_container_is_wanted_with_stays(client: NodeClient, registry: Registry) -> None:
    registry.push(gzipped(BASE))
    reference = f"{registry.origin}/demo:latest"
    digest = await pulled(client, reference)
    await client.put_container("web", ContainerSpec(reference, "ab" * 32))
    await client.stop_container("web")
    assert (await client.image(digest)).containers == ("web",)
    assert await client.collect_images() == Collected((), 0)
    with pytest.raises(RefusedError, match="of containers web; remove these first") as refused:
        await client.delete_image(digest)
    assert refused.value.problem.status == 409
    assert (await client.image(digest)).containers == ("web",)


async def test_a_tag_that_moved_is_taken_up_by_a_pull(client: NodeClient, registry: Registry) -> None:
    reference = f"{registry.origin}/demo:latest"
    registry.push(gzipped(BASE), gzipped(ONE))
    before = await pulled(client, reference)
    assert await pulled(client, reference) == before, "nothing moved"
    registry.push(gzipped(BASE), gzipped(TWO))
    after = await pulled(client, reference)
    images = {image.digest: image.references for image in (await client.images()).images}
    assert images == {before: (), after: (reference,)}
    asked = [path for path, _ in registry.asked]
    assert asked.count(f"/v2/demo/blobs/{digest_of(gzipped(BASE)[1])}") == 1, "it is here already"


async def test_nothing_is_removed_while_an_image_comes(client: NodeClient, registry: Registry) -> None:
    asked, answer = threading.Event(), threading.Event()

    def before(_: Any) -> bool:
        asked.set()
        answer.wait(30)
        return False

    registry.push(gzipped(BASE))
    registry.before = before
    operation = await client.pull_image(f"{registry.origin}/demo:latest")
    await asyncio.to_thread(asked.wait, 30)
    try:
        with pytest.raises(RefusedError, match="some are being pulled; wait until they are here"):
            await client.collect_images()
        with pytest.raises(RefusedError, match="it is under way"):
            await client.pull_image(f"{registry.origin}/demo:latest")
    finally:
        answer.set()
    assert (await client.operation(operation.id, 30)).state == "done"
    assert len((await client.collect_images()).images) == 1


async def test_what_cannot_be_pulled_says_why(client: NodeClient, registry: Registry) -> None:
    with pytest.raises(RefusedError, match="cannot read image reference") as refused:
        await client.pull_image("demo")
    assert (refused.value.problem.status, refused.value.problem.pointer) == (422, "/image")
    operation = await client.pull_image(f"{registry.origin}/absent:latest")
    ended = await client.operation(operation.id, 30)
    assert (ended.state, "404 Not Found" in ended.detail) == ("failed", True)
    with pytest.raises(RefusedError) as wrong:
        await client.image("sha256:12")
    assert wrong.value.problem.status == 422
