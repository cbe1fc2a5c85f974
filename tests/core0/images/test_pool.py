"""Layers on a pool: there after a reboot if they are what is remembered; else memory, and fetched again."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core0.images import pool as subject
from core0.images import store as store_module
from core0.images.erofs import make_erofs
from core0.images.model import Image, Job, NoRoomError, PullError, RunConfig
from core0.images.pool import Layer, PoolLayers
from core0.images.pull import committed
from core0.images.store import Store, close_all
from core0.linux import mounts
from core0.linux.worker import HungError, Worker
from core0.wire.control import Refusal, RefusedError
from tests.core0.images.registry import entry, tar_of

CONTENT = bytes(range(256)) * 10


class Disks:
    """Pools that come and go."""

    def __init__(self, **there: Path) -> None:
        self.there = {name: str(folder) for name, folder in there.items()}
        self.changed = asyncio.Event()

    def folders(self) -> dict[str, str]:
        return self.there

    async def wait_changed(self) -> None:
        await self.changed.wait()
        self.changed.clear()


class Kept:
    """The node's state, which outlives a boot."""

    def __init__(self) -> None:
        self.sections: dict[str, bytes] = {}
        self.full = False

    def get(self, section: str) -> bytes | None:
        return self.sections.get(section)

    async def put(self, section: str, value: bytes) -> None:
        if self.full:
            raise RefusedError(Refusal(507, "full", "cannot remember it: no disk is there"))
        self.sections[section] = value


class Node:
    """A node with a pool; `boot` gives the store of another boot."""

    def __init__(self, folder: Path, worker: Worker) -> None:
        self.folder, self.worker = folder, worker
        self.root = folder / "fast"
        self.root.mkdir()
        self.disks, self.kept = Disks(fast=self.root), Kept()
        self.wanted: str | None = "fast"
        self.told: list[str] = []
        self.jobs: list[Job] = []
        self.boots = 0
        self.content = CONTENT
        self.mounted = folder / "mounted"
        self.fails: Callable[[Job], None] = lambda _: None

    def boot(self) -> Store:
        """What is in memory is gone."""
        self.boots += 1
        memory = self.folder / f"memory{self.boots}"
        memory.mkdir()
        self.pool = PoolLayers(
            self.worker, lambda: self.disks, self.kept, self.tell, lambda: self.wanted, str(self.mounted)
        )
        return Store(memory, report=self.tell, pool=self.pool)

    def tell(self, _: str, __: str, message: str) -> None:
        self.told.append(message)

    async def pull(self, job: Job, _: object) -> Image:
        """Leave the layers that the reference's last words name, as the puller does."""
        self.jobs.append(job)
        self.fails(job)
        return self.leave(job)

    def leave(self, job: Job) -> Image:
        numbers = [int(one) for one in job.reference.base.rpartition("/")[2].split("-")]
        names = [f"{number:064x}" for number in numbers]
        for name in names:
            if f"sha256:{name}" not in job.present:
                Path(job.folder, f"{name}.erofs").write_bytes(self.content + name.encode())
        return Image(f"sha256:{numbers[0]:064x}", RunConfig(), tuple(f"sha256:{name}" for name in names))

    @property
    def files(self) -> list[str]:
        return sorted(path.stem[-2:] for path in (self.root / "images/layers").iterdir())


ONE, TWO = "http://127.0.0.1/1-2", "http://127.0.0.1/2-3"


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    worker = Worker()
    made = Node(tmp_path, worker)
    monkeypatch.setattr(store_module, "_run_puller", made.pull)
    monkeypatch.setattr(subject.paths, "PULL_USER", os.getuid())
    if os.getuid():
        monkeypatch.setattr(store_module.os, "chown", lambda *_, **__: None)
    yield made
    worker.close()
    for place in filter(subject.is_mounted, (made.mounted, made.root)):
        mounts.unmount(str(place))


pytestmark = pytest.mark.root


async def test_images_are_there_after_a_reboot_without_their_registry(node: Node) -> None:
    store = node.boot()
    pulled = await store.pull(ONE)
    await store.pull(TWO)
    assert node.files == ["01", "02", "03"], "a layer that two images have is there once"
    assert node.jobs[1].present == (pulled.layers[0], pulled.layers[1])
    after = node.boot()
    assert after.get(ONE) is None, "nobody has looked at the pool yet"
    assert await after.pull(ONE) == pulled
    assert len(node.jobs) == 2, "it was not asked for"
    await after.verify(pulled)
    assert after.size(pulled.layers[0]) == len(CONTENT) + 64
    assert list((node.root / "images/incoming").iterdir()) == []


