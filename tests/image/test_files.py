"""Writing: all or nothing, and one message when the disk is full."""

from pathlib import Path

import pytest

from image.files import WriteError, replaced_folder, write_atomically, write_folder


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep/lock.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "build", {"a": b"1", "blobs/b": b"2"})
    write_folder(tmp_path / "build", {"c": b"3"})
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


def test_a_failure_leaves_the_old_folder_and_no_other(tmp_path: Path) -> None:
    write_folder(tmp_path / "build", {"a": b"1"})
    with pytest.raises(ZeroDivisionError), replaced_folder(tmp_path / "build") as new:
        (new / "a").write_bytes(bytes(1 // len(list(new.iterdir()))))
    assert (tmp_path / "build/a").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


@pytest.mark.root
def test_a_full_disk_is_one_message_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot write .*build: No space left on device; make room"):
        write_folder(small_disk / "build", {"initramfs": bytes(1 << 20)})
    with pytest.raises(WriteError, match="No space left"):
        write_atomically(small_disk / "lock.json", bytes(1 << 20))
    assert list(small_disk.iterdir()) == []
