"""Volumes in containers: what is handed out, and what limits follow."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core0.linux import mounts
from core0.volumes.use import io_lines
from core0.wire.volumes import IoLimits, VolumeSpec
from tests.core0.conftest import Loop
from tests.core0.volumes.conftest import MIB, Node


@pytest.fixture
def make_loop(tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Makes blank disks of files."""
    made: list[str] = []

    def make() -> str:
        file = tmp_path / f"blank{len(made)}"
        with file.open("wb") as new:
            new.truncate(4 << 30)
        done = subprocess.run(["losetup", "--find", "--show", file], check=True, capture_output=True)
        made.append(done.stdout.decode().strip())
        return made[-1]

    yield make
    for disk in made:  # one that is in use goes with its file system
        subprocess.run(["losetup", "--detach", disk], check=True)


@pytest.mark.root
@pytest.mark.parametrize("pool", ["fast", None], ids=["on a pool", "in memory"])
async def test_a_volume_is_handed_out_as_a_mount_of_itself_alone(
    node: Node, btrfs_disk: Loop, tmp_path: Path, pool: str | None
) -> None:
    await node.volumes.put("data", VolumeSpec(16 * MIB, pool))
    place = btrfs_disk.place / "volumes" / "data" if pool else node.folder / "data"
    (place / "file").write_text("inside")
    mount = await node.volumes.use.hand_out("data")
    seen = tmp_path / "seen"
    seen.mkdir()
    try:
        mounts.set_attributes(mount, mounts.ATTR_NOSUID | mounts.ATTR_RDONLY)
        mounts.attach(mount, str(seen))
        assert (seen / "file").read_text() == "inside"
        with pytest.raises(OSError, match="Read-only"):
            (seen / "file").write_text("changed")
        (place / "file").write_text("by the node")
        assert (seen / "file").read_text() == "by the node"
    finally:
        os.close(mount)
        mounts.unmount(str(seen))


@pytest.mark.root
async def test_what_cannot_be_handed_out_says_why(node: Node) -> None:
    assert node.volumes.use.trouble("none") == "volume 'none': there is none"
    with pytest.raises(OSError, match="cannot mount volume none: cannot find volume 'none'"):
        await node.volumes.use.hand_out("none")
    await node.volumes.put("data", VolumeSpec(16 * MIB, "fast"))
    assert node.volumes.use.trouble("data") == ""
    node.pools.change()
    await node.wait_until(lambda all_: all_[0].state == "offline")
    assert node.volumes.use.trouble("data") == "", "its pool may come back before the container starts"
    with pytest.raises(OSError, match="cannot mount volume data: pool fast is not there"):
        await node.volumes.use.hand_out("data")


@pytest.mark.root
async def test_limits_follow_the_volumes(node: Node, btrfs_disk: Loop) -> None:
    await node.volumes.put("data", VolumeSpec(16 * MIB, "fast", IoLimits(write_bps=1000)))
    await node.volumes.put("scratch", VolumeSpec(32 * MIB))
    limits = node.volumes.use.limits(["data", "scratch", "none"])
    assert limits.memory == 32 * MIB
    (line,) = limits.io
    number, *rest = line.split()
    assert number.startswith("7:"), "a loop device"
    assert rest == ["rbps=max", "wbps=1000", "riops=max", "wiops=max"]


@pytest.mark.root
async def test_limits_follow_a_pool_to_another_disk(
    node: Node, btrfs_disk: Loop, make_loop: Callable[[], str]
) -> None:
    await node.volumes.put("data", VolumeSpec(16 * MIB, "fast", IoLimits(write_bps=1000)))
    (before,) = node.volumes.use.limits(["data"]).io
    disk = make_loop()
    replace = ("btrfs", "replace", "start", "-B", "-f", "1", disk, str(btrfs_disk.place))
    await asyncio.to_thread(subprocess.run, replace, check=True, capture_output=True)
    node.came.clear()
    node.pools.disks = {"fast": frozenset({disk})}
    node.pools.tell_changed()
    async with asyncio.timeout(60):
        await node.came.wait()
    (after,) = node.volumes.use.limits(["data"]).io
    assert after != before
    assert after == f"7:{disk.removeprefix('/dev/loop')} rbps=max wbps=1000 riops=max wiops=max"


def test_on_each_disk_limits_add_up_and_one_without_frees_all() -> None:
    volumes = [
        (("8:0", "8:16"), IoLimits(read_bps=5, write_bps=10, read_iops=1)),
        (("8:0",), IoLimits(read_bps=7, write_iops=3)),
    ]
    assert list(io_lines(volumes)) == [
        "8:0 rbps=12 wbps=max riops=max wiops=max",
        "8:16 rbps=5 wbps=10 riops=1 wiops=max",
    ]
    assert list(io_lines([])) == []
