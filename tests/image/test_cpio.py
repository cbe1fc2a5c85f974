"""The archive of the kernel: round trips, damage, and what the cpio program makes of it."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image import cpio, initramfs
from image.tree import Entry, Kind, file, folder, link

NAMES = st.text("abcdefghij./-_", min_size=1, max_size=40).map(lambda text: f"x{text}")
FILES = st.builds(Entry, NAMES, st.just(Kind.FILE), st.integers(0, 0o7777), st.binary(max_size=50))
FOLDERS = st.builds(Entry, NAMES, st.just(Kind.FOLDER), st.integers(0, 0o7777))
LINKS = st.builds(Entry, NAMES, st.just(Kind.LINK), st.just(0o777), st.binary(min_size=1, max_size=30))
DEVICES = st.builds(
    Entry,
    path=NAMES,
    kind=st.just(Kind.DEVICE),
    mode=st.just(0o600),
    device=st.tuples(st.integers(0, 4095), st.integers(0, 1048575)),
)
ENTRIES = st.lists(FILES | FOLDERS | LINKS | DEVICES, max_size=8)


@given(ENTRIES, st.integers(0, 2**32 - 1))
def test_unpacking_gives_what_was_packed(entries: list[Entry], epoch: int) -> None:
    assert list(cpio.unpack(cpio.pack(entries, epoch))) == entries


@given(st.lists(st.tuples(ENTRIES, st.booleans()), max_size=3))
def test_segments_of_both_kinds_unpack_one_behind_the_other(segments: list[tuple[list[Entry], bool]]) -> None:
    archive = b"".join(
        initramfs.dense_segment(entries, 1) if dense else initramfs.segment(entries, 1, level=3)
        for entries, dense in segments
    )
    assert list(initramfs.entries(archive)) == [entry for entries, _ in segments for entry in entries]


@given(st.lists(FILES, min_size=1, max_size=4), st.data())
def test_a_cut_archive_is_refused(entries: list[Entry], data: st.DataObject) -> None:
    archive = cpio.pack(entries, 0)
    trailer = archive.index(b"TRAILER!!!")
    cut = data.draw(st.integers(0, trailer - 1))
    with pytest.raises(cpio.CpioError):
        list(cpio.unpack(archive[:cut]))


def test_a_cut_initramfs_is_refused() -> None:
    archive = initramfs.segment([file("a", b"x" * 1000, "t")], 0, level=3)
    with pytest.raises(cpio.CpioError, match="the last segment is cut"):
        list(initramfs.entries(archive[:-5]))
    with pytest.raises(cpio.CpioError, match="the last segment is cut"):
        list(initramfs.entries(archive + b"rubbish"))
    with pytest.raises(cpio.CpioError, match="is not LZ4"):
        list(initramfs.entries(archive[:8] + b"\xff" * (len(archive) - 8)))
    with pytest.raises(cpio.CpioError, match="begins with neither LZ4 nor Zstandard"):
        list(initramfs.entries(b"rubbish"))


def test_a_cut_dense_segment_is_refused() -> None:
    archive = initramfs.dense_segment([file("a", b"x" * 1000, "t")], 0)
    with pytest.raises(cpio.CpioError, match="the last segment is cut"):
        list(initramfs.entries(archive[:-5]))
    with pytest.raises(cpio.CpioError, match="is not Zstandard"):
        list(initramfs.entries(archive[:6] + b"\xff" * (len(archive) - 6)))


@pytest.mark.skipif(
    not shutil.which("cpio"), reason="the independent peer, the program cpio, is not installed"
)
def test_the_cpio_program_reads_the_archive(tmp_path: Path) -> None:
    entries = [
        folder("etc", "t"),
        file("etc/name", b"node\n", "t", 0o640),
        link("name", "etc/name", "t"),
    ]
    subprocess.run(["cpio", "-idm", "--quiet"], input=cpio.pack(entries, 86400), cwd=tmp_path, check=True)
    assert (tmp_path / "name").read_bytes() == b"node\n"
    assert (tmp_path / "etc/name").stat().st_mtime == 86400
    assert (tmp_path / "etc/name").stat().st_mode & 0o7777 == 0o640


def test_the_same_entries_give_the_same_bytes_whatever_their_origin() -> None:
    entry = file("a", b"1", "one")
    assert cpio.pack([entry], 5) == cpio.pack([replace(entry, origin="two")], 5)