def left_by(job: Job) -> str:
    """Leave the one layer that a container's changes make; its digest."""
    Path(job.folder, f"{9:064x}.erofs").write_bytes(CONTENT)
    return f"sha256:{9:064x}"


async def test_an_image_of_a_container_is_kept_where_its_image_is(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = node.boot()
    base = await store.pull(ONE)

    async def pack(job: Job, _: object) -> Image:
        assert job.base
        node.jobs.append(job)
        return committed(job.base, left_by(job))

    monkeypatch.setattr(store_module, "_run_puller", pack)
    made = await store.commit("local:shop", base, 0)
    assert node.files == ["01", "02", "09"]
    assert node.jobs[-1].place == "pool"
    after = node.boot()
    assert await after.pull("local:shop") == made, "there after a reboot"
    elsewhere = Image("sha256:" + "e" * 64, RunConfig(), ("sha256:" + "f" * 64,))
    after._in_memory |= set(elsewhere.layers)
    await after.commit("local:other", elsewhere, 0)
    assert node.jobs[-1].place == "memory", "on the pool it would lack what is below it"


async def test_a_pool_that_comes_late_is_waited_for(node: Node) -> None:
    pulled = await node.boot().pull(ONE)
    there, node.disks.there, node.wanted = node.disks.there, {}, None
    after = node.boot()
    waiting = asyncio.create_task(after.pull(ONE))
    await asyncio.sleep(0)
    assert not waiting.done()
    node.disks.there, node.wanted = there, "fast"
    node.disks.changed.set()
    assert await waiting == pulled
    assert len(node.jobs) == 1


async def test_without_its_pool_an_image_is_fetched_into_memory(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.boot().pull(ONE)
    monkeypatch.setattr(subject, "_COMING", 0.0)
    node.disks.there = {}
    after = node.boot()
    pulled = await after.pull(ONE)
    assert after.get(ONE) == pulled
    assert [job.place for job in node.jobs] == ["pool", "memory"]
    assert node.told == ["Warning: images are kept in memory: pool fast is not there"], "and once only"


async def test_a_pool_that_is_lost_meanwhile_costs_another_pull(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_COMING", 0.0)
    store = node.boot()
    await store.pull(ONE)
    there, node.disks.there = node.disks.there, {}
    await store.pull(ONE)
    assert [job.place for job in node.jobs] == ["pool", "memory"]
    node.disks.there = there
    assert (await store.pull(TWO)).layers
    assert node.jobs[-1].place == "pool"
    assert len(node.jobs[-1].present) == 2, "its layers are there again"


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def to_link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: rewrite(path, b"?" + path.read_bytes()[1:]), id="another byte"),
        pytest.param(lambda path: rewrite(path, path.read_bytes()[:-1]), id="cut"),
        pytest.param(lambda path: rewrite(path, b""), id="empty"),
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(to_link, id="a link"),
        pytest.param(to_pipe, id="a pipe"),
    ],
)
async def test_a_layer_that_is_not_what_it_was_is_fetched_again(
    node: Node, damage: Callable[[Path], None]
) -> None:
    pulled = await node.boot().pull(ONE)
    layer = node.root / f"images/layers/{1:064x}.erofs"
    content = layer.read_bytes()
    damage(layer)
    after = node.boot()
    await after.pull(ONE)
    if len(node.jobs) == 1:  # its size was right: what it has is looked at before it is used
        with pytest.raises(OSError, match="its file was damaged or changed; it is fetched again"):
            await after.verify(pulled)
        assert after.get(ONE) is None
        await after.pull(ONE)
    await after.verify(pulled)
    assert [job.present for job in node.jobs[1:]] == [(pulled.layers[1],)], "the other one is still good"
    assert layer.read_bytes() == content


async def test_what_nobody_remembers_goes_when_the_pool_is_taken(node: Node) -> None:
    await node.boot().pull(ONE)
    layers, work = node.root / "images/layers", node.root / "images/incoming"
    (layers / "unknown.erofs").write_bytes(b"x")
    (work / "left").mkdir()
    (work / "left/half.partial").write_bytes(b"x")
    await node.boot().pull(ONE)
    assert node.files == ["01", "02"]
    assert list(work.iterdir()) == []
    node.kept.sections.clear()
    await node.boot().pull(TWO)
    assert node.files == ["02", "03"], "a node that remembers nothing believes nothing"


async def test_a_full_pool_is_told_and_memory_takes_the_image(node: Node) -> None:
    store = node.boot()

    def full(job: Job) -> None:
        if job.place == "pool":
            raise NoRoomError("cannot keep the image on its pool: 0 MiB are free", 1)

    node.fails = full
    pulled = await store.pull(ONE)
    assert store.get(ONE) == pulled
    assert node.told == [
        "Warning: it is kept in memory, not on pool fast: cannot keep the image on its pool: 0 MiB are free"
    ]
    assert list((node.root / "images/incoming").iterdir()) == []


