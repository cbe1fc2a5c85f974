"""`zn process` against a real Core-X: what a person types, what a shell gets."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli import context
from cli.context import Context, CoreXEndpoint

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Zn = Callable[..., Awaitable[Done]]


@pytest.fixture
def contexts(core: Any, tmp_path: Path) -> Path:
    path = tmp_path / "contexts.toml"
    token = context.write_token(path, "local-demo", core.endpoint.token)
    demo = CoreXEndpoint(core.endpoint.address, core.endpoint.fingerprint, token)
    context.put(path, "local", Context("127.0.0.1:1", "00" * 32, "operator.pem", container={"demo": demo}))
    return path


@pytest.fixture
def zn(contexts: Path) -> Zn:
    async def run(*words: str, stdin: bytes = b"") -> Done:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli",
            "--contexts",
            str(contexts),
            "process",
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1"},
        )
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    return run


async def test_a_process_is_listed_started_shown_signalled_and_stopped(core: Any, sh: Any, zn: Zn) -> None:
    assert (await zn("ls", "demo")).out == "no process is declared\n"
    await core.client.put("web", sh("trap 'echo got it' HUP; echo up; while :; do sleep 0.05; done"))
    started = await zn("start", "demo", "web")
    assert (started.code, started.out) == (0, "web is running: it runs: it was started on request\n")
    await core.output("web", 1)
    (listed,) = json.loads((await zn("ls", "demo", "--json")).out)
    assert (listed["name"], listed["state"]) == ("web", "running")
    assert (await zn("ls", "demo")).out.splitlines()[1].split()[:2] == ["web", "running"]
    assert (await zn("signal", "demo", "web", "HUP")).code == 0
    await core.output("web", 2)
    assert (await zn("logs", "demo", "web")).out == "up\ngot it\n"
    shown = (await zn("show", "demo", "web")).out
    assert "SIGTERM, SIGKILL after 10 s" in shown
    assert (await zn("restart", "demo", "web")).code == 0
    stopped = await zn("stop", "demo", "web")
    assert (stopped.code, stopped.out) == (
        0,
        "web is stopped: it was stopped on request and was ended by SIGTERM\n",
    )


async def test_a_process_that_cannot_start_ends_the_command_with_the_reason(
    core: Any, sh: Any, zn: Zn
) -> None:
    await core.client.put("web", sh("exit 3"))
    await core.client.put("none", sh("x", argv=("/missing",)))
    done = await zn("start", "demo", "none")
    assert done.code == 1
    assert "'/missing' or its interpreter is not in the container" in done.err
    unknown = await zn("show", "demo", "nothing")
    assert (unknown.code, unknown.out) == (3, "")
    assert unknown.err.startswith("zn: cannot find process nothing: it is not declared")


async def test_logs_keep_streams_apart_and_follow(core: Any, sh: Any, zn: Zn) -> None:
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


async def test_exec_passes_streams_environment_and_exit_code_on(zn: Zn) -> None:
    script = "cat; echo $GREETING >&2; exit 42"
    done = await zn("exec", "demo", "-i", "-e", "GREETING=hello", "--", "sh", "-c", script, stdin=b"typed")
    assert done == Done(42, "typed", "hello\n")
    assert (await zn("exec", "demo", "--", "sh", "-c", "kill -9 $$")).code == 137
    assert (await zn("exec", "demo", "--timeout", "0.2", "--", "sleep", "100")).code == 124
    missing = await zn("exec", "demo", "--", "missing")
    assert missing.code == 3
    assert missing.err.startswith("zn: cannot run the command: 'missing' is in no folder of PATH")


async def test_a_container_that_the_context_does_not_know_is_said(zn: Zn) -> None:
    done = await zn("ls", "other")
    assert (done.code, done.out) == (3, "")
    assert "the context has the token of demo" in done.err
