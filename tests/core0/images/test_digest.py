"""The digest of what passes, which a thread takes: the same as ever, in order, and nothing of it stays."""

import hashlib
import os
import threading

import pytest

from core0.images.digest import Digest


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param((), id="nothing"),
        pytest.param((1, 2, 3), id="small pieces"),
        pytest.param((1 << 20,) * 9, id="more pieces than may wait"),
        pytest.param((1 << 20, 1, 1 << 18, 0, 7, 1 << 20), id="small ones behind large ones"),
    ],
)
def test_pieces_have_the_digest_of_their_whole(sizes: tuple[int, ...]) -> None:
    pieces = [os.urandom(size) for size in sizes]
    with Digest() as seen:
        for piece in pieces:
            seen.update(piece)
        assert seen.text() == "sha256:" + hashlib.sha256(b"".join(pieces)).hexdigest()


def give_up() -> None:
    with Digest() as seen:
        for _ in range(9):
            seen.update(bytes(1 << 20))
        assert [one for one in threading.enumerate() if "ThreadPool" in one.name], "the control: it has one"
        raise OSError("it broke off")


def test_who_gives_up_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="broke off"):
        give_up()
    assert threading.active_count() == before
