"""`zn logs` against a real Core-X: which lines, and what a terminal gets of them."""

import asyncio
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from corex.wire.api import ExecRequest
from tests.corex.typist import sit_down

pytestmark = pytest.mark.root


async def test_logs_keep_streams_apart_and_follow(core: Any, sh: Any, zn: Any) -> None:
    await core.client.put("a", sh("echo out; echo err >&2"))
    await core.client.start("a")
    await core.output("a", 2)
    done = await zn("logs", "demo")
    assert (done.out, done.err) == ("a: out\n", "a: err\n")
    records = [json.loads(line) for line in (await zn("logs", "demo", "a", "--json")).out.splitlines()]
    assert {(record["stream"], record["text"]) for record in records} == {
        ("stdout", "out"),
        ("stderr", "err"),
    }


@pytest.fixture
async def written(core: Any, sh: Any) -> None:
    """Three processes that wrote."""
    for name, script in (
        ("a", "for i in 1 2 3 4; do echo a$i; done; echo wrong >&2"),
        ("b", "echo b1; echo b2; echo time-out"),
        ("c", "echo c1"),
    ):
        await core.client.put(name, sh(script))
        await core.client.start(name, 10)
        await core.until(name, "exited")


@pytest.mark.usefixtures("written")
async def test_lines_are_chosen_by_process_stream_time_and_pattern(zn: Any, core: Any) -> None:
    records = (await core.client.logs()).records
    assert len(records) == 9
    assert (await zn("logs", "demo", "b", "c")).out == "b: b1\nb: b2\nb: time-out\nc: c1\n"
    assert (await zn("demo", "a", "--tail", "2", "--stream", "stdout", noun="logs")).out == "a3\na4\n"
    assert (await zn("demo", "-n", "2", noun="logs")).out == "b: time-out\nc: c1\n"
    assert (await zn("demo", "--match", "time-?out", noun="logs")).out == "b: time-out\n"
    later = await zn("demo", "--since", "2100-01-01T00:00:00Z", noun="logs")
    assert (later.code, later.out) == (0, "")
    stamped = await zn("demo", "c", "--since", "1h", "--timestamps", noun="logs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z c1\n", stamped.out)
    assert (await zn("demo", "--until", "1h", "--follow", noun="logs")).out == ""
    refused = await zn("demo", "--match", "(", noun="logs")
    assert (refused.code, "cannot use parameter 'match'" in refused.err) == (3, True)


@pytest.mark.usefixtures("written")
async def test_following_goes_on_with_what_is_wanted(core: Any, sh: Any, contexts: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "--contexts", str(contexts)),
        *("logs", "demo", "a", "b", "-f", "--tail", "1", "--match", "[13]$"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"b: b1\n"
        for name in ("c", "b"):
            await core.client.start(name, 10)
        assert await process.stdout.readline() == b"b: b1\n"
        await core.client.start("a", 10)
        assert await process.stdout.readline() == b"a: a1\n"
        assert await process.stdout.readline() == b"a: a3\n"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_a_pattern_that_takes_too_long_with_what_comes_ends_with_the_reason(
    core: Any, sh: Any, contexts: Path
) -> None:
    await core.client.put(
        "a", sh("echo a; read x < /tmp/gate; echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")
    )
    await core.client.execute(ExecRequest(("/bin/busybox", "mkfifo", "/tmp/gate")))
    await core.client.start("a", 10)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "--contexts", str(contexts)),
        *("logs", "demo", "a", "-f", "--match", "^(a+)+$"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"a\n"
    await core.client.execute(ExecRequest(("/bin/sh", "-c", "echo > /tmp/gate")))
    _, said = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, b"it takes more than 0.25 s" in said) == (3, True)


HOSTILE = r"printf '\033]0;owned\007\033[2J\033[31mred\302\2332J\033[0m \342\200\256end\n'"


async def test_what_is_written_in_a_container_does_not_drive_the_terminal(
    core: Any, sh: Any, zn: Any, contexts: Path
) -> None:
    await core.client.put("evil", sh(f"{HOSTILE}; : '\x1b]0;owned\x07'"))
    await core.client.start("evil", 10)
    await core.until("evil", "exited")
    raw = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b2J\x1b[0m \u202eend\n"
    assert (await zn("logs", "demo", "evil")).out == raw
    await core.client.write_file("/tmp/evil\x1b[2J", b"\x1b]0;owned\x07content\x1b[6n")

    def shown(*words: str) -> str:
        one = sit_down(contexts, *words)
        one.end()
        return one.seen.decode()

    async def at_a_terminal(*words: str) -> str:
        return await asyncio.to_thread(shown, *words)

    seen = await at_a_terminal("logs", "demo", "evil")
    assert seen == "\x1b[31mred\x1b[0m \\u202eend\x1b[0m\r\n"
    as_json = await at_a_terminal("logs", "demo", "evil", "--json")
    assert json.loads(as_json)["text"] == raw.rstrip("\n")
    captured = await at_a_terminal("exec", "demo", "--", "sh", "-c", HOSTILE)
    assert captured == "\x1b[31mred\x1b[0m \\u202eend\r\n\x1b[0m"
    piped = await at_a_terminal("exec", "-i", "demo", "--", "sh", "-c", HOSTILE)
    assert "\x1b]" not in piped
    assert "\x1b[2J" not in piped
    assert "red" in piped
    for words in (
        ("process", "show", "demo", "evil"),
        ("file", "ls", "demo", "/tmp"),
        ("file", "cat", "demo", "/tmp/evil\x1b[2J"),
        ("file", "show", "demo", "/tmp/missing\x1b[2J"),
    ):
        seen = await at_a_terminal(*words)
        assert not set(seen.replace("\x1b[0m", "").replace("\x1b[1m", "")) & {"\x1b", "\x07", "\x9b"}, words
        assert len(seen) > 5