async def test_unused_images_make_room_on_a_pool(node: Node) -> None:
    store = node.boot()
    await store.pull(ONE)
    node.fails = lambda job: fail_if(len(node.files) > 1)
    await store.pull("http://127.0.0.1/4")
    assert node.files == ["04"]
    assert [job.place for job in node.jobs] == ["pool", "pool", "pool"]
    assert store.get(ONE) is None


def fail_if(short: bool) -> None:
    if short:
        raise NoRoomError("short", 1)


async def test_a_pool_that_cannot_be_written_leads_to_memory(node: Node) -> None:
    store = node.boot()
    await store.pull(ONE)
    (node.root / "images/incoming").rmdir()
    (node.root / "images/incoming").write_bytes(b"a file")
    assert (await store.pull(TWO)).layers
    assert [job.place for job in node.jobs] == ["pool", "memory"]
    assert "Not a directory" in node.told[-1]


async def test_a_pool_that_cannot_be_looked_at_is_not_tried_for_every_image(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node.root / "images").write_bytes(b"a file")
    store = node.boot()
    await store.pull(ONE)
    (node.root / "images").unlink()
    await store.pull(TWO)
    assert [job.place for job in node.jobs] == ["memory", "memory"]
    assert len(node.told) == 1
    assert "pool fast cannot be used" in node.told[0]
    monkeypatch.setattr(node.pool, "_next_try", 0.0)
    await store.pull("http://127.0.0.1/4")
    assert node.jobs[-1].place == "pool"


