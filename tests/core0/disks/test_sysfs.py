"""Disks in a tree like sysfs's."""

import shutil
from pathlib import Path

import pytest

from core0.disks import sysfs


def plug(root: Path, name: str) -> None:
    place = root / "devices" / "0000:00:05.0" / name
    (place / "device").mkdir(parents=True)
    (place / "size").write_text("2048\n")
    (root / "block").mkdir(exist_ok=True)
    (root / "block" / name).symlink_to(place)


def test_a_disk_that_is_pulled_while_it_is_looked_at_is_none_and_the_others_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vda", "vdb", "vdc"):
        plug(tmp_path, name)
    look = sysfs._wwn

    def pull(block: str) -> str:
        if block.endswith("vdb"):
            (tmp_path / "block" / "vdb").unlink()
            shutil.rmtree(tmp_path / "devices" / "0000:00:05.0" / "vdb")
        return look(block)

    monkeypatch.setattr(sysfs, "_wwn", pull)
    seen = sysfs.observe(str(tmp_path))
    assert [(disk.device, disk.size) for disk in seen] == [("vda", 1 << 20), ("vdc", 1 << 20)]
