"""The volume manager over real file systems: what its verbs do, refuse, and what is there after a power cut."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from core0.linux import btrfs
from core0.volumes import observe
from core0.wire.control import Refusal, RefusedError
from core0.wire.volumes import IoLimits, Origin, VolumeSpec
from tests.core0.conftest import Loop
from tests.core0.volumes.conftest import MIB, Node

pytestmark = pytest.mark.root

SMALL = VolumeSpec(64 * MIB, "fast")


def place(disk: Loop, name: str) -> Path:
    return disk.place / "volumes" / name


def write(file: Path, size: int) -> None:
    with file.open("wb") as out:
        out.write(os.urandom(size))
        os.fsync(out.fileno())


def fill(file: Path) -> tuple[int, str]:
    """Write until the kernel says no: bytes, and how it says it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, os.urandom(1 << 18))
    except OSError as error:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size, errno.errorcode[error.errno or 0]
    finally:
        os.close(descriptor)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


async def refused(work: object) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        await work  # type: ignore[misc]
    return caught.value.refusal


async def test_a_volume_holds_what_its_size_says(node: Node, btrfs_disk: Loop) -> None:
    made = await node.volumes.put("data", SMALL)
    assert (made.state, made.size, made.pool) == ("ready", 64 * MIB, "fast")
    written, said = await asyncio.to_thread(fill, place(btrfs_disk, "data") / "file")
    assert said == "EDQUOT"
    assert written == pytest.approx(64 * MIB, rel=0.01)
    await asyncio.to_thread(os.sync)
    assert (await node.volumes.get("data")).used == pytest.approx(64 * MIB, rel=0.01)
    (place(btrfs_disk, "data") / "file").unlink()
    await asyncio.to_thread(os.sync)
    assert (await node.volumes.get("data")).used < MIB


async def test_what_is_there_as_wanted_is_left_alone(node: Node, btrfs_disk: Loop) -> None:
    first = await node.volumes.put("data", SMALL)
    write(place(btrfs_disk, "data") / "file", MIB)
    assert (await node.volumes.put("data", SMALL)).created == first.created
    assert (place(btrfs_disk, "data") / "file").exists()


