"""The format of a stream: what is foreign, cut or climbs is refused, however it is cut into pieces."""

import itertools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core0.volumes.stream import StreamError, StreamReader
from tests.core0.conftest import Loop

HEAD = b"btrfs-stream\0" + (1).to_bytes(4, "little")
UUID, OTHER = bytes(range(16)), bytes(16)
PATH, PATH_TO, PATH_LINK, CLONE_UUID, XATTR = 15, 16, 17, 20, 13


def command(number: int, **attributes: bytes) -> bytes:
    """A command; attributes by number, as `a15=b"path"`."""
    data = b"".join(
        int(name[1:]).to_bytes(2, "little") + len(value).to_bytes(2, "little") + value
        for name, value in attributes.items()
    )
    return len(data).to_bytes(4, "little") + number.to_bytes(2, "little") + bytes(4) + data


SUBVOLUME = command(1, a15=b"monday", a1=UUID)
END = command(21)
GOOD = HEAD + SUBVOLUME + command(3, a15=b"file") + command(15, a15=b"file", a19=b"x" * 40000) + END


def read(*pieces: bytes) -> tuple[StreamReader, bytes]:
    reader = StreamReader()
    return reader, b"".join(reader.feed(piece) for piece in pieces)


def test_a_whole_stream_is_told_from_one_that_is_cut() -> None:
    reader, out = read(GOOD)
    assert (reader.ended, reader.uuid, reader.parent, reader.name) == (True, UUID.hex(), "", "monday")
    assert out == GOOD
    reader, out = read(GOOD[:-1])
    assert (reader.ended, reader.offset) == (False, len(GOOD) - 1)
    assert out == GOOD[: -len(END)]


@given(st.lists(st.integers(0, len(GOOD)), max_size=8).map(sorted))
@settings(deadline=None)
def test_pieces_make_no_difference(cuts: list[int]) -> None:
    places = [0, *cuts, len(GOOD)]
    reader, out = read(*(GOOD[a:b] for a, b in itertools.pairwise(places)))
    assert (reader.ended, out, reader.offset) == (True, GOOD, len(GOOD))


@given(st.binary(max_size=300), st.integers(0, len(GOOD)))
@settings(deadline=None)
def test_whatever_comes_is_read_or_refused_by_its_own_error(data: bytes, place: int) -> None:
    reader = StreamReader()
    try:
        reader.feed(GOOD[:place] + data)
    except StreamError:
        return
    assert reader.offset == place + len(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"PK\x03\x04", "no btrfs stream", id="another file"),
        pytest.param(b"btrfs-stream\0" + (2).to_bytes(4, "little"), "version 2, not 1", id="version 2"),
        pytest.param(HEAD + command(3, a15=b"x"), "does not begin with a subvolume", id="no subvolume"),
        pytest.param(HEAD + END, "does not begin with a subvolume", id="nothing"),
        pytest.param(HEAD + SUBVOLUME * 2, "more than one subvolume", id="two subvolumes"),
        pytest.param(HEAD + command(1, a15=b"a/b", a1=UUID), "cannot be understood", id="a path as name"),
        pytest.param(HEAD + command(1, a15=b"x", a1=b"1"), "cannot be understood", id="no uuid"),
        pytest.param(
            HEAD + command(2, a15=b"x", a1=UUID), "cannot be understood", id="a snapshot of nothing"
        ),
        pytest.param(HEAD + SUBVOLUME + command(99), "no command", id="unknown command"),
        pytest.param(HEAD + SUBVOLUME + b"\xff\xff\xff\x7f\x01\x00", "", id="length is not complete yet"),
        pytest.param(HEAD + SUBVOLUME + b"\xff\xff\xff\x7f" + bytes(6), "no command", id="endless command"),
        pytest.param(HEAD + SUBVOLUME + b"\x03\0\0\0\x03\0" + bytes(7), "is cut", id="cut attribute"),
        pytest.param(GOOD + b"x", "follows its end", id="more behind the end"),
        pytest.param(HEAD + SUBVOLUME + command(3, a15=b"/etc/x"), "outside", id="absolute path"),
        pytest.param(HEAD + SUBVOLUME + command(3, a15=b"a/../../x"), "outside", id="a path that climbs"),
        pytest.param(
            HEAD + SUBVOLUME + command(9, a15=b"a", a16=b"../x"), "outside", id="a rename that climbs"
        ),
        pytest.param(
            HEAD + SUBVOLUME + command(10, a15=b"a", a17=b"../x"), "outside", id="a link that climbs"
        ),
        pytest.param(
            HEAD + SUBVOLUME + command(16, a15=b"a", a20=OTHER), "not its own", id="a foreign clone"
        ),
        pytest.param(
            HEAD + SUBVOLUME + command(13, a15=b"a", a13=b"trusted.zeronode.volume"),
            "the node's own",
            id="record",
        ),
    ],
)
def test_what_must_not_be_carried_out_is_refused(data: bytes, why: str) -> None:
    if not why:
        assert read(data)[0].ended is False
        return
    with pytest.raises(StreamError, match=why):
        read(data)


def test_a_symbolic_link_may_lead_anywhere() -> None:
    assert read(HEAD + SUBVOLUME + command(8, a15=b"a", a17=b"/etc/passwd") + END)[0].ended


@pytest.mark.root
def test_what_the_kernel_sends_is_understood(make_btrfs: Callable[..., Loop], tmp_path: Path) -> None:
    disk = make_btrfs()
    one = disk.place / "one"
    subprocess.run(["btrfs", "subvolume", "create", one], check=True, capture_output=True)
    (one / "folder").mkdir()
    (one / "folder" / "file").write_bytes(os.urandom(300_000))
    (one / "link").symlink_to("/nowhere")
    os.link(one / "folder" / "file", one / "again")
    os.mkfifo(one / "fifo")
    os.setxattr(one, "trusted.zeronode.volume", b"{}")
    subprocess.run(["cp", "--reflink", one / "again", one / "shared"], check=True)
    subprocess.run(
        ["btrfs", "subvolume", "snapshot", "-r", one, disk.place / "snap"], check=True, capture_output=True
    )
    data = subprocess.run(["btrfs", "send", disk.place / "snap"], check=True, capture_output=True).stdout
    reader, out = read(*(data[at : at + 1000] for at in range(0, len(data), 1000)))
    assert (reader.ended, reader.name, out == data) == (True, "snap", True)
