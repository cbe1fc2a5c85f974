"""Declared processes on terminals of their own: watched, typed into, restarted, and logged all the same."""

import asyncio
import hashlib
import json
from typing import Any

import aiohttp
import pytest

from corex.client.client import Client, Endpoint, RefusedError
from corex.client.session import Attachment, BrokenError
from corex.process.stage import Stage, Transcript
from corex.wire.identities import IdentitySpec
from corex.wire.sessions import KUBERNETES_PROTOCOL, Window

REPL = "stty -echo; tty; while read line; do echo got $line; test $line = end && exit 7; done"


async def seen(attachment: Attachment, text: bytes) -> bytes:
    """All output up to a text, or to the end."""
    found = b""
    async with asyncio.timeout(20):
        async for _, data in attachment.output():
            found += data
            if text in found:
                break
    return found


class Log:
    def __init__(self) -> None:
        self.data, self.ended = b"", False

    def feed(self, data: bytes) -> None:
        self.data += data

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_log_has_lines_without_carriage_returns_however_they_come(size: int) -> None:
    async def work() -> None:
        stage, log = Stage(Window()), Log()
        transcript = Transcript(stage, log)
        data = b"one\r\n50%\r100%\r\n\r\r\nend\r\n"
        for at in range(0, len(data), size):
            transcript.feed(data[at : at + size])
        transcript.end()
        assert (log.data, log.ended) == (b"one\n50%\r100%\n\r\nend\n", True)
        assert stage.ring.end == len(data)

    asyncio.run(work())


@pytest.mark.root
async def test_a_process_on_a_terminal_is_watched_typed_into_and_logged(core: Any, sh: Any) -> None:
    await core.client.put("repl", sh(REPL, tty=True, user="web"))
    await core.client.start("repl", 5)
    async with core.client.attach_process("repl") as one, core.client.attach_process("repl") as two:
        await one.write(b"hello\n")
        assert b"got hello\r\n" in await seen(one, b"got hello\r\n")
        assert b"got hello\r\n" in await seen(two, b"got hello\r\n")
        await two.write(b"end\n")
        async for _ in one.output():
            pass
        assert one.exit is not None
        assert one.exit.code == 7
    lines = await core.output("repl", 3)
    assert (lines[0].startswith("/dev/pts/"), lines[1:]) == (True, ["got hello", "got end"])
    page = await core.client.logs("repl")
    assert {record.stream for record in page.records} == {"stdout"}
    assert core.imported_late() == []


@pytest.mark.root
async def test_viewers_stay_while_it_is_restarted_and_sizes_too(core: Any, sh: Any) -> None:
    await core.client.put("size", sh("stty size; echo run; sleep 100", tty=True))
    await core.client.start("size", 5)
    async with core.client.attach_process("size") as viewer:
        assert (await seen(viewer, b"run")).startswith(b"24 80\r\n")
        await viewer.resize(Window(50, 132))
        async with core.client.attach_process("size", after=10**6) as other:
            await core.client.restart("size", 10)
            assert b"50 132\r\nrun" in await seen(other, b"run")
        assert b"50 132\r\nrun" in await seen(viewer, b"132\r\nrun")
        await core.client.stop("size", 10)
        async for _ in viewer.output():
            pass
        assert viewer.exit is not None
        assert viewer.exit.signal == "SIGTERM"


@pytest.mark.root
async def test_output_without_a_viewer_is_never_waited_with_and_loss_is_declared(core: Any, sh: Any) -> None:
    script = "i=0; while test $i -lt 30000; do echo line $i of a long text that fills it; i=$((i+1)); done; echo over"
    await core.client.put("flood", sh(script, tty=True))
    async with asyncio.timeout(60):
        await core.client.start("flood", 5)
        await core.until("flood", "exited", 50)
    async with core.client.attach_process("flood") as viewer:
        found = b"".join([data async for _, data in viewer.output()])
    assert found.endswith(b"over\r\n")
    assert viewer.lost + len(found) == viewer.offset


@pytest.mark.root
async def test_who_may_watch_may_not_type(core: Any, sh: Any) -> None:
    token = "v" * 43
    await core.client.put_identity("v", IdentitySpec("viewer", hashlib.sha256(token.encode()).hexdigest()))
    await core.client.put("repl", sh(REPL, tty=True))
    await core.client.put("piped", sh("sleep 100"))
    await core.client.start("repl", 5)
    await core.client.start("piped", 5)
    async with Client(Endpoint(core.endpoint.address, core.endpoint.fingerprint, token)) as theirs:
        async with theirs.attach_process("repl") as viewer:
            await seen(viewer, b"/dev/pts/")
            await viewer.write(b"end\n")
            with pytest.raises(BrokenError, match="may watch and nothing else"):
                await seen(viewer, b"got")
        for name, reason in (("piped", "it has no terminal"), ("none", "is not declared")):
            with pytest.raises(RefusedError, match=reason):
                async with theirs.attach_process(name):
                    pass
    assert (await core.client.process("repl")).state == "running"


@pytest.mark.root
async def test_kubernetes_clients_attach_one_after_the_other(
    core: Any, sh: Any, browser: aiohttp.ClientSession
) -> None:
    await core.client.put("repl", sh(REPL, tty=True))
    await core.client.start("repl", 5)
    for word in (b"one", b"two", b"end"):
        got = {1: b"", 3: b""}
        async with browser.ws_connect(
            "/v1/processes/repl/attach", protocols=(KUBERNETES_PROTOCOL,)
        ) as socket:
            await socket.send_bytes(b"\0" + word + b"\n")
            async for message in socket:
                got[message.data[0]] += message.data[1:]
                if b"got " + word in got[1] and word != b"end":
                    break
        assert b"got " + word in got[1]
    assert json.loads(got[3])["details"]["causes"][0]["message"] == "7"


@pytest.mark.root
async def test_giving_a_process_a_terminal_is_a_reason_to_restart_it(core: Any, sh: Any) -> None:
    await core.client.put("a", sh("test -t 0 && echo terminal || echo pipe; sleep 100"))
    await core.client.start("a", 5)
    assert await core.output("a", 1) == ["pipe"]
    assert (
        await core.client.put("a", sh("test -t 0 && echo terminal || echo pipe; sleep 100", tty=True))
    ).outdated
    await core.client.restart("a", 10)
    assert await core.output("a", 2) == ["pipe", "terminal"]
