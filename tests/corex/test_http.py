"""The shared REST machinery over real sockets: raw bytes in, raw bytes out, no client library's courtesy."""

import asyncio
import datetime
import json
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import pytest

from corex.http import connection, problem, server
from corex.http.openapi import openapi_route
from corex.http.routes import (
    PUBLIC,
    App,
    Identity,
    NoBody,
    NoParameters,
    Reply,
    Request,
    Route,
    Stream,
    build_table,
)


class Thing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int
    parts: list["Thing"] = []
    tags: dict[str, int] = {}


class ByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    limit: int = 10


async def show(request: Request[dict[str, Thing], ByName, NoBody]) -> Thing:
    name = request.parameters.name
    if name not in request.context:
        raise problem.NOT_FOUND(f"cannot show {name}: it does not exist")
    return request.context[name]


async def put(request: Request[dict[str, Thing], ByName, Thing]) -> Reply[Thing]:
    is_new = request.parameters.name not in request.context
    request.context[request.parameters.name] = request.body
    return Reply(request.body, status=201 if is_new else 200)


async def remove(request: Request[dict[str, Thing], ByName, NoBody]) -> None:
    del request.context[request.parameters.name]


async def count(request: Request[dict[str, Thing], NoParameters, NoBody]) -> Stream:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number

    return Stream("application/x-ndjson", pieces())


async def health(request: Request[Any, NoParameters, NoBody]) -> dict[str, str]:
    return {"status": "up"}


TABLE = [
    Route("GET", "/v1/health", PUBLIC, "Health", health, response=dict[str, str]),
    Route("GET", "/v1/things/{name}", "user", "One thing", show, ByName, response=Thing),
    Route("PUT", "/v1/things/{name}", "user", "Make", put, ByName, Thing, Thing),
    Route("DELETE", "/v1/things/{name}", "admin", "Remove", remove, ByName, status=204),
    Route("GET", "/v1/count", "user", "Count", count, streams=("application/x-ndjson",)),
]
TABLE.append(openapi_route(TABLE, title="Test", version="1", security={"type": "http", "scheme": "bearer"}))


def authenticate(raw: Any) -> Identity:
    roles = {"Bearer user": {"user"}, "Bearer admin": {"user", "admin"}}.get(
        raw.headers.get("authorization", "")
    )
    if roles is None:
        raise problem.UNAUTHENTICATED(
            "cannot tell who asks: no valid token", headers={"WWW-Authenticate": "Bearer"}
        )
    return Identity("tester", frozenset(roles))


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Peer:
    """A client that sends exactly the bytes it is told."""

    port: int
    things: dict[str, Thing] = field(default_factory=dict)

    async def raw(self, data: bytes) -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        length = headers.get("content-length")
        body = await reader.readexactly(int(length)) if length else await self._rest(reader, headers)
        writer.close()
        await writer.wait_closed()
        return Answer(int(head[0].split()[1]), headers, body)

    async def _rest(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        return await reader.read() if headers.get("connection") == "close" else b""

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        token: str | None = "admin",
        media_type: str = "application/json",
    ) -> Answer:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: test",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body:
            lines.append(f"Content-Type: {media_type}")
        return await self.raw("\r\n".join([*lines, "", ""]).encode() + body)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    things: dict[str, Thing] = {}
    app = App(build_table(TABLE), authenticate, things, max_body=1000)
    listener = server.listen("127.0.0.1", 0)
    serving = await server.serve(app, [listener], None)
    yield Peer(listener.getsockname()[1], things)
    await serving.stop(1)


async def test_an_answer_that_has_no_body_says_no_length(peer: Peer) -> None:
    await peer.ask("PUT", "/v1/things/a", b'{"size": 1}')
    answer = await peer.ask("DELETE", "/v1/things/a")
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers


