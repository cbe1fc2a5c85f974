"""Partition tables by libfdisk, read back by sfdisk."""

import json
import subprocess
from pathlib import Path

import pytest

from core0.linux.fdisk import write_table

CLAIM = "7E5C1D2A-0F5B-4B8C-9A53-0C9F1F6F2D11"
KIND = "7B2F3C70-5A1D-4F0E-9B1F-5A65726F4E01"
SCRIPT = ("label: gpt", f"label-id: {CLAIM}", f"size=16MiB, type={KIND}, name=first", "type=linux")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("core0.wire.paths.STORAGE", "")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


def test_the_table_is_what_the_script_says(disk: Path) -> None:
    write_table(str(disk), SCRIPT)
    said = subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=True).stdout
    table = json.loads(said)["partitiontable"]
    first, second = table["partitions"]
    assert (table["label"], table["id"]) == ("gpt", CLAIM)
    assert (first["start"], first["size"], first["type"], first["name"]) == (2048, 32768, KIND, "first")
    assert second["start"] == 2048 + 32768


def test_what_was_there_is_wiped(disk: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-L", "old", disk], check=True)
    write_table(str(disk), SCRIPT)
    found = subprocess.run(["wipefs", "--output", "TYPE", "--noheadings", disk], capture_output=True).stdout
    assert found.split() == [b"gpt", b"gpt", b"PMBR"]


def test_what_cannot_be_is_said(disk: Path) -> None:
    with pytest.raises(OSError, match="cannot read the script of the disk: Invalid argument"):
        write_table(str(disk), ("label: gpt", "size=much"))
    with pytest.raises(OSError, match="cannot open the disk: No such file"):
        write_table(str(disk.with_name("none")), SCRIPT)
    assert disk.read_bytes().strip(b"\0") == b""
