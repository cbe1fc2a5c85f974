"""A stranger's tree as a tar: what is in it, what is not, and what it does meanwhile."""

import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core0.containers import export
from core0.containers.export import stream_of
from core0.linux import mounts


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def tarred(folder: Path) -> tarfile.TarFile:
    with opened(folder) as root:
        return tarfile.open(fileobj=io.BytesIO(b"".join(stream_of(root))), errors="surrogateescape")


def test_everything_of_a_tree_is_in_it_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir(mode=0o711)
    (tmp_path / "etc" / "file").write_bytes(b"content" * 100_000)
    (tmp_path / "etc" / "file").chmod(0o4750)
    os.link(tmp_path / "etc" / "file", tmp_path / "other")
    (tmp_path / "link").symlink_to("/etc/../" + "x" * 150)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ("n" * 200)).write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")).write_bytes(b"odd")
    os.setxattr(tmp_path / "etc" / "file", "user.colour", b"\x00red")
    archive = tarred(tmp_path)
    found = {one.name: one for one in archive.getmembers()}
    assert list(found) == sorted(found), "the same tree is the same tar"
    file = found["etc/file"]
    content = archive.extractfile(file)
    assert content
    assert content.read() == b"content" * 100_000
    assert (file.mode, file.pax_headers["SCHILY.xattr.user.colour"]) == (0o4750, "\x00red")
    assert (found["other"].islnk(), found["other"].linkname) == (True, "etc/file")
    assert (found["link"].issym(), found["link"].linkname) == (True, "/etc/../" + "x" * 150)
    assert found["etc"].mode == 0o711
    assert found["pipe"].isfifo()
    assert found["\udcff\udcfe"].size == 3
    assert found["n" * 200].isfile()


def test_debian_s_tar_unpacks_it(tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("content")
    copy.mkdir()
    with opened(tree) as root:
        subprocess.run(["tar", "-x", "-C", copy], input=b"".join(stream_of(root)), check=True)
    assert (copy / "a" / "b" / "file").read_text() == "content"


def test_sockets_are_left_out_and_links_are_not_followed(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (tree / "folder").symlink_to(outside)
    (tree / "file").symlink_to(outside / "secret")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "listener"))
        found = {one.name: one for one in tarred(tree).getmembers()}
    assert set(found) == {"folder", "file"}
    assert all(one.issym() for one in found.values())


@pytest.mark.root
def test_other_mounts_are_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "x", tmp_path / "data"], check=True)
    try:
        (tmp_path / "data" / "inside").write_text("of a volume")
        assert [one.name for one in tarred(tmp_path).getmembers()] == ["data"]
    finally:
        subprocess.run(["umount", tmp_path / "data"], check=True)


@pytest.mark.parametrize("change", [b"", b"x" * 5000], ids=["shrinks", "grows"])
def test_a_file_that_changes_meanwhile_has_the_length_that_it_had(tmp_path: Path, change: bytes) -> None:
    (tmp_path / "file").write_bytes(b"y" * 3000)
    with opened(tmp_path) as root:
        stream = stream_of(root)
        data = next(stream)
        (tmp_path / "file").write_bytes(change)
        data += b"".join(stream)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (found,) = archive.getmembers()
        assert found.size == 3000


def test_one_that_goes_meanwhile_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    with opened(tmp_path) as root:
        stream = stream_of(root)
        data = next(stream)
        (tmp_path / "c").unlink()
        data += b"".join(stream)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a", "b"]


def test_what_is_nested_too_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_DEEPEST", 5)
    (tmp_path / "a/b/c/d/e/f").mkdir(parents=True)
    with pytest.raises(OSError, match="its path is too long"):
        tarred(tmp_path)


# what a container does to its files while they are read


@pytest.fixture
def swap(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Callable[[Path], object]], None]:
    """Have something put in a file's place after it was looked at, and before it is opened or read as a link."""

    def arrange(victim: Path, put: Callable[[Path], object], *, when_opened: bool) -> None:
        opens, readlink = mounts.open_in_root, os.readlink

        def once(name: str) -> None:
            if name == victim.name and not done:
                done.append(name)
                victim.rename(victim.with_name("z-moved"))
                put(victim)

        def open_late(root: int, path: str, *others: int, **named: bool) -> int:
            once(path)
            return opens(root, path, *others, **named)

        def readlink_late(path: str, *, dir_fd: int) -> str:
            if not when_opened:
                once(path)
            return readlink(path, dir_fd=dir_fd)

        done: list[str] = []
        monkeypatch.setattr(mounts, "open_in_root", open_late)
        monkeypatch.setattr(os, "readlink", readlink_late)

    return arrange


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def put_folder(path: Path) -> None:
    path.mkdir()
    (path / "inner").write_text("of a folder that was none")