async def test_a_volume_grows_and_shrinks(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    assert (await node.volumes.put("data", VolumeSpec(128 * MIB, "fast"))).size == 128 * MIB
    file = place(btrfs_disk, "data") / "file"
    assert (await asyncio.to_thread(fill, file))[0] == pytest.approx(128 * MIB, rel=0.01)
    file.unlink()
    assert (await node.volumes.put("data", VolumeSpec(32 * MIB, "fast"))).size == 32 * MIB
    assert (await asyncio.to_thread(fill, file))[0] == pytest.approx(32 * MIB, rel=0.01)


async def test_a_volume_does_not_shrink_below_what_it_takes(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    (place(btrfs_disk, "data") / "file").write_bytes(os.urandom(40 * MIB))  # still on its way to the disk
    refusal = await refused(node.volumes.put("data", VolumeSpec(32 * MIB, "fast")))
    assert (refusal.status, refusal.pointer) == (409, "/size")
    assert "cannot shrink volume data to 32 MiB: it takes 40" in refusal.detail
    assert "give it 4" in refusal.remedy
    assert (await node.volumes.get("data")).size == 64 * MIB


async def test_a_snapshot_keeps_what_was_and_counts_to_the_volume(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    file = place(btrfs_disk, "data") / "file"
    write(file, 20 * MIB)
    before = file.read_bytes()
    shown = await node.volumes.take_snapshot("data", "monday")
    assert [one.name for one in shown.snapshots] == ["monday"]
    write(file, 20 * MIB)
    kept = btrfs_disk.place / "snapshots" / "data" / "monday" / "file"
    assert kept.read_bytes() == before
    await asyncio.to_thread(os.sync)
    assert (await node.volumes.get("data")).used == pytest.approx(40 * MIB, rel=0.01)
    await node.volumes.delete_snapshot("data", "monday")
    found = await node.wait_until(lambda all_: all_[0].used < 21 * MIB)
    assert found[0].snapshots == ()


async def test_a_snapshot_that_is_there_is_not_taken_again(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    first = await node.volumes.take_snapshot("data", "monday")
    again = await node.volumes.take_snapshot("data", "monday")
    assert first.snapshots == again.snapshots


async def test_a_full_volume_can_be_kept_in_a_snapshot_and_emptied(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    await asyncio.to_thread(fill, place(btrfs_disk, "data") / "file")
    await node.volumes.take_snapshot("data", "full")
    (place(btrfs_disk, "data") / "file").unlink()
    await node.volumes.delete_snapshot("data", "full")
    await node.wait_until(lambda all_: all_[0].used < MIB)


async def test_a_rollback_brings_back_what_was(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    file = place(btrfs_disk, "data") / "file"
    file.write_text("before")
    await node.volumes.take_snapshot("data", "monday")
    write(file, 30 * MIB)
    shown = await node.volumes.put("data", VolumeSpec(80 * MIB, "fast"))
    shown = await node.volumes.roll_back("data", "monday")
    assert file.read_text() == "before"
    assert (shown.size, len(shown.snapshots)) == (80 * MIB, 1)
    await node.wait_until(lambda all_: all_[0].used < MIB)
    assert (await asyncio.to_thread(fill, file))[0] == pytest.approx(80 * MIB, rel=0.01)
    await node.volumes.roll_back("data", "monday")
    assert file.read_text() == "before"
    assert names(btrfs_disk.place / "snapshots" / "data") == ["monday"]


async def test_a_clone_is_a_copy_whose_size_holds_from_the_beginning(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    write(place(btrfs_disk, "data") / "file", 40 * MIB)
    await node.volumes.take_snapshot("data", "monday")
    write(place(btrfs_disk, "data") / "other", 10 * MIB)
    spec = VolumeSpec(64 * MIB, "fast", origin=Origin("data", "monday"))
    made = await node.volumes.put("copy", spec)
    assert made.origin == Origin("data", "monday")
    assert names(place(btrfs_disk, "copy")) == ["file"]
    # the snapshot has 40 of the volume's 50 MiB: known once they are counted
    found = await node.wait_until(lambda all_: all_[0].used < 41 * MIB)
    assert found[0].name == "copy"
    assert found[0].used == pytest.approx(40 * MIB, rel=0.01)
    written, said = await asyncio.to_thread(fill, place(btrfs_disk, "copy") / "new")
    assert (written, said) == (pytest.approx(24 * MIB, rel=0.03), "EDQUOT")
    assert (await node.volumes.put("copy", spec)).name == "copy"
    assert (await node.volumes.put("copy", VolumeSpec(80 * MIB, "fast"))).origin == made.origin


async def test_a_clone_that_deletes_what_it_had_of_its_source_gets_room(
    node: Node, btrfs_disk: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core0.volumes.manager._LOOK_AGAIN", 0.1)
    await node.volumes.put("data", SMALL)
    write(place(btrfs_disk, "data") / "file", 60 * MIB)
    await node.volumes.put("copy", VolumeSpec(64 * MIB, "fast", origin=Origin("data")))
    (place(btrfs_disk, "copy") / "file").unlink()
    await asyncio.to_thread(os.sync)
    node.volumes._places.wake.set()
    await node.wait_until(lambda all_: all_[0].used < MIB)
    assert (await asyncio.to_thread(fill, place(btrfs_disk, "copy") / "new"))[0] == pytest.approx(
        64 * MIB, rel=0.01
    )


async def test_a_clone_outlives_its_source(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    write(place(btrfs_disk, "data") / "file", 20 * MIB)
    content = (place(btrfs_disk, "data") / "file").read_bytes()
    await node.volumes.put("copy", VolumeSpec(64 * MIB, "fast", origin=Origin("data")))
    await node.volumes.delete("data")
    assert (place(btrfs_disk, "copy") / "file").read_bytes() == content
    found = await node.wait_until(lambda all_: all_[0].used < 21 * MIB)
    assert [one.name for one in found] == ["copy"]
    assert found[0].used == pytest.approx(20 * MIB, rel=0.01)


async def test_a_deleted_volume_gives_its_room_back(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", VolumeSpec(1 << 30, "fast"))
    free = await asyncio.to_thread(free_of, btrfs_disk)
    write(place(btrfs_disk, "data") / "file", 200 * MIB)
    await node.volumes.take_snapshot("data", "monday")
    refusal = await refused(node.volumes.delete("data"))
    assert (refusal.status, "monday" in refusal.detail) == (409, True)
    await node.volumes.delete("data", snapshots=True)
    assert await node.volumes.list() == ()
    async with asyncio.timeout(60):
        while free - await asyncio.to_thread(free_of, btrfs_disk) > 10 * MIB:  # noqa: ASYNC110 — nobody tells
            await asyncio.sleep(0.05)
    assert names(btrfs_disk.place / "incoming") == []
    assert (await node.volumes.put("data", SMALL)).used < MIB


def free_of(disk: Loop) -> int:
    subprocess.run(["btrfs", "filesystem", "sync", disk.place], check=True)
    space = os.statvfs(disk.place)
    return space.f_bavail * space.f_frsize


async def test_deleting_leaves_no_quota_groups(node: Node, btrfs_disk: Loop) -> None:
    for _ in range(3):
        await node.volumes.put("data", SMALL)
        write(place(btrfs_disk, "data") / "file", MIB)
        await node.volumes.take_snapshot("data", "monday")
        await node.volumes.roll_back("data", "monday")
        await node.volumes.delete("data", snapshots=True)
        await asyncio.to_thread(subprocess.run, ["btrfs", "subvolume", "sync", btrfs_disk.place], check=True)
    seen = await node.worker.call(observe.observe, str(btrfs_disk.place), deadline=30)
    await node.volumes._places.sweep(node.volumes._places.all["fast"])
    seen = await node.worker.call(observe.observe, str(btrfs_disk.place), deadline=30)
    assert (seen.groups, seen.leftovers) == ((), ())


@pytest.mark.parametrize(
    ("name", "spec", "status", "pointer", "detail"),
    [
        pytest.param("new", VolumeSpec(MIB << 20, "fast"), 422, "/size", "pool fast has 4 GiB", id="large"),
        pytest.param(
            "new", VolumeSpec(MIB << 4, "none"), 422, "/pool", "pool 'none': there is none", id="no pool"
        ),
        pytest.param(
            "new",
            VolumeSpec(64 * MIB, "fast", origin=Origin("nothing")),
            422,
            "/from/volume",
            "no volume 'nothing'",
            id="copy of nothing",
        ),
        pytest.param(
            "new",
            VolumeSpec(64 * MIB, "fast", origin=Origin("data", "sunday")),
            422,
            "/from/snapshot",
            "has no snapshot 'sunday'",
            id="copy of no snapshot",
        ),
        pytest.param(
            "new", VolumeSpec(32 * MIB, "fast", origin=Origin("data")), 422, "/size", "takes 40", id="small"
        ),
        pytest.param(
            "data",
            VolumeSpec(64 * MIB, "fast", origin=Origin("data")),
            409,
            "/from",
            "there already",
            id="is",
        ),
        pytest.param("data", VolumeSpec(64 * MIB), 409, "/pool", "pool fast has one", id="in memory, too"),
        pytest.param(
            "new",
            VolumeSpec(64 * MIB, origin=Origin("data")),
            422,
            "/from",
            "cannot be a copy",
            id="copy there",
        ),
        pytest.param(
            "new", VolumeSpec(64 * MIB, io=IoLimits(1)), 422, "/io", "nothing to limit", id="limits there"
        ),
        pytest.param("new", VolumeSpec(1 << 50), 422, "/size", "of memory", id="more than there is memory"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_made(
    node: Node, btrfs_disk: Loop, name: str, spec: VolumeSpec, status: int, pointer: str, detail: str
) -> None:
    await node.volumes.put("data", SMALL)
    write(place(btrfs_disk, "data") / "file", 40 * MIB)
    before = await node.volumes.list()
    refusal = await refused(node.volumes.put(name, spec))
    assert (refusal.status, refusal.pointer) == (status, pointer)
    assert detail in refusal.detail
    assert refusal.remedy
    assert await node.volumes.list() == before
    assert names(btrfs_disk.place / "incoming") == []


async def test_unknown_volumes_and_snapshots_are_named(node: Node) -> None:
    await node.volumes.put("data", SMALL)
    for work in (
        node.volumes.get("nothing"),
        node.volumes.delete("nothing"),
        node.volumes.take_snapshot("nothing", "one"),
        node.volumes.roll_back("nothing", "one"),
    ):
        assert (await refused(work)).detail == "cannot find volume 'nothing': there is none"
    for work in (node.volumes.delete_snapshot("data", "one"), node.volumes.roll_back("data", "one")):
        refusal = await refused(work)
        assert refusal.status == 404
        assert refusal.detail == "cannot find snapshot 'one' of volume data: there is none"


async def test_what_a_container_has_is_neither_deleted_nor_rolled_back(node: Node) -> None:
    await node.volumes.put("data", SMALL)
    await node.volumes.take_snapshot("data", "monday")
    node.users["data"] = ("web",)
    for work in (node.volumes.delete("data", snapshots=True), node.volumes.roll_back("data", "monday")):
        refusal = await refused(work)
        assert (refusal.status, "container web has it" in refusal.detail) == (409, True)
    assert (await node.volumes.get("data")).containers == ("web",)


def fill_metadata(folder: Path) -> str:
    """Make empty files until the kernel says no."""
    number = 0
    try:
        while True:
            (folder / f"{number:0200}").touch()
            number += 1
    except OSError as error:
        return errno.errorcode[error.errno or 0]


async def until_refused(make: Callable[[int], Awaitable[object]]) -> Refusal:
    """The kernel keeps a reserve, so that something small may still succeed on a full pool."""
    for number in range(500):
        try:
            await make(number)
        except RefusedError as error:
            return error.refusal
    raise AssertionError("a full pool refuses nothing")


async def test_a_full_pool_is_told_and_can_be_emptied(
    idle_node: Node, make_btrfs: Callable[..., Loop]
) -> None:
    disk = make_btrfs("little", 140 * MIB)
    idle_node.pools.change(fast=disk.place)
    async with idle_node.running() as volumes:
        await idle_node.wait_taken("fast")
        size = os.statvfs(disk.place).f_blocks * 4096
        await volumes.put("data", VolumeSpec(size, "fast"))
        await volumes.take_snapshot("data", "empty")
        assert (await asyncio.to_thread(fill, place(disk, "data") / "file"))[1] == "ENOSPC"
        assert await asyncio.to_thread(fill_metadata, place(disk, "data")) == "ENOSPC"
        for make in (
            lambda number: volumes.put(f"more-{number}", VolumeSpec(16 * MIB, "fast")),
            lambda number: volumes.take_snapshot("data", f"full-{number}"),
            lambda number: volumes.put(f"copy-{number}", VolumeSpec(size, "fast", origin=Origin("data"))),
        ):
            refusal = await until_refused(make)
            assert (refusal.status, "pool fast is full" in refusal.detail) == (507, True), refusal
            assert "delete files, snapshots or volumes" in refusal.remedy
        assert names(disk.place / "incoming") == []
        await volumes.delete("data", snapshots=True)
        await asyncio.to_thread(subprocess.run, ["btrfs", "subvolume", "sync", disk.place], check=True)
        assert (await volumes.put("again", SMALL)).state == "ready"


async def test_a_pool_brings_its_volumes_and_takes_them_along(
    node: Node, btrfs_disk: Loop, make_btrfs: Callable[..., Loop]
) -> None:
    await node.volumes.put("data", VolumeSpec(64 * MIB, "fast", IoLimits(read_bps=1000)))
    await node.volumes.take_snapshot("data", "monday")
    node.pools.change()
    (gone,) = await node.wait_until(lambda all_: all_[0].state == "offline")
    assert gone.why == "pool fast is not there; see 'zn pool show fast'"
    refusal = await refused(node.volumes.take_snapshot("data", "tuesday"))
    assert (refusal.status, "pool fast is not there" in refusal.detail) == (409, True)
    btrfs_disk.unmount()
    btrfs_disk.mount()
    node.pools.change(fast=btrfs_disk.place)
    (back,) = await node.wait_until(lambda all_: all_[0].state == "ready")
    assert (back.size, back.io.read_bps) == (64 * MIB, 1000)
    assert [one.name for one in back.snapshots] == ["monday"]
    elsewhere = node.make()
    node.volumes = elsewhere
    async with node.running():
        await node.wait_taken("fast")
        assert (await elsewhere.get("data")).snapshots == back.snapshots


async def test_two_pools_with_a_volume_of_one_name_are_told_apart(
    node: Node, btrfs_disk: Loop, make_btrfs: Callable[..., Loop]
) -> None:
    await node.volumes.put("data", SMALL)
    other = make_btrfs("other")
    node.pools.change(slow=other.place)
    await node.wait_taken("slow")
    node.volumes._places.all.pop("fast")
    await node.volumes.put("data", VolumeSpec(32 * MIB, "slow"))
    node.pools.change(fast=btrfs_disk.place, slow=other.place)
    both = await node.wait_until(lambda all_: [one.state for one in all_] == ["conflict", "conflict"])
    assert [(one.pool, one.size) for one in both] == [("fast", 64 * MIB), ("slow", 32 * MIB)]
    refusal = await refused(node.volumes.get("data"))
    assert (refusal.status, refusal.remedy) == (409, "say which with ?pool=")
    assert (await node.volumes.get("data", "slow")).size == 32 * MIB
    await node.volumes.delete("data", "slow")
    assert (await node.volumes.get("data")).state == "ready"


async def test_a_pool_without_quota_gets_it_with_its_limits(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    await node.volumes.take_snapshot("data", "monday")
    root = os.open(btrfs_disk.place, os.O_RDONLY)
    btrfs.disable_quota(root)
    os.close(root)
    node.pools.change()
    await node.wait_until(lambda all_: all_[0].state == "offline")
    node.said.clear()
    node.pools.change(fast=btrfs_disk.place)
    await node.wait_taken("fast")
    assert ("volume", "pool fast", "Turn quota on") in node.said
    written, said = await asyncio.to_thread(fill, place(btrfs_disk, "data") / "file")
    assert (written, said) == (pytest.approx(64 * MIB, rel=0.01), "EDQUOT")


async def test_quota_of_another_kind_is_told(idle_node: Node, btrfs_disk: Loop) -> None:
    idle_node.pools.change(fast=btrfs_disk.place)
    async with idle_node.running() as volumes:
        await idle_node.wait_taken("fast")
        await volumes.put("data", SMALL)
        root = os.open(btrfs_disk.place, os.O_RDONLY)
        btrfs.disable_quota(root)
        btrfs.enable_quota(root, simple=False)
        os.close(root)
        (shown,) = await volumes.list()
        assert (shown.state, "quota of another kind" in shown.why) == ("failed", True)


async def test_what_a_stranger_left_among_the_volumes_harms_nobody(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    (btrfs_disk.place / "volumes" / "folder").mkdir()
    (btrfs_disk.place / "volumes" / "file").write_text("")
    (btrfs_disk.place / "volumes" / "link").symlink_to("/etc")
    await asyncio.to_thread(os.sync)
    bare = ["btrfs", "subvolume", "create", btrfs_disk.place / "volumes" / "bare"]
    await asyncio.to_thread(subprocess.run, bare, check=True)
    shown = await node.volumes.list()
    assert [(one.name, one.state) for one in shown] == [("bare", "failed"), ("data", "ready")]
    refusal = await refused(node.volumes.put("bare", SMALL))
    assert "nothing is noted of it" in refusal.detail
    refusal = await refused(node.volumes.put("folder", SMALL))
    assert (refusal.status, refusal.detail) == (
        409,
        "cannot create volume folder: cannot create folder: there is one",
    )
    assert (await node.volumes.get("data")).state == "ready"


async def test_a_record_that_cannot_be_understood_is_told(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", SMALL)
    os.setxattr(place(btrfs_disk, "data"), observe.ATTRIBUTE, b"{}")
    (shown,) = await node.volumes.list()
    assert (shown.state, shown.size) == ("failed", 0)
    await node.volumes.delete("data")


async def test_a_pool_that_fails_is_told_and_tried_again(
    node: Node, btrfs_disk: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core0.volumes.manager._LOOK_AGAIN", 0.1)
    await node.volumes.put("data", SMALL)
    root = node.pools.there["fast"]
    node.volumes._places.all["fast"].root = "/nowhere"
    (shown,) = await node.wait_until(lambda all_: all_[0].state == "offline")
    assert shown.why == "pool fast cannot be used: [Errno 2] /nowhere: No such file or directory"
    node.volumes._places.all["fast"].root = root
    node.volumes._places.wake.set()
    await node.wait_until(lambda all_: all_[0].state == "ready")


async def test_volumes_in_memory_are_limited_and_end_with_their_name(node: Node) -> None:
    made = await node.volumes.put("scratch", VolumeSpec(16 * MIB))
    assert (made.pool, made.state) == (None, "ready")
    assert "ends with this boot" in made.why
    file = node.folder / "scratch" / "file"
    written, said = await asyncio.to_thread(fill, file)
    assert (written, said) == (pytest.approx(16 * MIB, rel=0.01), "ENOSPC")
    assert (await node.volumes.put("scratch", VolumeSpec(32 * MIB))).size == 32 * MIB
    assert (await node.volumes.get("scratch")).used == pytest.approx(16 * MIB, rel=0.02)
    assert (await asyncio.to_thread(fill, file))[0] == pytest.approx(32 * MIB, rel=0.01)
    refusal = await refused(node.volumes.put("scratch", VolumeSpec(16 * MIB)))
    assert (refusal.status, refusal.pointer) == (409, "/size")
    refusal = await refused(node.volumes.take_snapshot("scratch", "one"))
    assert (refusal.status, "it lies in the node's memory" in refusal.detail) == (409, True)
    again = node.make()
    assert [one.name for one in await again.list()] == ["scratch"]
    await again.delete("scratch")
    assert (await refused(again.get("scratch"))).status == 404
    assert names(node.folder) == []


async def test_what_was_half_made_in_memory_is_taken_away(node: Node) -> None:
    await node.volumes.put("whole", VolumeSpec(16 * MIB))
    await node.volumes.put("bare", VolumeSpec(16 * MIB))
    (node.folder / "bare.json").unlink()
    (node.folder / "empty").mkdir()
    (node.folder / "noted.json").write_bytes(msgspec.json.encode({}))
    assert [one.name for one in await node.make().list()] == ["whole"]
    assert names(node.folder) == ["whole", "whole.json"]
