"""Figures of mounted pools: what they lack room for, and whether they are written to at all."""

import subprocess

import pytest

from core0.disks.upkeep import lacks_room, read_figures
from core0.linux.btrfs import Device, Space
from tests.core0.conftest import Loop

MIB = 1 << 20


def spaces(metadata: int) -> dict[str, Space]:
    """A small file system of which so many MiB of metadata are used."""
    return {
        "data": Space(414 * MIB, 204 * MIB),
        "system": Space(8 * MIB, 1),
        "metadata": Space(32 * MIB, metadata * MIB),
        "reserve": Space(5 * MIB, 0),
    }


def devices(*unallocated: int) -> tuple[Device, ...]:
    """Devices of which so many MiB are not allocated."""
    return tuple(Device(1, "", "", 512 * MIB, (512 - one) * MIB) for one in unallocated)


@pytest.mark.parametrize(
    ("free", "metadata", "unallocated", "copies", "lacks"),
    [
        pytest.param(210, 1, (1,), 2, "", id="room for both"),
        pytest.param(
            210, 25, (1,), 2, "metadata", id="much is free, but metadata has only the kernel's reserve"
        ),
        pytest.param(210, 25, (64,), 2, "", id="metadata may take more of the disk"),
        pytest.param(210, 25, (64, 1), 2, "metadata", id="metadata needs room on two disks"),
        pytest.param(210, 25, (64, 64, 1), 2, "", id="metadata has room on two of three disks"),
        pytest.param(210, 25, (64, 64, 1), 3, "metadata", id="three copies need room on three disks"),
        pytest.param(0, 1, (1,), 2, "data", id="full"),
        pytest.param(0, 25, (1,), 2, "metadata", id="full of both"),
    ],
)
def test_what_a_pool_lacks_room_for(
    free: int, metadata: int, unallocated: tuple[int, ...], copies: int, lacks: str
) -> None:
    assert lacks_room(free * MIB, spaces(metadata), devices(*unallocated), copies) == lacks


@pytest.mark.root
def test_a_pool_that_is_not_written_to_any_more_is_seen(btrfs_disk: Loop) -> None:
    found = read_figures(str(btrfs_disk.place), {}, 2)
    assert (found.read_only, found.full) == (False, "")
    subprocess.run(["mount", "-o", "remount,ro", btrfs_disk.place], check=True)
    assert read_figures(str(btrfs_disk.place), {}, 2).read_only
