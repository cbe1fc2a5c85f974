"""Sessions on a real Core-X: terminals and pipes, by both subprotocols, over connections that come and go."""

import asyncio
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from corex.process.output import READ_BYTES
from corex.process.replay import Piece, Ring
from corex.sessions import attach, session
from corex.wire import sessions as wire
from corex.wire.api import ExecRequest, Exit
from corex.wire.sessions import KUBERNETES_PROTOCOL, SESSION_PROTOCOL, SessionSpec, Window

pytestmark = pytest.mark.root
HEAD = struct.Struct("!BQ")
from_server = msgspec.json.Decoder(wire.FromServer)


class Tab:
    """A client's end of a session."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.output = {wire.OUTPUT: b"", wire.ERRORS: b""}
        self.said: list[Any] = []
        self.offset, self.typed = 0, 0

    async def next(self) -> Any:
        """The next message: bytes of output, or what was said."""
        message = await self.socket.receive(20)
        if message.type is aiohttp.WSMsgType.BINARY:
            stream, offset = HEAD.unpack_from(message.data)
            data = message.data[HEAD.size :]
            assert offset == self.offset
            self.offset += len(data)
            self.output[stream] += data
            return data
        if message.type is aiohttp.WSMsgType.TEXT:
            said = from_server.decode(message.data)
            self.said.append(said)
            if isinstance(said, wire.Hello):
                self.offset, self.typed = said.after, said.accepted
            if isinstance(said, wire.Lost):
                self.offset += said.bytes
            return said
        return None

    async def until(self, text: bytes, stream: int = wire.OUTPUT) -> None:
        async with asyncio.timeout(20):
            while text not in self.output[stream]:
                assert await self.next() is not None, self.output

    async def hear(self, kind: type[Any]) -> Any:
        async with asyncio.timeout(20):
            while not isinstance(said := await self.next(), kind):
                assert said is not None, (self.output, self.socket.close_code)
        return said

    async def type(self, data: bytes, offset: int | None = None) -> None:
        at = self.typed if offset is None else offset
        await self.socket.send_bytes(HEAD.pack(wire.INPUT, at) + data)
        self.typed = max(self.typed, at + len(data))

    async def say(self, what: wire.FromClient) -> None:
        await self.socket.send_str(msgspec.json.encode(what).decode())


Open = Callable[..., Any]


@pytest.fixture
def tab(browser: aiohttp.ClientSession) -> Open:
    """Attaches to a session."""

    @asynccontextmanager
    async def attached(name: str, **query: Any) -> AsyncIterator[Tab]:
        path = f"/v1/sessions/{name}/attach"
        async with browser.ws_connect(
            path, params=query, protocols=(SESSION_PROTOCOL,), max_msg_size=0
        ) as socket:
            yield Tab(socket)

    return attached


@pytest.fixture
def run(browser: aiohttp.ClientSession) -> Callable[..., Awaitable[str]]:
    """Makes a session of a shell script; returns its id."""

    async def made(script: str, **fields: Any) -> str:
        spec = SessionSpec(("sh", "-c", script), {"PATH": "/bin"}, **fields)
        answer = await ask(browser, "POST", "/v1/sessions", msgspec.to_builtins(spec))
        return answer["id"]

    return made


async def ask(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with http.request(method, path, json=body) as answer:
        found = await answer.json(content_type=None) if answer.status != 204 else None
        assert answer.status < 400, found
        return found


async def test_a_terminal_has_its_size_echoes_and_tells_how_it_ended(tab: Open, run: Any) -> None:
    name = await run("tty; stty size; read line; echo got $line; exit 3", window=Window(40, 100))
    async with tab(name) as one:
        hello = await one.hear(wire.Hello)
        assert (hello.after, hello.accepted, hello.window) == (0, 0, Window(40, 100))
        await one.until(b"40 100")
        assert b"/dev/pts/0" in one.output[wire.OUTPUT]
        await one.type(b"hi\r")
        assert (await one.hear(wire.Ended)).exit == Exit(code=3)
        assert b"hi\r\ngot hi\r\n" in one.output[wire.OUTPUT]


async def test_pipes_keep_both_streams_apart_and_get_an_end_of_input(tab: Open, run: Any) -> None:
    name = await run("cat; echo no >&2")
    async with tab(name) as one:
        await one.type(b"some bytes \xff\x00")
        await one.say(wire.EndOfInput())
        assert (await one.hear(wire.Ended)).exit == Exit(code=0)
        assert one.output == {wire.OUTPUT: b"some bytes \xff\x00", wire.ERRORS: b"no\n"}


async def test_who_comes_back_goes_on_where_the_connection_broke(tab: Open, run: Any) -> None:
    name = await run("echo first; read a; echo $a; read b; echo $b", window=Window())
    async with tab(name, client="me") as one:
        await one.until(b"first")
        await one.type(b"once\r")
        await one.until(b"once\r\nonce\r\n")
        offset, output = one.offset, one.output[wire.OUTPUT]
        one.socket._response.connection.transport.abort()  # a cable is pulled
    async with tab(name, client="me", after=offset) as again:
        hello = await again.hear(wire.Hello)
        assert (hello.after, hello.accepted) == (offset, 5)
        await again.type(b"once\r", offset=0)  # it does not know that it arrived: nobody reads it twice
        await again.type(b"twice\r", offset=5)
        await again.hear(wire.Ended)
        assert output + again.output[wire.OUTPUT] == b"first\r\nonce\r\nonce\r\ntwice\r\ntwice\r\n"


async def test_a_tab_that_is_opened_later_sees_all_of_it_and_the_end(tab: Open, run: Any) -> None:
    name = await run("echo before; exit 7")
    async with tab(name) as one:
        await one.hear(wire.Ended)
    async with tab(name) as late:
        assert (await late.hear(wire.Ended)).exit == Exit(code=7)
        assert late.output[wire.OUTPUT] == b"before\n"


async def test_two_watch_one_terminal_and_the_last_size_counts(
    tab: Open, run: Any, browser: aiohttp.ClientSession
) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    name = await run(script, window=Window(20, 80))
    async with tab(name) as one, tab(name) as other:
        await one.until(b"ready")
        await other.hear(wire.Hello)
        await one.say(wire.Resize(Window(30, 90)))
        assert (await other.hear(wire.Resized)).window == Window(30, 90)
        await other.say(wire.Resize(Window(50, 132)))
        await one.until(b"50 132")
        await other.until(b"50 132")
        found = await ask(browser, "GET", f"/v1/sessions/{name}")
        assert (found["viewers"], found["spec"]["window"]) == (2, {"rows": 50, "columns": 132})
        await ask(browser, "POST", f"/v1/sessions/{name}/resize", {"rows": 5, "columns": 9})
        await one.until(b"5 9")
    await ask(browser, "DELETE", f"/v1/sessions/{name}")


async def test_without_credit_the_command_waits_and_nothing_is_lost(tab: Open, run: Any) -> None:
    count = 2_000_000
    name = await run(f"yes | head -c {count}")
    async with tab(name) as one:
        while len(one.output[wire.OUTPUT]) < wire.FIRST_CREDIT:
            await one.next()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await one.next()
    async with tab(name, after=one.offset) as again:
        await again.say(wire.Credit(count))
        await again.hear(wire.Ended)
        lost = sum(said.bytes for said in one.said + again.said if isinstance(said, wire.Lost))
        got = len(one.output[wire.OUTPUT]) + len(again.output[wire.OUTPUT])
        assert got + lost == count, "received and declared lost are all that was written"


async def test_a_flood_that_is_watched_from_the_beginning_arrives_whole(tab: Open, run: Any) -> None:
    count = 5_000_000
    name = await run(f"read go; yes 0123456789 | head -c {count}")
    async with tab(name) as one:
        await one.say(wire.Credit(count))
        await one.type(b"go\n")
        await one.hear(wire.Ended)
        assert one.output[wire.OUTPUT] == (b"0123456789\n" * (count // 11 + 1))[:count]
        assert not [said for said in one.said if isinstance(said, wire.Lost)]


async def test_a_paste_of_ten_megabytes_arrives_whole(tab: Open, run: Any) -> None:
    count = 10_000_000
    name = await run("wc -c")
    paste = bytes(range(256)) * (count // 256)
    async with tab(name) as one:
        await one.hear(wire.Hello)
        sent = accepted = 0
        while sent < len(paste):
            while sent - accepted > wire.INPUT_AHEAD - 65536:
                accepted = (await one.hear(wire.Accepted)).bytes
            await one.type(paste[sent : sent + 65536])
            sent = min(len(paste), sent + 65536)
        await one.say(wire.EndOfInput())
        await one.hear(wire.Ended)
        assert one.output[wire.OUTPUT].split() == [str(len(paste)).encode()]


WRONG = {
    "text that is no message": ("{", "a message is not understood"),
    "a field that is not there": ('{"kind": "credit", "bytes": 1, "more": 2}', "a message is not understood"),
    "a size of nothing": (
        '{"kind": "resize", "window": {"rows": 0, "columns": 1}}',
        "a message is not understood",
    ),
    "no head": (b"\0", "a binary message is no input"),
    "output": (HEAD.pack(wire.OUTPUT, 0) + b"x", "a binary message is no input"),
    "too much at once": (
        HEAD.pack(wire.INPUT, 0) + bytes(wire.INPUT_AHEAD + 1),
        "more than 262144 bytes of input",
    ),
    "input behind a hole": (HEAD.pack(wire.INPUT, 100) + b"x", "cannot take input from byte 100 on"),
}


@pytest.mark.parametrize(("message", "why"), WRONG.values(), ids=WRONG)
async def test_a_message_that_breaks_the_subprotocol_closes_with_a_reason_and_harms_nobody(
    tab: Open, run: Any, browser: aiohttp.ClientSession, message: str | bytes, why: str
) -> None:
    name = await run("read line; echo $line")
    async with tab(name) as one, tab(name) as other:
        await one.hear(wire.Hello)
        await (one.socket.send_str(message) if isinstance(message, str) else one.socket.send_bytes(message))
        closed = await one.socket.receive(10)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        assert closed.extra.startswith(why)
        await other.type(b"fine\n")
        await other.hear(wire.Ended)
        assert other.output[wire.OUTPUT] == b"fine\n"


async def test_a_viewer_may_watch_and_not_type(
    core: Any, tab: Open, run: Any, browser: aiohttp.ClientSession
) -> None:
    name = await run("echo seen; cat")
    spec = {"role": "viewer", "token_sha256": hashlib.sha256(b"v" * 43).hexdigest()}
    await ask(browser, "PUT", "/v1/identities/somebody", spec)
    watching = {"Authorization": f"Bearer {'v' * 43}"}
    path = f"/v1/sessions/{name}/attach"
    async with browser.ws_connect(path, headers=watching, protocols=(SESSION_PROTOCOL,)) as socket:
        one = Tab(socket)
        await one.until(b"seen")
        await one.type(b"rm\n")
        closed = await socket.receive(10)
        assert (closed.data, closed.extra) == (1008, "this token may watch and nothing else")
    async with browser.post("/v1/sessions", headers=watching, json={"argv": ["id"]}) as answer:
        assert answer.status == 403
    await ask(browser, "DELETE", f"/v1/sessions/{name}")


async def test_a_ticket_opens_one_websocket_once(core: Any, run: Any, browser: aiohttp.ClientSession) -> None:
    name = await run("cat")
    path = f"/v1/sessions/{name}/attach"
    ticket = (await ask(browser, "POST", "/v1/tickets", {"path": path}))["ticket"]
    nobody = {"Authorization": ""}

    async def attempt(path: str, ticket: str) -> int:
        try:
            async with browser.ws_connect(
                path, headers=nobody, params={"ticket": ticket}, protocols=(SESSION_PROTOCOL,)
            ):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status

    other = await run("cat")
    assert await attempt(path, ticket) == 101
    assert await attempt(path, ticket) == 401, "it was of use once"
    elsewhere = (await ask(browser, "POST", "/v1/tickets", {"path": path}))["ticket"]
    assert await attempt(f"/v1/sessions/{other}/attach", elsewhere) == 401, "it is for another path"
    third = (await ask(browser, "POST", "/v1/tickets", {"path": "/v1/sessions"}))["ticket"]
    async with browser.get("/v1/sessions", headers=nobody, params={"ticket": third}) as answer:
        assert answer.status == 401, "it is for WebSockets"


async def test_what_asks_for_no_websocket_or_a_strange_one_is_told(
    core: Any, run: Any, browser: aiohttp.ClientSession
) -> None:
    path = f"/v1/sessions/{await run('cat')}/attach"
    async with browser.get(path) as answer:
        assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
    good = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": SESSION_PROTOCOL,
    }
    for change, status in (
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 422),
        ({"Sec-WebSocket-Protocol": "v4.channel.k8s.io"}, 422),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
    ):
        async with browser.get(path, headers={**good, **change}) as answer:
            assert answer.status == status, change
    own = {"Origin": f"https://{core.endpoint.address}"}
    async with browser.ws_connect(path, headers=own, protocols=(SESSION_PROTOCOL,)) as socket:
        assert not socket.closed
    async with browser.get("/v1/sessions/0123456789abcdef/attach", headers=good) as answer:
        assert answer.status == 404


async def test_a_command_that_cannot_run_is_a_problem_and_no_session(
    browser: aiohttp.ClientSession,
) -> None:
    for spec, pointer in (
        ({"argv": ["missing"]}, None),
        ({"argv": ["id"], "user": "nobody-there"}, None),
        ({"argv": ["id"], "cwd": "tmp"}, "/cwd"),
        ({"argv": ["id"], "window": {"rows": 0}}, "/window/rows"),
        ({"argv": ["id"], "keep": -1}, "/keep"),
    ):
        async with browser.post("/v1/sessions", json=spec) as answer:
            found = await answer.json(content_type=None)
            assert (answer.status, found.get("pointer")) == (422, pointer), spec
    assert (await ask(browser, "GET", "/v1/sessions"))["sessions"] == []


async def test_a_session_that_nobody_comes_back_to_is_hung_up_and_forgotten(
    core: Any, tab: Open, run: Any, browser: aiohttp.ClientSession
) -> None:
    name = await run("echo $$; trap '' HUP; while :; do sleep 0.1; done", keep=0.2, window=Window())
    async with tab(name) as one:
        await one.until(b"\n")
        await asyncio.sleep(0.5)  # longer than it is kept, while somebody is there
        assert (await ask(browser, "GET", f"/v1/sessions/{name}"))["state"] == "running"
    kill0 = ExecRequest(("/bin/sh", "-c", f"kill -0 {int(one.output[wire.OUTPUT])}"))
    async with asyncio.timeout(15):
        while (await ask(browser, "GET", "/v1/sessions"))["sessions"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        # it does not mind the hang-up, and is killed
        while (await core.client.execute(kill0)).exit.code == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_there_are_so_many_sessions_and_no_more(run: Any, browser: aiohttp.ClientSession) -> None:
    names = [await run("cat") for _ in range(32)]
    async with browser.post("/v1/sessions", json={"argv": ["/bin/cat"]}) as answer:
        assert answer.status == 409
    for name in names:
        await ask(browser, "DELETE", f"/v1/sessions/{name}")


def kubernetes(channel: int, data: bytes = b"") -> bytes:
    return bytes((channel,)) + data


@pytest.mark.parametrize("tty", ["true", "false"])
async def test_kubernetes_clients_exec_as_they_know_it(browser: aiohttp.ClientSession, tty: str) -> None:
    script = "read line; echo out $line; echo err >&2; cat; exit 5"
    query = [("command", "/bin/sh"), ("command", "-c"), ("command", script), ("stdin", "true"), ("tty", tty)]
    async with browser.ws_connect("/v1/exec", params=query, protocols=(KUBERNETES_PROTOCOL,)) as socket:
        await socket.send_bytes(kubernetes(4, b'{"Width": 100, "Height": 30}'))
        await socket.send_bytes(kubernetes(0, b"hello\n"))
        if tty == "true":
            await socket.send_bytes(kubernetes(0, b"\x04"))
        else:
            await socket.send_bytes(kubernetes(255, b"\0"))
        got = {1: b"", 2: b"", 3: b""}
        async for message in socket:
            got[message.data[0]] += message.data[1:]
    if tty == "true":
        assert b"out hello\r\nerr\r\n" in got[1]
    else:
        assert (got[1], got[2]) == (b"out hello\n", b"err\n")
    status = json.loads(got[3])
    assert (status["status"], status["details"]["causes"][0]["message"]) == ("Failure", "5")
    assert (await ask(browser, "GET", "/v1/sessions"))["sessions"] == []


def test_a_ring_keeps_the_newest_and_knows_what_is_gone() -> None:
    ring = Ring(10)
    for number in range(6):
        ring.add(wire.OUTPUT, b"%d%d%d" % (number, number, number))
    assert (ring.start, ring.end) == (6, 18)
    assert ring.after(0, 2) == Piece(6, 1, b"22")
    assert ring.after(7, 100) == Piece(7, 1, b"22")
    assert ring.after(9, 100) == Piece(9, 1, b"333")
    assert ring.after(17, 100) == Piece(17, 1, b"5")
    assert ring.after(18, 100) is None
    assert Ring().after(0, 1) is None


@pytest.mark.parametrize(("ended", "status"), [(Exit(code=0), "Success"), (Exit(signal="SIGKILL"), "137")])
def test_what_kubernetes_is_told_of_an_end(ended: Exit, status: str) -> None:
    assert f'"{status}"' in attach.kubernetes_status(ended).decode()


def test_a_viewer_that_falls_behind_is_waited_for_before_anything_is_overwritten() -> None:
    assert session.LAG + 2 * READ_BYTES <= session.CAPACITY, "what a read brings at once fits beside it"
