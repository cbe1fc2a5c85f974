"""Reports of containers' health in files that strangers write to."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from core0.containers.health import Reports, create_report, observe_health
from core0.containers.model import Wanted
from core0.wire.types import ContainerSpec
from corex.wire.health import REPORT_BYTES, HealthCheck, HealthReport
from tests.host_node import HostNode

SPEC = ContainerSpec("http://127.0.0.1:9/demo/", "ab" * 32)
CHECKED = msgspec.structs.replace(SPEC, health=HealthCheck(port=80))
WELL, ILL = HealthReport("healthy", "it is well", 1.0), HealthReport("unhealthy", "it is not", 2.0)


def tell(descriptor: int, report: HealthReport) -> None:
    """As Core-X does."""
    os.pwrite(descriptor, msgspec.json.encode(report).ljust(REPORT_BYTES), 0)


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    assert observe_health(tmp_path) is None
    descriptor = create_report(tmp_path)
    assert starts(tmp_path)
    for report in (ILL, WELL):
        tell(descriptor, report)
        assert observe_health(tmp_path) == report
    os.close(descriptor)
    os.close(create_report(tmp_path))
    assert starts(tmp_path), "of a container that was made anew"


def starts(folder: Path) -> bool:
    found = observe_health(folder)
    return found is not None and found.state == "starting"


@pytest.mark.parametrize(
    "content",
    [
        b"{" * 5000,
        b"\xff" * 100,
        b"x" * 5_000_000,
        msgspec.json.encode({"state": "great", "why": "", "since": 0}),
        msgspec.json.encode({"state": "healthy", "why": "x" * 2000, "since": 0}),
    ],
)
def test_what_is_no_report_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "health").write_bytes(content)
    assert observe_health(tmp_path) is None


def test_orders_to_a_terminal_are_taken_out(tmp_path: Path) -> None:
    tell(create_report(tmp_path), HealthReport("healthy", "\x1b[2Jwell\n", 1.0))
    found = observe_health(tmp_path)
    assert found
    assert found.why == "[2Jwell"


async def test_each_change_is_told_until_nobody_wants_to_know(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    reports, told = Reports(), asyncio.Queue[str]()
    for folder in folders:
        folder.mkdir()
    one, two = map(create_report, folders)
    with reports.watched(folders[0], lambda: told.put_nowait("one")):
        with reports.watched(folders[1], lambda: told.put_nowait("two")):
            assert [told.get_nowait(), told.get_nowait()] == ["one", "two"], "as they are now"
            tell(two, ILL)
            assert await told.get() == "two"
        tell(two, WELL)
        tell(one, WELL)
        assert await told.get() == "one"
    assert told.empty()
    with pytest.raises(OSError, match="cannot watch"), reports.watched(tmp_path, lambda: None):
        pass


async def test_who_waits_for_a_healthy_container_begins_then(host_node: HostNode) -> None:
    host_node.add_container("db", CHECKED)
    descriptor = create_report(host_node.folder / "containers" / "db")
    tell(descriptor, HealthReport("starting", "not yet", 0.5))
    host_node.wanted["web"] = Wanted(msgspec.structs.replace(SPEC, after={"db": "healthy"}))
    async with host_node.daemon() as state:
        containers = state.containers
        containers._world.store.images[SPEC.image] = _image()
        await until(lambda: "healthy, which is starting" in containers.get("web").why)
        assert containers.get("web").state == "waiting"
        tell(descriptor, WELL)
        await until(lambda: containers.get("web").state not in ("waiting", "pulling"))
        assert containers.get("db").health == WELL
        said = [one.message for one in (await state.events.wait_after(0, 0)).events if one.subject == "db"]
        assert "Healthy: it is well" in said


async def test_who_waits_for_a_container_that_is_gone_says_so(host_node: HostNode) -> None:
    host_node.add_container("db", SPEC)
    host_node.wanted["web"] = Wanted(msgspec.structs.replace(SPEC, after={"db": "running"}), run=False)
    async with host_node.daemon() as state:
        containers = state.containers
        containers._world.store.images[SPEC.image] = _image()
        await containers.wait("db", 10)
        await containers.delete("db")
        await until(lambda: [one.name for one in containers.list()] == ["web"])
        await containers.set_running("web", True)
        await until(lambda: "after container db, which is not there" in containers.get("web").why)


def _image() -> object:
    from core0.images.model import Image, RunConfig

    return Image("sha256:" + "1" * 64, RunConfig(), ())


async def until(condition: object) -> None:
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