async def test_a_disk_that_hangs_is_done_without(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = await node.boot().pull(ONE)
    after = node.boot()
    await after.pull(ONE)
    monkeypatch.setattr(subject, "_READ", 0.2)
    layer = node.root / f"images/layers/{1:064x}.erofs"
    monkeypatch.setattr(subject, "digests", wait_for_ever)
    with pytest.raises(HungError, match=r"no answer within 0\.2 s"):
        await after.verify(pulled)
    assert node.told == [
        "Warning: images are kept in memory: pool fast does not answer: no answer within 0.2 s"
    ]
    await after.pull(ONE)
    assert [job.place for job in node.jobs] == ["pool", "memory"]
    assert layer.exists(), "it may be good"


def wait_for_ever(_: str, __: tuple[str, ...]) -> dict[str, Layer]:
    """A job of the worker that waits for a disk."""
    signal.pause()
    return {}


async def test_what_a_newer_image_remembers_is_left_alone(node: Node) -> None:
    await node.boot().pull(ONE)
    newer = msgspec.json.encode({"pool": "fast", "images": ["another form"]})
    node.kept.sections["image-cache"] = newer
    after = node.boot()
    await after.pull(TWO)
    assert node.jobs[-1].place == "memory"
    assert node.files == ["01", "02"], "nothing was swept"
    assert node.kept.sections["image-cache"] == newer
    assert "it is not understood what is on the pool" in node.told[0]


async def test_a_folder_that_is_a_link_is_not_followed(node: Node, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (node.root / "images").symlink_to(victim)
    store = node.boot()
    await store.pull(ONE)
    assert list(victim.iterdir()) == []
    assert node.jobs[-1].place == "memory"


async def test_a_puller_that_leaves_no_layer_is_told(node: Node) -> None:
    node.leave = lambda job: Image(f"sha256:{1:064x}", RunConfig(), (f"sha256:{1:064x}",))  # type: ignore[method-assign]
    store = node.boot()
    with pytest.raises(PullError, match="did not leave layer"):
        await store.pull(ONE)
    assert "No such file" in node.told[-1]


async def test_what_cannot_be_remembered_is_told_and_serves_until_the_reboot(node: Node) -> None:
    node.kept.full = True
    store = node.boot()
    pulled = await store.pull(ONE)
    assert store.get(ONE) == pulled
    assert "what is on pool fast is not remembered: cannot remember it: no disk is there" in node.told[-1]


async def test_images_that_are_removed_are_not_remembered(node: Node) -> None:
    store = node.boot()
    pulled = await store.pull(ONE)
    await store.pull(TWO)
    freed = await store.remove({pulled.digest})
    assert (freed, node.files) == (len(CONTENT) + 64, ["02", "03"])
    kept: Any = msgspec.json.decode(node.kept.sections["image-cache"])
    assert list(kept["images"]) == [TWO]


async def test_another_pool_is_begun_anew(node: Node, tmp_path: Path) -> None:
    await node.boot().pull(ONE)
    (tmp_path / "other").mkdir()
    node.disks.there["other"], node.wanted = str(tmp_path / "other"), "other"
    store = node.boot()
    assert (await store.pull(ONE)).layers
    assert len(node.jobs) == 2
    assert len(list((tmp_path / "other/images/layers").iterdir())) == 2


async def test_a_node_without_a_pool_does_not_ask_for_one(node: Node) -> None:
    node.wanted = None
    store = node.boot()
    await store.pull(ONE)
    assert node.jobs[-1].place == "memory"
    assert node.told == []


# how layers are mounted


@pytest.fixture
def real(node: Node, mkfs: None, tmp_path: Path) -> Node:
    """A node whose layers are file systems with one file, on a pool that is a file system of its own."""
    file = tmp_path / "layer"
    make_erofs(file, [tar_of(entry("hello", b"hello" * 9000))], "a layer", lambda _: None)
    node.content = file.read_bytes()
    mounts.mount("ramfs", str(node.root), "ramfs")
    return node


def can_unmount(node: Node) -> bool:
    """Whether nothing keeps the pool, which is gone by that; what pulled it would wait for the same."""
    return subprocess.run(["umount", node.root], capture_output=True, check=False).returncode == 0


def device(copy: int) -> int:
    """The file system that a copy is of."""
    return os.stat("hello", dir_fd=copy).st_dev


async def test_containers_share_what_was_read_of_a_layer_on_a_pool(real: Node) -> None:
    """Each mount of the file would be a file system of its own, with its own pages of it."""
    store = real.boot()
    image = await store.pull(ONE)
    first, second = await asyncio.gather(store.mount_layers(image), store.mount_layers(image))
    try:
        assert list(map(device, first)) == list(map(device, second))
        assert len(set(map(device, first))) == len(image.layers)
        await store.remove({image.digest})
        assert list(real.mounted.iterdir()) == []
        assert real.files == []
        assert os.stat("hello", dir_fd=first[0]).st_size == 45_000, "who has a copy keeps it"
    finally:
        close_all([*first, *second])


@pytest.mark.parametrize("how", ["it went", "somebody wants to unmount it", "the config names another"])
async def test_a_pool_that_ends_is_let_go(real: Node, how: str, tmp_path: Path) -> None:
    store = real.boot()
    image = await store.pull(ONE)
    copies = await store.mount_layers(image)
    assert not can_unmount(real), "a container runs"
    close_all(copies)
    assert not can_unmount(real), "its layers stay mounted for the next one"
    match how:
        case "it went":
            del real.disks.there["fast"]
            real.disks.changed.set()
            async with asyncio.timeout(30):
                await real.pool._watching
            assert real.told == ["Warning: images are kept in memory: pool fast is not there"]
        case "somebody wants to unmount it":
            await store.let_go()
        case _:
            (tmp_path / "other").mkdir()
            real.disks.there["other"], real.wanted = str(tmp_path / "other"), "other"
            await store.settle()
    assert can_unmount(real)


async def test_a_new_daemon_lets_go_of_what_the_last_one_had_mounted(real: Node) -> None:
    store = real.boot()
    copies = await store.mount_layers(await store.pull(ONE))
    after = real.boot()
    again = await after.mount_layers(await after.pull(ONE))
    try:
        assert set(map(device, again)).isdisjoint(map(device, copies)), "it looks at each file anew"
    finally:
        close_all([*copies, *again])
    await after.let_go()
    assert can_unmount(real)
    assert real.told == []


async def test_a_layer_that_does_not_mount_is_fetched_again(node: Node) -> None:
    store = node.boot()
    image = await store.pull(ONE)
    with pytest.raises(OSError, match=r"cannot use layers of pool fast: .*erofs"):
        await store.mount_layers(image)
    assert store.get(ONE) is None
    assert node.files == []
    assert node.told == []


def wait_with_mounts(_: str, __: str, ___: tuple[str, ...]) -> None:
    """A mount that waits for a disk."""
    signal.pause()


async def test_a_disk_that_hangs_while_it_is_mounted_is_done_without(
    real: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = real.boot()
    image, other = await store.pull(ONE), await store.pull(TWO)
    close_all(await store.mount_layers(image))
    monkeypatch.setattr(subject, "_MOUNT", 0.2)
    monkeypatch.setattr(subject, "mount", wait_with_mounts)
    with pytest.raises(HungError):
        await store.mount_layers(other)
    assert "pool fast does not answer" in real.told[-1]
    assert can_unmount(real), "what was mounted before it hung was let go"
