"""Nodes of a disk go and come back."""

import os
import stat
from pathlib import Path

import pytest

from core0.linux import device_nodes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes")]


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, str]:
    """A folder in place of /dev, and one in place of /sys that has a disk with a partition."""
    for name, number in (("vda", "252:0"), ("vda/vda1", "252:1"), ("vda/queue", ""), ("vdb", "252:16")):
        folder = tmp_path / "sys" / "block" / name
        folder.mkdir(parents=True)
        if number:
            (folder / "dev").write_text(f"{number}\n")
    (tmp_path / "dev").mkdir()
    return str(tmp_path / "dev"), str(tmp_path / "sys")


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_disk_without_nodes_gets_them_back_and_no_other(places: tuple[str, str]) -> None:
    dev, _ = places
    device_nodes.show("vda", *places)
    device_nodes.show("vda", *places)
    assert names(dev) == ["vda", "vda1"]
    found = Path(dev, "vda1").stat()
    assert stat.S_ISBLK(found.st_mode)
    assert found.st_rdev == os.makedev(252, 1)
    device_nodes.show("vdb", *places)
    device_nodes.hide("vda", *places)
    device_nodes.hide("vda", *places)
    assert names(dev) == ["vdb"]


def test_a_disk_that_has_gone_is_passed_over(places: tuple[str, str]) -> None:
    device_nodes.show("vdz", *places)
    device_nodes.hide("vdz", *places)
    assert names(places[0]) == []