async def test_a_thing_is_made_shown_and_removed(peer: Peer) -> None:
    made = await peer.ask("PUT", "/v1/things/a", b'{"size": 3}')
    again = await peer.ask("PUT", "/v1/things/a", b'{"size": 3}')
    shown = await peer.ask("GET", "/v1/things/a?limit=5", token="user")
    removed = await peer.ask("DELETE", "/v1/things/a")
    gone = await peer.ask("GET", "/v1/things/a")
    assert [made.status, again.status, shown.status, removed.status, gone.status] == [201, 200, 200, 204, 404]
    assert shown.json == {"size": 3, "parts": [], "tags": {}}
    assert shown.headers["cache-control"] == "no-store"
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert gone.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status", "kind", "pointer"),
    [
        pytest.param(b"{", 400, "malformed-json", None, id="truncated"),
        pytest.param(b'{"size": 1}x', 400, "malformed-json", None, id="trailing garbage"),
        pytest.param(b"\xff\xfe", 400, "malformed-json", None, id="not UTF-8"),
        pytest.param(b"[" * 900, 422, "invalid", "", id="wrong shape"),
        pytest.param(b'{"size": 1, "sise": 2}', 422, "invalid", "/sise", id="unknown field"),
        pytest.param(b'{"size": "1"}', 422, "invalid", "/size", id="wrong type"),
        pytest.param(
            b'{"size":1,"parts":[{"size":1},{"size":1,"x":1}]}', 422, "invalid", "/parts/1/x", id="deep"
        ),
        pytest.param(b'{"size":1,"tags":{"a":"b"}}', 422, "invalid", "/tags", id="value of a mapping"),
        pytest.param(b"{}", 422, "invalid", "", id="missing field"),
        pytest.param(b'{"size": 1' + b" " * 1000 + b"}", 413, "too-large", None, id="oversized"),
        pytest.param(b'{"parts":' * 100 + b"1", 422, "invalid", "/parts", id="nested"),
    ],
)
async def test_a_bad_body_is_one_clear_problem(
    peer: Peer, body: bytes, status: int, kind: str, pointer: str | None
) -> None:
    answer = await peer.ask("PUT", "/v1/things/a", body)
    assert (answer.status, answer.json["type"]) == (status, f"urn:zeronode:problem:{kind}")
    assert answer.json.get("pointer") == pointer
    assert answer.json["detail"].startswith("cannot ")
    assert not peer.things


async def test_a_chunked_body_cannot_pass_the_limit(peer: Peer) -> None:
    chunk = b"400\r\n" + b"1" * 1024 + b"\r\n"
    head = b"PUT /v1/things/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n"
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await peer.raw(head + chunk * 4)
    assert answer.status == 413


async def test_a_compressed_body_is_refused(peer: Peer) -> None:
    head = b"PUT /v1/things/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Length: 4\r\n"
    answer = await peer.raw(
        head + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\0\0"
    )
    assert answer.status == 415


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        pytest.param("GET", "/v1/health", None, 200, id="public"),
        pytest.param("GET", "/v1/things/a", None, 401, id="no token"),
        pytest.param("GET", "/v1/things/a", "wrong", 401, id="wrong token"),
        pytest.param("GET", "/nowhere", None, 401, id="unknown path, no token"),
        pytest.param("POST", "/v1/health", None, 401, id="wrong method of a public path, no token"),
        pytest.param("PUT", "/v1/things/a", None, 401, id="a body is not looked at, no token"),
        pytest.param("DELETE", "/v1/things/a", "user", 403, id="role missing"),
        pytest.param("GET", "/nowhere", "user", 404, id="unknown path"),
        pytest.param("GET", "/v1/things/a/b", "user", 404, id="deeper path"),
        pytest.param("PATCH", "/v1/things/a", "user", 405, id="unknown method"),
        pytest.param("GET", "/v1/things/a?size=1", "user", 422, id="unknown parameter"),
        pytest.param("GET", "/v1/things/a?limit=x", "user", 422, id="parameter of a wrong type"),
        pytest.param("GET", "/v1/things/a?limit=1&limit=2", "user", 422, id="parameter given twice"),
        pytest.param("GET", "/v1/things/a?name=b", "user", 422, id="path's parameter in the query"),
        pytest.param("GET", "/v1/things/a%2Fb", "user", 404, id="encoded slash stays in its segment"),
        pytest.param("GET", "/" + "a" * 10_000, "user", 404, id="endless path"),
    ],
)
async def test_access_and_routing(peer: Peer, method: str, path: str, token: str | None, status: int) -> None:
    answer = await peer.ask(method, path, token=token)
    assert answer.status == status
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["status"] == status
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_wrong_media_type_is_415(peer: Peer) -> None:
    assert (await peer.ask("PUT", "/v1/things/a", b"size=1", media_type="text/plain")).status == 415