SWAPS = [
    pytest.param(lambda _: None, id="nothing"),
    pytest.param(lambda path: path.symlink_to("/etc"), id="a link to a folder"),
    pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="a link to a file"),
    pytest.param(os.mkfifo, id="a FIFO"),
    pytest.param(bind, id="a socket"),
    pytest.param(put_folder, id="a folder"),
    pytest.param(lambda path: path.write_text("another"), id="a file"),
]


def make_victim(tree: Path, kind: str) -> Path:
    """A file, a link or a folder between two others."""
    victim = tree / "m-victim"
    (tree / "a").write_text("a")
    (tree / "z").write_text("z")
    match kind:
        case "file":
            victim.write_text("victim")
        case "link" | "link that was read":
            victim.symlink_to("/etc")
        case _:
            victim.mkdir()
            (victim / "inner").write_text("inner")
    return victim


@pytest.mark.parametrize("put", SWAPS)
@pytest.mark.parametrize("kind", ["file", "link", "link that was read", "folder"])
def test_what_is_swapped_leads_nobody_outside(
    tmp_path: Path, swap: Callable[..., None], kind: str, put: Callable[[Path], object]
) -> None:
    """Who unpacks the tar writes where it says: nothing may lie below a link, and nothing of others be in it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    swap(make_victim(tree, kind), put, when_opened=kind == "link that was read")
    members = tarred(tree).getmembers()
    found = {one.name: one for one in members}
    assert len(found) == len(members)
    assert {"a", "z"} <= found.keys(), "the rest is there"
    assert set(found) <= {"a", "m-victim", "m-victim/inner", "z"}
    for name in found:
        above = found.get(name.rpartition("/")[0])
        assert above is None or above.isdir(), f"{name} lies below what is no folder"


def test_the_control_of_swaps(tmp_path: Path) -> None:
    """Without one, each of them is in it."""
    for kind in ("file", "link", "folder"):
        tree = tmp_path / kind
        tree.mkdir()
        make_victim(tree, kind)
        assert "m-victim" in tarred(tree).getnames()


def test_a_second_name_counts_on_no_first_one_that_went(tmp_path: Path, swap: Callable[..., None]) -> None:
    (tmp_path / "b-first").write_text("content")
    os.link(tmp_path / "b-first", tmp_path / "c-second")
    swap(tmp_path / "b-first", lambda _: None, when_opened=True)
    archive = tarred(tmp_path)
    content = archive.extractfile("c-second")
    assert archive.getmember("c-second").isreg()
    assert content
    assert content.read() == b"content"


def test_a_farm_of_hard_links_has_its_content_once(tmp_path: Path) -> None:
    (tmp_path / "0000").write_bytes(b"x" * 10_000)
    for number in range(1, 5000):
        os.link(tmp_path / "0000", tmp_path / f"{number:04}")
    found = tarred(tmp_path).getmembers()
    assert len(found) == 5000
    assert [one.size for one in found if one.isreg()] == [10_000]
    assert {one.linkname for one in found if one.islnk()} == {"0000"}


def test_any_name_is_unpacked_as_it_was(tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    names = [
        b"with\nnewline",
        b"n" * 255,
        b"-rf",
        b" ",
        b"\\",
        b"\xff\n" * 60,
        b"=",
        b"1 path=x\n",
        b"a" * 100,
    ]
    for folder in (tree, copy):
        folder.mkdir()
    for name in names:
        Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(name)
    with opened(tree) as root:
        subprocess.run(["tar", "-x", "-C", copy], input=b"".join(stream_of(root)), check=True)
    found = {os.fsencode(one.name): one.read_bytes() for one in copy.iterdir()}
    assert found == {name: name for name in names}


def test_holes_without_end_are_refused_and_small_ones_are_zeros(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    content = tarred(tmp_path).extractfile("sparse")
    assert content
    assert content.read() == bytes(1 << 20)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(OSError, match=r"sparse.*4398046511104 bytes, of which 0 are there"):
        tarred(tmp_path)


def make_deep(folder: Path, depth: int) -> None:
    """Folders deeper than a path can name."""
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)


def test_folders_without_end_are_refused(tmp_path: Path) -> None:
    make_deep(tmp_path, 900)
    assert len(tarred(tmp_path).getmembers()) == 900
    make_deep(tmp_path / "/".join("d" * 900), 300)
    with pytest.raises(OSError, match="its path is too long"):
        tarred(tmp_path)
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)
