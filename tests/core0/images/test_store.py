"""The node's images: pulls that nobody waits for any more, and what goes to make room."""

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path

import pytest

from core0.images import store as subject
from core0.images.model import Image, Job, NoRoomError, PullError, RunConfig
from core0.images.store import Store


async def test_a_pull_that_fails_when_nobody_waits_for_it_any_more_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, fail = asyncio.Event(), asyncio.Event()

    async def refuse(*_: object) -> None:
        begun.set()
        await fail.wait()
        raise PullError("the server answered 404 Not Found")

    monkeypatch.setattr(subject, "_run_puller", refuse)
    monkeypatch.setattr(subject.os, "chown", lambda *_: None)
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    (tmp_path / "images").mkdir()
    store = Store(tmp_path / "images")
    waiting = asyncio.create_task(store.pull("http://127.0.0.1:9/absent/"))
    await begun.wait()
    pull = next(iter(store._pulls.values())).task
    waiting.cancel()
    await asyncio.wait([waiting])
    fail.set()
    await asyncio.wait([pull])
    del pull, waiting
    gc.collect()
    assert complaints == []


def image_of(number: int, layers: Sequence[str]) -> Image:
    return Image(f"sha256:{number:064x}", RunConfig(), tuple(layers))


class Room:
    """A puller of images of one layer each, for which there is room for so many bytes."""

    def __init__(self, store: Store, folder: Path, room: int) -> None:
        self.store = store
        self.layers = folder / "layers"
        self.room = room
        self.jobs: list[Job] = []

    async def run(self, job: Job, _: object) -> Image:
        """Do what the puller does."""
        return self.leave(job)

    def leave(self, job: Job) -> Image:
        """Leave a layer of 1,000 bytes."""
        self.jobs.append(job)
        number = int(job.reference.base.rpartition("/")[2])
        layer = f"{number:064x}"
        if f"sha256:{layer}" not in job.present:
            used = sum(path.stat().st_size for path in self.layers.iterdir())
            if used + 1000 > self.room:
                raise NoRoomError("cannot pull the image: no memory", used + 1000 - self.room)
            Path(job.folder, f"{layer}.erofs").write_bytes(bytes(1000))
        return image_of(number, [f"sha256:{layer}"])


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """Room for three images."""
    folder = tmp_path / "images"
    folder.mkdir()
    made = Room(Store(folder), folder, 3000)
    monkeypatch.setattr(subject, "_run_puller", made.run)
    monkeypatch.setattr(subject.os, "chown", lambda *_, **__: None)
    return made


def here(store: Store) -> list[int]:
    return sorted(int(image.digest[-4:], 16) for image in store.images.values())


async def test_the_longest_unused_images_make_room(room: Room) -> None:
    for number in (1, 2, 3):
        await room.store.pull(f"http://127.0.0.1/{number}")
    await room.store.pull("http://127.0.0.1/1", again=True)
    room.room = 2000
    await room.store.pull("http://127.0.0.1/4")
    assert here(room.store) == [1, 4], "2 and 3 were used longer ago, and both had to go"
    assert [path.stem[-1] for path in sorted(room.layers.iterdir())] == ["1", "4"]
    assert list((room.layers.parent / "work").iterdir()) == []


async def test_what_containers_have_and_what_was_loaded_never_makes_room(room: Room) -> None:
    used = await room.store.pull("http://127.0.0.1/1")
    loaded = await room.store.pull("http://127.0.0.1/2")
    await room.store.pull("http://127.0.0.1/3")
    room.store._images["local:demo"] = loaded
    room.store.in_use = lambda: {used.digest}
    await room.store.pull("http://127.0.0.1/4")
    assert here(room.store) == [1, 2, 2, 4]
    room.store.in_use = lambda: {used.digest, image_of(4, ()).digest}
    with pytest.raises(NoRoomError, match="no memory"):
        await room.store.pull("http://127.0.0.1/5")
    assert here(room.store) == [1, 2, 2, 4], "nothing of it could go"


async def test_a_shared_layer_goes_with_the_last_image_that_has_it(room: Room) -> None:
    await room.store.pull("http://127.0.0.1/1")
    room.store._images["http://127.0.0.1/also"] = image_of(9, image_of(1, [f"sha256:{1:064x}"]).layers)
    room.store.in_use = lambda: {image_of(9, ()).digest}
    room.room = 1500
    with pytest.raises(NoRoomError):
        await room.store.pull("http://127.0.0.1/2")
    assert room.store.size(f"sha256:{1:064x}") == 1000


async def test_nothing_makes_room_while_others_count_on_it(room: Room) -> None:
    for number in (1, 2, 3):
        await room.store.pull(f"http://127.0.0.1/{number}")
    others: asyncio.Future[Image] = asyncio.get_running_loop().create_future()
    room.store._pulls["http://127.0.0.1/other"] = subject._Pull(asyncio.ensure_future(others), others)  # type: ignore[arg-type]
    with pytest.raises(NoRoomError):
        await room.store.pull("http://127.0.0.1/4")
    assert here(room.store) == [1, 2, 3]
    others.cancel()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        pytest.param([b"\n"], "malformed|truncated|Input data", id="nothing"),
        pytest.param([b"{}"], "missing required field `type`", id="no message"),
        pytest.param([b'{"type":"Resolved","digest":"x"}'], "regex", id="no digest"),
        pytest.param([b'{"type":"Outcome"}'] * 3, "it has over 2 lines", id="one that goes on for ever"),
    ],
)
async def test_what_a_puller_says_is_believed_no_more_than_a_stranger(lines: list[bytes], told: str) -> None:
    ear = subject._Ear(asyncio.get_running_loop().create_future())
    with pytest.raises(ValueError, match=told):
        list(map(ear.hear, lines))
