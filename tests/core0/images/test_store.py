"""The node's images: pulls that nobody waits for any more."""

import asyncio
import gc
from pathlib import Path

import pytest

from core0.images import store as subject
from core0.images.model import Job, PullError
from core0.images.store import Store


async def test_a_pull_that_fails_when_nobody_waits_for_it_any_more_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, fail = asyncio.Event(), asyncio.Event()

    async def refuse(_: Job) -> None:
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
    pull = next(iter(store._pulls.values()))
    waiting.cancel()
    await asyncio.wait([waiting])
    fail.set()
    await asyncio.wait([pull])
    del pull, waiting
    gc.collect()
    assert complaints == []
