"""Images over the node's API: the real daemon, store and puller, but in this process, and a registry."""

import asyncio
import gzip
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core0.client.client import NodeClient, RefusedError
from core0.images import store as store_module
from core0.images.model import Image, Job, Resolved, UnreachableError
from core0.images.pull import pull
from core0.wire import paths
from core0.wire.image_store import Collected, NodeImages
from core0.wire.types import ContainerSpec
from tests.core0.images.registry import Registry, archive_of, digest_of, entry, gzipped, tar_of
from tests.host_node import HostNode
from tests.vm.layouts import write_layout

BASE, ONE, TWO = (tar_of(entry(name, name.encode())) for name in ("base", "one", "two"))


@pytest.fixture
async def client(
    host_node: HostNode, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[NodeClient]:
    async def run_puller(job: Job, resolved: asyncio.Future[str]) -> Image:
        loop = asyncio.get_running_loop()

        def tell(found: Resolved) -> None:
            loop.call_soon_threadsafe(resolved.set_result, found.digest)

        try:
            if job.stream is not None:  # a process would have a descriptor of its own
                job = msgspec.structs.replace(job, stream=os.dup(job.stream))
            return await asyncio.to_thread(pull, job, tell)
        except OSError as error:
            raise UnreachableError(str(error)) from None

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

    def before(request: Any) -> bool:
        if request.path.endswith(digest_of(gzipped(BASE)[1])):
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
    with pytest.raises(RefusedError, match="404 Not Found") as absent:
        await client.pull_image(f"{registry.origin}/absent:latest")
    assert (absent.value.problem.status, absent.value.problem.pointer) == (422, "/image")
    operation = await client.pull_image("http://127.0.0.1:9/demo:latest")
    ended = await client.operation(operation.id, 30)
    assert (ended.state, "Connection refused" in ended.detail) == ("failed", True)
    with pytest.raises(RefusedError) as wrong:
        await client.image("sha256:12")
    assert wrong.value.problem.status == 422


@pytest.mark.parametrize(
    ("image", "told"),
    [
        pytest.param("absent:latest", "404 Not Found", id="unknown to the registry"),
        pytest.param("foreign:latest", "it is not made for linux/", id="for another machine"),
        pytest.param("bare:latest", "it is for linux/s390x", id="for another machine, without an index"),
        pytest.param("demo@sha256:" + "0" * 64, "the registry sent one with sha256:", id="another digest"),
    ],
)
async def test_an_image_that_cannot_be_had_is_refused_and_nothing_is_kept(
    client: NodeClient, host_node: HostNode, registry: Registry, image: str, told: str
) -> None:
    good = registry.push(gzipped(BASE))
    registry.push_index([{**good, "platform": {"os": "linux", "architecture": "s390x"}}], "foreign:latest")
    registry.push(gzipped(BASE), tag="bare:latest", architecture="s390x")
    registry.content["sha256:" + "0" * 64] = registry.content["demo:latest"]
    with pytest.raises(RefusedError, match=told) as refused:
        await client.put_container("web", ContainerSpec(f"{registry.origin}/{image}", "ab" * 32))
    assert (refused.value.problem.status, refused.value.problem.pointer) == (422, "/image")
    assert await client.containers() == ()
    assert host_node.state
    assert host_node.state.remembered.store.names("container/") == ()
    assert list((host_node.folder / "containers").iterdir()) == []


async def test_a_container_is_kept_if_its_registry_is_away_and_comes_when_it_is_back(
    client: NodeClient, registry: Registry
) -> None:
    registry.push(gzipped(BASE))
    away = threading.Event()
    away.set()
    registry.before = lambda request: away.is_set() and request.say(503)
    reference = f"{registry.origin}/demo:latest"
    put = await client.put_container("web", ContainerSpec(reference, "ab" * 32))
    assert put.spec.image == reference
    away.clear()
    await client.stop_container("web")
    await client.start_container("web")
    async with asyncio.timeout(30):
        while not (await client.images()).images:
            await client.container("web", 1)


async def test_a_registry_that_does_not_answer_holds_nobody_for_long(
    client: NodeClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push(gzipped(BASE), tag="other:latest")
    hanging, go_on = threading.Event(), threading.Event()

    def before(request: Any) -> bool:
        if "/demo/" in request.path:
            hanging.set()
            go_on.wait(30)
        return False

    registry.before = before
    monkeypatch.setattr(store_module, "_PATIENCE", 1.0)
    try:
        slow = asyncio.create_task(
            client.put_container("slow", ContainerSpec(f"{registry.origin}/demo:latest", "ab" * 32))
        )
        await asyncio.to_thread(hanging.wait, 30)
        other = ContainerSpec(f"{registry.origin}/other:latest", "ab" * 32)
        assert (await client.put_container("other", other)).name == "other"
        assert (await slow).name == "slow"
    finally:
        go_on.set()


async def test_what_a_container_is_already_is_not_asked_for_again(
    client: NodeClient, registry: Registry
) -> None:
    registry.push(gzipped(BASE))
    spec = ContainerSpec(f"{registry.origin}/demo:latest", "ab" * 32)
    await client.put_container("web", spec)
    del registry.content["demo:latest"]
    assert (await client.put_container("web", spec)).name == "web"
    async with asyncio.timeout(30):
        while not (await client.images()).images:
            await client.container("web", 1)
    asked = len(registry.asked)
    await client.put_container("second", spec)
    assert len(registry.asked) == asked, "it is here"


async def pieces_of(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_an_image_is_loaded_by_a_name_that_containers_can_have(
    client: NodeClient, tmp_path: Path
) -> None:
    write_layout(tmp_path / "demo", BASE)
    loaded = await client.load_image("team/demo:1", pieces_of(archive_of(tmp_path / "demo")))
    assert (loaded.references, [layer.diff_id for layer in loaded.layers]) == (
        ("local:team/demo:1",),
        [digest_of(BASE)],
    )
    await client.put_container("web", ContainerSpec("local:team/demo:1", "ab" * 32))
    assert (await client.image(loaded.digest)).containers == ("web",)


async def test_what_was_not_loaded_is_refused_with_what_to_do(client: NodeClient) -> None:
    with pytest.raises(
        RefusedError, match="none was loaded by that name, or it went with a reboot"
    ) as refused:
        await client.put_container("web", ContainerSpec("local:demo", "ab" * 32))
    assert (refused.value.problem.status, refused.value.problem.pointer) == (422, "/image")
    with pytest.raises(RefusedError, match="is no name, as demo or") as wrong:
        await client.load_image("../demo", pieces_of(b"x"))
    assert (wrong.value.problem.status, wrong.value.problem.pointer) == (422, "/name")


async def test_a_stream_that_is_no_image_or_is_cut_leaves_nothing(
    client: NodeClient, host_node: HostNode, tmp_path: Path
) -> None:
    write_layout(tmp_path / "demo", BASE)
    whole = archive_of(tmp_path / "demo")
    for data, told in (
        (b"x" * 200_000, "it is no tar, or damaged"),
        (whole[:3000], "it ends within an entry"),
        (b"", "it has no index.json"),
        (gzip.compress(whole), "it is compressed by gzip; unpack it"),
    ):
        with pytest.raises(RefusedError, match=told) as refused:
            await client.load_image("demo", pieces_of(data))
        assert refused.value.problem.status == 422

    begun = asyncio.Event()

    async def stops() -> AsyncIterator[bytes]:
        yield whole[:3000]
        begun.set()
        await asyncio.Event().wait()

    leaving = asyncio.create_task(client.load_image("demo", stops()))
    await begun.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert host_node.state
    loads = [one.id for one in await client.operations() if one.kind == "load"]
    assert {(await client.operation(one, 30)).state for one in loads} == {"failed"}
    assert await client.images() == NodeImages((), 0)
    assert list((host_node.folder / "images/work").iterdir()) == []


async def test_one_name_is_loaded_once_at_a_time(client: NodeClient, tmp_path: Path) -> None:
    write_layout(tmp_path / "demo", BASE)
    whole, begun, go_on = archive_of(tmp_path / "demo"), asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        """Waits until the puller reads: more than all buffers on the way was taken."""
        for number in range(200):
            yield tar_of(entry(f"x{number}", bytes(1 << 16)))[: 512 + (1 << 16)]
        begun.set()
        await go_on.wait()
        yield whole

    first = asyncio.create_task(client.load_image("demo", slowly()))
    await begun.wait()
    assert [one.kind for one in await client.operations()] == ["load"]
    with pytest.raises(RefusedError, match="it is under way"):
        await client.load_image("demo", pieces_of(whole))
    go_on.set()
    assert (await first).references == ("local:demo",)


async def test_a_container_that_waits_for_a_loaded_image_gets_it(
    host_node: HostNode, client: NodeClient, tmp_path: Path
) -> None:
    write_layout(tmp_path / "demo", BASE)
    await client.load_image("demo", pieces_of(archive_of(tmp_path / "demo")))
    await client.put_container("web", ContainerSpec("local:demo", "ab" * 32))
    assert host_node.state
    await host_node.state.containers.store.remove([(await client.images()).images[0].digest])
    await client.stop_container("web")
    await client.start_container("web")
    assert "none was loaded by that name" in (await client.container("web", 30)).why
    await client.load_image("demo", pieces_of(archive_of(tmp_path / "demo")))
    async with asyncio.timeout(30):
        while "none was loaded" in (await client.container("web", 1)).why:
            pass
