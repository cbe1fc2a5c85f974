"""Health checks by a real Core-X: commands, ports and paths, and what follows when they fail."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from corex.process.health import UNHEALTHY
from corex.wire.health import HealthCheck
from corex.wire.process import ProcessSpec

pytestmark = pytest.mark.root

Start = Callable[..., Awaitable[Any]]
Script = Callable[..., ProcessSpec]
OFTEN = {"interval": 0.1, "timeout": 5.0, "retries": 2}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_a_command_says_how_the_container_is(start: Start, sh: Script, busybox_root: Path) -> None:
    well = busybox_root / "tmp" / "well"
    check = HealthCheck(("test", "-e", "/tmp/well"), **OFTEN)
    core = await start(busybox_root, check, main=sh("sleep 100"))
    assert (await core.until_health(lambda one: True)).state in ("starting", "unhealthy")
    well.touch()
    healthy = await core.until_health(lambda one: one.state == "healthy")
    assert healthy.why == "its check succeeded"
    well.unlink()
    unhealthy = await core.until_health(lambda one: one.state == "unhealthy")
    assert unhealthy.why == "its check fails: its command ended with code 1"
    assert unhealthy.since >= healthy.since
    assert (await core.client.process("main")).restarts == 0, "nobody asked for that"
    assert core.imported_late() == []


async def test_a_port_and_what_it_answers_say_how_the_container_is(start: Start, busybox_root: Path) -> None:
    (busybox_root / "tmp" / "index.html").write_text("well")
    port = free_port()
    server = ProcessSpec(("httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", "/tmp"))
    for path, state, why in (
        (None, "healthy", "its check succeeded"),
        ("/index.html", "healthy", "its check succeeded"),
        ("/absent", "unhealthy", "its check fails: it answered 404"),
    ):
        core = await start(busybox_root, HealthCheck(port=port, path=path, **OFTEN), main=server)
        report = await core.until_health(lambda one: one.state != "starting")
        assert (report.state, report.why) == (state, why)
        assert core.imported_late() == []
        await core.client.stop("main", 10)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 \xff\xff\r\n", b"x" * 5000, b""])
async def test_what_speaks_no_http_is_unhealthy(
    start: Start, sh: Script, busybox_root: Path, answer: bytes
) -> None:
    import asyncio

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    core = await start(busybox_root, HealthCheck(port=port, path="/", **OFTEN), main=sh("sleep 100"))
    report = await core.until_health(lambda one: one.state == "unhealthy")
    assert "does not speak HTTP" in report.why or "limit" in report.why
    server.close()


async def test_a_port_that_nobody_has_is_named(start: Start, sh: Script, busybox_root: Path) -> None:
    port = free_port()
    core = await start(busybox_root, HealthCheck(port=port, **OFTEN), main=sh("sleep 100"))
    report = await core.until_health(lambda one: one.state == "unhealthy")
    assert report.why == f"its check fails: port {port} takes no connection"


async def test_a_command_that_never_ends_fails_in_time(start: Start, sh: Script, busybox_root: Path) -> None:
    check = HealthCheck(("sleep", "100"), interval=0.1, timeout=0.2, retries=1)
    core = await start(busybox_root, check, main=sh("sleep 100"))
    report = await core.until_health(lambda one: one.state == "unhealthy")
    assert report.why == "its check fails: its command did not end within 0.2 s"


async def test_an_unhealthy_process_is_restarted_if_that_is_wanted(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    check = HealthCheck(("test", "-e", "/tmp/alive"), restart=True, **OFTEN)
    again = sh("test -e /tmp/second && touch /tmp/alive; touch /tmp/second; exec sleep 100", restart="always")
    core = await start(busybox_root, check, main=again)
    await core.until_health(lambda one: one.state == "healthy")
    main = await core.client.process("main")
    assert main.state == "running"
    assert "restarted on request" in main.why


async def test_an_unhealthy_container_that_must_not_restart_ends(
    start: Start, sh: Script, busybox_root: Path
) -> None:
    check = HealthCheck(("test", "-e", "/nowhere"), restart=True, **OFTEN)
    core = await start(busybox_root, check, main=sh("exec sleep 100", restart="never"))
    assert await core.exit_code() == UNHEALTHY
