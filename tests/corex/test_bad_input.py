"""Whatever comes wrong is answered by one clear refusal, and nobody else notices: no process, reader or terminal."""

import asyncio
import contextlib
import io
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from corex.http import websocket
from corex.http.problem import Problem
from corex.http.websocket import ClosedError, WebSocket
from corex.wire.api import LogLine
from corex.wire.process import ProcessSpec
from corex.wire.sessions import SESSION_PROTOCOL, SessionSpec
from tests.corex.conftest import Container, eventually

PATH = {"PATH": "/bin"}
LIMIT = 1 << 20
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def undisturbed(core: Container) -> AsyncIterator[str]:
    """Has a process, a reader of its lines and somebody at a session, who all notice nothing; the session's id."""
    client = core.client
    script = "i=1; while :; do echo $i; i=$((i+1)); sleep 0.02; done"
    await client.put("steady", ProcessSpec(("sh", "-c", script), PATH))
    before = await client.start("steady", 10)
    session = (await client.create_session(SessionSpec(("cat",), PATH))).id
    read: list[str] = []

    async def follow() -> None:
        async with aclosing(client.follow("steady")) as records:
            async for record in records:
                read.append(record.text if isinstance(record, LogLine) else "gap")  # noqa: PERF401

    following = asyncio.create_task(follow())
    try:
        async with client.attach(session) as tab:
            await eventually(lambda: bool(read))
            yield session
            seen = len(read)
            await eventually(lambda: len(read) > seen + 1)
            assert read == [str(number) for number in range(1, len(read) + 1)]
            await tab.write(b"still here\n")
            await tab.end_input()
            assert [data async for _, data in tab.output()] == [b"still here\n"]
    finally:
        following.cancel()
        await asyncio.wait((following,))
    after = await client.process("steady")
    assert (after.pid, after.restarts, after.state) == (before.pid, 0, "running")
    assert [one.name for one in await client.processes()] == ["steady"]
    assert [list(one.layer.processes) for one in await client.layers()] == [["steady"]]
    assert core.zombies() == []


def said(value: Any) -> bytes:
    return msgspec.json.encode(value)


CIRCLE = {"a": {"argv": ["x"], "after": {"b": "ready"}}, "b": {"argv": ["x"], "after": {"a": "ready"}}}
REFUSED = {
    "JSON that ends early": ("PUT", "/v1/processes/a", b'{"argv": [', "malformed-json", None),
    "JSON that is not UTF-8": ("PUT", "/v1/processes/a", b'{"argv": ["\xff"]}', "malformed-json", None),
    "two documents": ("PUT", "/v1/processes/a", b'{"argv": ["x"]} {}', "malformed-json", None),
    "nothing": ("PUT", "/v1/processes/a", b"", "malformed-json", None),
    "a deep one": ("PUT", "/v1/processes/a", b'{"argv": ' + b"[" * 100_000, "invalid", "/argv/0"),
    "an unknown field": ("PUT", "/v1/processes/a", said({"argv": ["x"], "shell": 1}), "invalid", "/shell"),
    "one further in": (
        *("PUT", "/v1/processes/a", said({"argv": ["x"], "ready": {"lines": "x"}})),
        *("invalid", "/ready/lines"),
    ),
    "a name with a slash": ("PUT", "/v1/processes/a%2Fb", said({"argv": ["x"]}), "invalid", None),
    "a name of 10,000": ("PUT", f"/v1/processes/{'a' * 10_000}", said({"argv": ["x"]}), "invalid", None),
    "a layer's name": ("PUT", "/v1/layers/a%2Fb", said({"processes": {}}), "invalid", None),
    "a missing executable": ("POST", "/v1/exec", said({"argv": ["missing"]}), "cannot-run", None),
    "one of a session": ("POST", "/v1/sessions", said({"argv": ["/bin/missing"]}), "cannot-run", None),
    "an unreadable folder": (
        *("POST", "/v1/exec", said({"argv": ["id"], "env": PATH, "cwd": "/secret", "user": "web"})),
        *("cannot-run", None),
    ),
    "an unknown user": (
        *("POST", "/v1/exec", said({"argv": ["id"], "env": PATH, "user": "nobody-here"})),
        *("cannot-run", None),
    ),
    "a circle": ("PUT", "/v1/layers/shop", said({"processes": CIRCLE}), "invalid", "/processes/a/after/b"),
    "a circle of one": (
        *("PUT", "/v1/processes/a", said({"argv": ["x"], "after": {"a": "ready"}})),
        *("invalid", "/after/a"),
    ),
    "a body that is too large": ("PUT", "/v1/processes/a", b" " * (LIMIT + 1), "too-large", None),
    "a body where none belongs": ("POST", "/v1/processes/steady/restart", b"{}", "too-large", None),
}