async def test_rubbish_instead_of_http_is_a_problem_and_not_logged(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await peer.raw(b"\x16\x03\x01 rubbish\r\n\r\n")
    assert answer.status == 400
    assert answer.json["type"] == "urn:zeronode:problem:malformed-request"
    assert not caplog.records


async def test_an_internal_error_shows_an_id_and_keeps_the_traceback_in_the_log(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await peer.ask("DELETE", "/v1/things/missing")
    assert answer.status == 500
    assert b"KeyError" not in answer.body
    assert answer.json["instance"] in caplog.text
    assert "KeyError" in caplog.text


async def test_a_stream_arrives_in_pieces(peer: Peer) -> None:
    answer = await peer.ask("GET", "/v1/count")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert b"0\n" in answer.body
    assert b"2\n" in answer.body


async def test_a_head_that_does_not_end_is_refused(peer: Peer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * connection.MAX_HEAD)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"urn:zeronode:problem:malformed-request" in answer


@pytest.mark.parametrize(("path", "status"), [("/v1/health", 200), ("/v1/nothing", 404)])
async def test_every_answer_has_the_time_of_who_gives_it(peer: Peer, path: str, status: int) -> None:
    answer = await peer.ask("GET", path)
    assert answer.status == status
    moment = parsedate_to_datetime(answer.headers["date"])
    assert abs(moment - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)


async def test_no_piece_of_an_answer_waits_for_the_client_to_acknowledge_the_one_before(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays, told = [], connection.Connection.run

    async def look(self: connection.Connection) -> None:
        accepted = self._writer.get_extra_info("socket")
        delays.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0)
        await told(self)

    monkeypatch.setattr(connection.Connection, "run", look)
    await peer.ask("GET", "/v1/health")
    assert delays == [False]


async def test_two_requests_sent_at_once_are_answered_in_turn(peer: Peer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    one = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n%s\r\n"
    writer.write(one % b"" + one % b"Connection: close\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.count(b"HTTP/1.1 200") == 2


async def test_a_client_that_waits_for_100_continue_gets_it(peer: Peer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    writer.write(
        b"PUT /v1/things/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b'{"size": 3}')
    assert (await reader.read()).startswith(b"HTTP/1.1 201")
    writer.close()
    await writer.wait_closed()


async def test_head_answers_without_a_body(peer: Peer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    writer.write(b"HEAD /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


async def test_connections_over_the_limit_are_closed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    first = [await asyncio.open_connection("127.0.0.1", peer.port) for _ in range(2)]
    assert (await asyncio.wait_for(_read_of_new(peer.port), 5)) == b""
    for _, writer in first:
        writer.close()
        await writer.wait_closed()
    monkeypatch.undo()
    assert (await _read_of_new(peer.port, b"GET /v1/health HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def _read_of_new(port: int, data: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_the_openapi_document_lists_every_route(peer: Peer) -> None:
    document = (await peer.ask("GET", "/v1/openapi.json")).json
    listed = {(method.upper(), path) for path, row in document["paths"].items() for method in row}
    assert listed == {(route.method, route.path) for route in TABLE}
    thing = document["paths"]["/v1/things/{name}"]
    assert thing["put"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Thing")
    assert [p["in"] for p in thing["get"]["parameters"]] == ["path", "query"]
    assert document["paths"]["/v1/health"]["get"]["security"] == []
    assert set(thing["put"]["responses"]) >= {"200", "400", "401", "403", "413", "415", "422", "500"}


def test_a_table_with_two_equal_rows_is_refused() -> None:
    twice = [TABLE[1], Route("GET", "/v1/things/{other}", "user", "Same", show, ByName)]
    with pytest.raises(ValueError, match="there twice"):
        build_table(twice)


def test_a_lax_request_type_is_refused() -> None:
    class Lax(msgspec.Struct):
        size: int

    with pytest.raises(ValueError, match="allows unknown fields"):
        build_table([Route("PUT", "/x", "user", "x", put, request=Lax)])


def test_listening_takes_numeric_addresses_only() -> None:
    with pytest.raises(ValueError, match="localhost"):
        server.listen("localhost", 0)
    first = server.listen("::1", 0) if socket.has_dualstack_ipv6() else server.listen("127.0.0.1", 0)
    address, port = first.getsockname()[:2]
    with pytest.raises(OSError, match=f"cannot listen on {address} port {port}: "):
        server.listen(address, port)
    first.close()


def _fresh(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_serving_imports_nothing_of_the_client() -> None:
    loaded = _fresh("import corex.http.server, sys; print(*sys.modules)").split()
    assert not {"aiohttp", "email", "http.client", "urllib.request", "argparse"} & {*loaded}


@pytest.mark.parametrize("module", ["connection", "problem", "routes", "openapi", "server", "tls"])
def test_each_module_imports_alone(module: str) -> None:
    assert _fresh(f"import corex.http.{module}; print('ok')") == "ok\n"


async def test_a_server_is_at_rest_once_when_nobody_is_connected_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bool] = []
    done = asyncio.Event()

    def at_rest() -> None:
        told.append(not first.is_closing())
        done.set()

    monkeypatch.setattr(connection, "_REST", 0.02)
    listener = server.listen("127.0.0.1", 0)
    app = App(build_table(TABLE), authenticate, {}, max_body=1000)
    serving = await server.serve(app, [listener], None, at_rest)
    peer = Peer(listener.getsockname()[1])
    _, first = await asyncio.open_connection("127.0.0.1", peer.port)
    for _ in range(5):
        await peer.ask("GET", "/v1/health")
    first.close()
    await first.wait_closed()
    async with asyncio.timeout(10):
        await done.wait()
    await serving.stop(1)
    assert told == [False], "not while the first one was connected"
