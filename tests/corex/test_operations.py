"""Long work: what goes on after its request was answered with 202."""

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from corex.client.client import RefusedError
from corex.process import operations as subject
from corex.process.operations import FailedError, Operations
from corex.wire.plan import Layer, ProcessLayer


async def never() -> str:
    await asyncio.sleep(3600)
    return "never"


async def failing() -> str:
    raise FailedError("it could not be")


async def test_an_operation_says_how_it_ended() -> None:
    moments = iter(range(100))
    operations = Operations(lambda: float(next(moments)))
    good = operations.begin("stop", "/a", "owner", asyncio.sleep(0, "it is stopped"))
    bad = operations.begin("start", "/b", "owner", failing())
    late = operations.begin("delete-folder", "/c", "web", never(), cancellable=True)
    await good.wait(5)
    await bad.wait(5)
    await late.wait(0)
    assert [(one.state, one.why) for one in operations.all()] == [
        ("succeeded", "it is stopped"),
        ("failed", "it could not be"),
        ("running", "it is under way"),
    ]
    late.cancel()
    await late.wait(5)
    assert (late.info().state, late.info().ended is not None) == ("cancelled", True)
    with pytest.raises(FailedError):
        bad.raise_failure()


async def test_operations_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST", 3)
    operations = Operations(lambda: 0.0)
    running = [operations.begin("start", f"/{number}", "owner", never()) for number in range(2)]
    for number in range(5):
        await operations.begin("stop", f"/{number}", "owner", asyncio.sleep(0, "")).wait(1)
    assert [one.subject for one in operations.all()] == ["/0", "/1", "/4"], "what runs stays longest"
    for one in running:
        one.cancel()
        await one.wait(5)


@pytest.mark.root
async def test_a_verb_that_takes_longer_is_followed(
    core: Any, browser: aiohttp.ClientSession, sh: Any
) -> None:
    await core.client.put("deaf", sh("trap '' TERM; echo up; while :; do sleep 0.1; done", stop_timeout=1))
    await core.client.start("deaf", 5)
    await core.output("deaf", 1)
    async with browser.post("/v1/processes/deaf/stop") as answer:
        assert (answer.status, (await answer.json())["state"]) == (202, "stopping")
        place = answer.headers["Location"]
    async with browser.delete(place) as answer:
        assert answer.status == 409
    operation = await core.client.operation(place.rpartition("/")[2], wait=20)
    assert (operation.kind, operation.subject, operation.by) == ("stop", "/v1/processes/deaf", "owner")
    assert (operation.state, "SIGKILL" in operation.why) == ("succeeded", True)
    assert await core.client.operations() == [operation]
    await core.client.cancel(operation.id)
    with pytest.raises(RefusedError, match="cannot find operation"):
        await core.client.operation(operation.id)


@pytest.mark.root
async def test_a_start_that_fails_or_is_overtaken_is_said(
    core: Any, browser: aiohttp.ClientSession, sh: Any
) -> None:
    await core.client.put("never", sh("sleep 100", ready={"line": "x", "timeout": 1}))
    await core.client.put("late", sh("sleep 100", ready={"line": "x", "timeout": 600}, stop_timeout=1))
    places = []
    for name in ("never", "late"):
        async with browser.post(f"/v1/processes/{name}/start") as answer:
            assert answer.status == 202
            places.append(answer.headers["Location"].rpartition("/")[2])
    await core.client.stop("late", 10)
    never, late = [await core.client.operation(place, wait=20) for place in places]
    assert (never.state, "was not ready within 1 s" in never.why) == ("failed", True)
    assert late.state == "failed"


@pytest.mark.root
async def test_applying_a_plan_is_an_operation_until_all_is_done(
    core: Any, browser: aiohttp.ClientSession
) -> None:
    argv = ("sleep", "100")
    env = {"PATH": "/bin"}
    layer = Layer("", {"a": ProcessLayer(argv=argv, env=env), "b": ProcessLayer(argv=("/missing",), env=env)})
    await core.client.put_layer("l", layer)
    async with browser.post("/v1/plan/apply") as answer:
        assert answer.status == 202
        place = answer.headers["Location"].rpartition("/")[2]
    done = await core.client.operation(place, wait=20)
    assert (done.kind, done.state, done.why[:15]) == ("apply", "failed", "b is failed: it")
    async with browser.post("/v1/plan/apply?wait=20") as answer:
        assert (answer.status, (await answer.json())["changes"]) == (200, [])
    assert (await core.client.process("a")).state == "running"


@pytest.mark.root
async def test_deleting_a_large_folder_can_be_cancelled(
    core: Any, browser: aiohttp.ClientSession, busybox_root: Path
) -> None:
    folder = busybox_root / "tmp/large"
    folder.mkdir()
    (folder / "x").touch()
    for number in range(40_000):
        os.link(folder / "x", folder / str(number))
    async with browser.delete("/v1/fs/folder?path=/tmp/large&recursive=true&wait=0") as answer:
        assert answer.status == 202
        place = answer.headers["Location"]
    async with browser.delete(place) as answer:
        assert answer.status == 204
    operation = await core.client.operation(place.rpartition("/")[2], wait=20)
    assert operation.state == "cancelled"
    assert folder.exists()
    done = await core.client.delete_folder("/tmp/large", recursive=True)
    assert done.entries > 1
    assert not folder.exists()