async def answered(http: aiohttp.ClientSession, method: str, path: str, body: Any) -> Problem:
    """The problem that a request gets; its body is sent once Core-X wants it."""
    data = io.BytesIO(body) if isinstance(body, bytes) else body
    async with http.request(method, path, data=data, headers=JSON, expect100=True) as answer:
        found = msgspec.json.decode(await answer.read(), type=Problem)
        assert (answer.content_type, answer.status) == ("application/problem+json", found.status)
        return found


@pytest.mark.root
async def test_each_refusal_names_its_type_and_its_place_and_disturbs_nobody(
    core: Any, browser: aiohttp.ClientSession
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                yield b" " * 65536

    async with undisturbed(core):
        for name, (method, path, body, kind, pointer) in REFUSED.items():
            found = await answered(browser, method, path, body)
            assert (found.type, found.pointer) == (f"urn:zeronode:problem:{kind}", pointer), name
            assert found.detail.startswith("cannot "), name
        assert (await answered(browser, "PUT", "/v1/processes/a", endless())).status == 413


CANNOT_START = {
    "a missing executable": ({"argv": ("missing",)}, "'missing' is in no folder of PATH"),
    "no interpreter": ({"argv": ("/bin/script",)}, "or its interpreter is not in the container"),
    "an unreadable folder": ({"cwd": "/secret", "user": "web"}, "'/secret': Permission denied"),
    "no folder": ({"cwd": "/nowhere"}, "'/nowhere': No such"),
    "an unknown user": ({"user": "nobody-here"}, "user 'nobody-here' is not in the container's"),
    "an unknown group": ({"groups": ("nobody-here",)}, "group 'nobody-here' is not in"),
}


@pytest.mark.root
async def test_a_process_that_cannot_start_says_why_and_disturbs_nobody(core: Any) -> None:
    async with undisturbed(core):
        for name, (fields, why) in CANNOT_START.items():
            spec = msgspec.structs.replace(ProcessSpec(("sleep", "100"), PATH), **fields)
            await core.client.put("wrong", spec)
            info = await core.client.start("wrong", 10)
            assert (info.state, info.pid) == ("failed", None), name
            assert why in info.why, name
            await core.client.delete("wrong")


def frame(opcode: int, data: bytes, *, masked: bool = True, last: bool = True) -> bytes:
    """A frame of RFC 6455, section 5.2, with a mask of zeros."""
    size = len(data)
    long = struct.pack("!BQ", 127 | masked << 7, size) if size > 125 else bytes((size | masked << 7,))
    return bytes((opcode | last << 7,)) + long + (bytes(4) if masked else b"") + data


WRONG_FRAMES = {
    "no mask": (frame(2, b"x", masked=False), 1002),
    "a reserved opcode": (frame(3, b"x"), 1002),
    "a long ping": (frame(9, b"x" * 126), 1002),
    "text that is not UTF-8": (frame(1, b"\xff"), 1007),
    "the rest of nothing": (frame(0, b"x"), 1002),
    "a message that is too large": (frame(2, bytes(LIMIT + 1)), 1009),
    "one that is so in parts": (frame(2, bytes(LIMIT), last=False) + frame(0, b"x"), 1009),
    "no message of the subprotocol": (frame(1, b"{}"), 1008),
}


class Raw:
    """A WebSocket to a session, byte by byte, as a stranger's program has it."""

    def __init__(self, core: Container, session: str) -> None:
        host, _, port = core.endpoint.address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.plain = socket.create_connection((host, int(port)), timeout=20)
        self.tls = context.wrap_socket(self.plain, do_handshake_on_connect=True)
        self.tls.sendall(
            f"GET /v1/sessions/{session}/attach HTTP/1.1\r\nHost: {core.endpoint.address}\r\n"
            f"Authorization: Bearer {core.endpoint.token}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            f"Sec-WebSocket-Protocol: {SESSION_PROTOCOL}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.tls.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ")
        self.read = head.partition(b"\r\n\r\n")[2]

    def close_code(self) -> int:
        """What Core-X closes with."""
        while b"\x88" not in self.read:
            more = self.tls.recv(65536)
            assert more, self.read
            self.read += more
        at = self.read.index(b"\x88")
        return int.from_bytes(self.read[at + 2 : at + 4])

    def vanish(self) -> None:
        """End the connection without a word of TLS or of WebSocket: by a reset."""
        self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tls.close()


@pytest.mark.root
async def test_wrong_frames_close_with_their_code_and_disturb_nobody(core: Any) -> None:
    def told(session: str, data: bytes) -> int:
        raw = Raw(core, session)
        with raw.tls:
            raw.tls.sendall(data)
            return raw.close_code()

    async with undisturbed(core) as session:
        for name, (data, code) in WRONG_FRAMES.items():
            assert await asyncio.to_thread(told, session, data) == code, name


@pytest.mark.root
async def test_viewers_that_vanish_or_fall_silent_are_let_go_and_disturb_nobody(core: Any) -> None:
    async with undisturbed(core) as session:
        vanishing, silent = [await asyncio.to_thread(Raw, core, session) for _ in range(2)]
        assert (await core.client.session(session)).viewers == 3
        await asyncio.to_thread(vanishing.vanish)
        async with asyncio.timeout(10):
            while (await core.client.session(session)).viewers > 2:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
        silent.tls.sendall(b"\x82\xff")  # the beginning of a frame whose rest never comes
    await asyncio.to_thread(silent.vanish)


@asynccontextmanager
async def a_websocket() -> AsyncIterator[tuple[WebSocket, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Both ends of one: ours, and bytes of a client's."""
    ours: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()
    server = await asyncio.start_server(lambda *both: ours.set_result(both), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    streams = await ours
    try:
        yield WebSocket(*streams, b""), reader, writer
    finally:
        for one in (writer, streams[1]):
            one.transport.abort()
        server.close()
        await asyncio.sleep(0)


async def test_who_is_silent_is_asked_and_gone_if_no_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_AFTER", 0.02)
    monkeypatch.setattr(websocket, "GONE_AFTER", 0.1)
    async with a_websocket() as (ours, theirs, _):
        with pytest.raises(ClosedError, match="it was silent for"):
            await ours.receive()
        assert await theirs.readexactly(2) == b"\x89\0"


async def test_who_answers_pings_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_AFTER", 0.02)
    monkeypatch.setattr(websocket, "GONE_AFTER", 0.06)
    async with a_websocket() as (ours, theirs, writer):
        receiving = asyncio.create_task(ours.receive())
        for _ in range(6):  # longer than who is silent may stay
            assert await theirs.readexactly(2) == b"\x89\0"
            writer.write(frame(10, b""))
        writer.write(frame(1, b"here"))
        assert await receiving == "here"


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "SEND_DEADLINE", 0.1)
    async with a_websocket() as (ours, _, _writer):

        async def send_a_lot() -> None:
            for _ in range(100):
                await ours.send(bytes(LIMIT))

        with pytest.raises(ClosedError, match="it did not read for"):
            await send_a_lot()
        with pytest.raises(ClosedError):
            await ours.receive()
