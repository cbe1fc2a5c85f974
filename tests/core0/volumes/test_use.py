"""Volumes in containers: what is handed out, and what limits follow."""

import os
from pathlib import Path

import pytest

from core0.linux import mounts
from core0.volumes.use import io_lines
from core0.wire.volumes import IoLimits, VolumeSpec
from tests.core0.conftest import Loop
from tests.core0.volumes.conftest import MIB, Node


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
