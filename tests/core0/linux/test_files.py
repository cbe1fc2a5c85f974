from pathlib import Path

import pytest

from core0.linux import files


def test_what_was_replaced_is_read_back_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    files.replace(path, b"one", 0o600)
    files.replace(path, b"two", 0o600)
    assert files.read(path) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["secret"]


def test_what_cannot_be_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    files.replace(path, b"one")
    (tmp_path / "kept.new").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace(path, b"two")
    assert files.read(path) == b"one"


def test_writing_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "nothing", "1")
    (tmp_path / "limit").write_text("max and more")
    files.write(tmp_path / "limit", "5")
    assert files.read_text(str(tmp_path / "limit")) == "5"


def test_a_tree_goes_and_what_links_in_it_lead_to_stays(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").touch()
    (tree / "a" / "folder").symlink_to(kept)
    (tree / "a" / "link").symlink_to(kept / "file")
    (tree / "nowhere").symlink_to(tmp_path / "nothing")
    files.remove_tree(tree)
    files.remove_tree(tree)
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["below", "file", "kept"]
