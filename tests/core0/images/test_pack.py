"""Images of containers: what they wrote comes as one more layer, by the puller's rules."""

import contextlib
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from core0.images import store as subject
from core0.images.model import LOCAL, Image, Job, PullError, RunConfig, parse_reference
from core0.images.pull import committed, pull
from core0.images.store import Store
from core0.wire import pieces
from core0.wire.images import ImagesConfig, SignaturePolicy
from tests.core0.images.registry import digest_of, entry, tar_of

HELLO = tar_of(entry("hello", b"hello\n" * 50_000))
BASE = Image("sha256:" + "1" * 64, RunConfig(cmd=("/bin/sh",)), ("sha256:" + "2" * 64,), "a" * 16)
SHOP = f"{LOCAL}shop"


def packed(folder: Path, sent: Sequence[bytes], largest: int = 2 << 30) -> Image:
    """What the puller makes of a layer that comes in pieces; the last one is the end."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who reads may want no more
            for piece in sent:
                pieces.send(theirs, piece)

    sending = threading.Thread(target=send)
    sending.start()
    job = Job(parse_reference(SHOP), str(folder), (), largest, (), stream=ours.detach(), base=BASE)
    try:
        return pull(job)
    finally:
        sending.join()


@pytest.mark.usefixtures("mkfs")
def test_what_a_container_wrote_becomes_a_layer_over_its_image_s(tmp_path: Path) -> None:
    image = packed(tmp_path, (HELLO[:1000], HELLO[1000:], b""))
    assert image == committed(BASE, digest_of(HELLO))
    assert (image.layers, image.run, image.signer) == ((*BASE.layers, digest_of(HELLO)), BASE.run, "")
    (made,) = tmp_path.iterdir()
    assert made.name == f"{digest_of(HELLO).removeprefix('sha256:')}.erofs"
    assert b"hello\nhello\n" in made.read_bytes()


@pytest.mark.usefixtures("mkfs")
@pytest.mark.parametrize(
    ("sent", "why"),
    [
        pytest.param((HELLO[:1000], b""), "what the container wrote", id="a tar that is cut"),
        pytest.param((HELLO[:1000],), "cut before its end", id="a stream that is cut"),
        pytest.param((b"",), "what the container wrote", id="nothing"),
        pytest.param((b"x" * 10_000, b""), "what the container wrote", id="no tar"),
        pytest.param((tar_of(entry("../out", b"x")), b""), r"what the container wrote.*\.\.", id="climbs"),
    ],
)
def test_what_is_no_layer_is_refused_and_leaves_nothing(
    tmp_path: Path, sent: Sequence[bytes], why: str
) -> None:
    with pytest.raises(PullError, match=why):
        packed(tmp_path, sent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("mkfs")
def test_more_than_a_layer_may_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PullError, match="it is over 1000 bytes"):
        packed(tmp_path, (HELLO[:512], HELLO[512:2048], b""), largest=1000)
    assert list(tmp_path.iterdir()) == []


def test_an_image_of_a_container_is_known_by_what_it_is() -> None:
    one, two = (committed(BASE, "sha256:" + digit * 64) for digit in "34")
    assert one == committed(BASE, "sha256:" + "3" * 64)
    assert one.digest != two.digest


async def test_where_signatures_are_wanted_none_is_made(tmp_path: Path) -> None:
    config = ImagesConfig(signatures={"": SignaturePolicy(operator=True)})
    store = Store(tmp_path, lambda: config, b"\1" * 32)
    with pytest.raises(PullError, match="nobody has signed what a container wrote"):
        await store.commit(SHOP, BASE, 0)


async def test_the_puller_is_told_what_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    async def run(job: Job, _: object) -> Image:
        jobs.append(job)
        return BASE

    monkeypatch.setattr(subject, "_run_puller", run)
    monkeypatch.setattr(subject.os, "chown", lambda *_: None)
    store = Store(tmp_path)
    store._in_memory |= set(BASE.layers)
    assert await store.commit(SHOP, BASE, 7) == BASE
    assert store.get(SHOP) == BASE
    (job,) = jobs
    assert (job.base, job.stream, job.reference.base) == (BASE, 7, SHOP)
