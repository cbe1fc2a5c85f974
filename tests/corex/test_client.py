"""The Python client has a typed method for every route of Core-X, with its parameters and its refusals."""

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import msgspec
import pytest
from yarl import URL

from corex.client.client import Client, Endpoint, RefusedError
from corex.http import problem
from corex.http.routes import Match, Route, Upload, match
from corex.rest import api
from corex.wire.api import ExecRequest, LogSieve
from corex.wire.identities import IdentitySpec
from corex.wire.plan import Layer
from corex.wire.process import ProcessSpec
from corex.wire.sessions import ExecQuery, SessionSpec, Window

ARGV = ("a", "b c&d")
ID = "0123456789abcdef"
PATH = "/a b/ü&?"
SIEVE = LogSieve("stdout", 1.5, 2.5, "a+b", 10)

# Each method that asks for something, with all that it can be told.
CALLS: dict[str, Callable[[Client], Any]] = {
    "health": lambda client: client.health(),
    "system": lambda client: client.system(),
    "processes": lambda client: client.processes(),
    "process": lambda client: client.process("web"),
    "process_with_etag": lambda client: client.process_with_etag("web"),
    "put": lambda client: client.put("web", ProcessSpec(ARGV), etag='"1"'),
    "delete": lambda client: client.delete("web", etag='"1"'),
    "start": lambda client: client.start("web", 3),
    "stop": lambda client: client.stop("web", 3),
    "restart": lambda client: client.restart("web", 3),
    "reset": lambda client: client.reset("web", 3),
    "signal": lambda client: client.signal("web", "HUP"),
    "plan": lambda client: client.plan(),
    "apply": lambda client: client.apply(etag='"1"', wait=3),
    "layers": lambda client: client.layers(),
    "layer": lambda client: client.layer("shop"),
    "put_layer": lambda client: client.put_layer("shop", Layer(""), etag='"1"', dry_run=True),
    "delete_layer": lambda client: client.delete_layer("shop", etag='"1"'),
    "targets": lambda client: client.targets(),
    "target": lambda client: client.target("out"),
    "checks": lambda client: client.checks(),
    "check": lambda client: client.check("alive"),
    "logs": lambda client: client.logs("web", 4, 5, SIEVE),
    "follow": lambda client: anext(client.follow("web", 4, SIEVE)),
    "events": lambda client: client.events(4, 3, 5),
    "sessions": lambda client: client.sessions(),
    "create_session": lambda client: client.create_session(SessionSpec(ARGV)),
    "session": lambda client: client.session(ID),
    "delete_session": lambda client: client.delete_session(ID),
    "resize_session": lambda client: client.resize_session(ID, Window()),
    "attach": lambda client: client.attach(ID, 4).__aenter__(),
    "attach_process": lambda client: client.attach_process("web", 4).__aenter__(),
    "kubernetes_exec": lambda client: client.kubernetes_exec(ExecQuery(ARGV, stdin=True)),
    "stat": lambda client: client.stat(PATH),
    "read_file": lambda client: client.read_file(PATH),
    "open_file": lambda client: client.open_file(PATH, 4).__aenter__(),
    "write_file": lambda client: client.write_file(PATH, b"x", mode="600", owner="web", etag='"1"'),
    "delete_file": lambda client: client.delete_file(PATH, etag='"1"'),
    "folder": lambda client: client.folder(PATH, "b%20c", 5),
    "make_folder": lambda client: client.make_folder(PATH, mode="700", owner="web", parents=True),
    "delete_folder": lambda client: client.delete_folder(PATH, recursive=True, wait=3),
    "open_archive": lambda client: client.open_archive(PATH).__aenter__(),
    "unpack": lambda client: client.unpack(PATH, b"x", owner="web", keep_owner=True),
    "operations": lambda client: client.operations(),
    "operation": lambda client: client.operation(ID, 3),
    "cancel": lambda client: client.cancel(ID),
    "identities": lambda client: client.identities(),
    "own_identity": lambda client: client.own_identity(),
    "put_identity": lambda client: client.put_identity("ann", IdentitySpec("viewer", "0" * 64)),
    "delete_identity": lambda client: client.delete_identity("ann"),
    "ticket": lambda client: client.ticket("/v1/sessions"),
    "metrics": lambda client: client.metrics(),
    "audit": lambda client: client.audit(4, 5),
    "execute": lambda client: client.execute(ExecRequest(ARGV)),
    "openapi": lambda client: client.openapi(),
}
# What several routes are asked by, as one method has them all.
ALSO: dict[str, Callable[[Client], Any]] = {
    "logs of several": lambda client: client.logs(["web", "db"], 4, 5, SIEVE),
    "follow all": lambda client: anext(client.follow(["web"], 4, SIEVE)),
    "try to apply": lambda client: client.apply(dry_run=True),
}
_NAMED = re.compile(r"Refused as (?P<names>[a-z, -]+)\.")


class AskedError(Exception):
    """What a client asked for."""

    def __init__(self, method: str, url: str | URL, body: bytes | None) -> None:
        super().__init__(f"{method} {url}")
        self.method, self.body = method, body
        self.path, _, self.query = str(url).partition("?")


class Recorder:
    """Stands where the HTTP session is."""

    async def request(self, method: str, url: URL, *, params: Any, data: Any, **_: Any) -> None:
        raise AskedError(method, url.update_query(params) if params else url, data)

    def put(self, url: URL, **_: Any) -> None:
        raise AskedError("PUT", url, None)

    async def ws_connect(self, path: str, *, params: Any, **_: Any) -> None:
        raise AskedError("GET", URL(path, encoded=True).update_query(params), None)


async def asked(call: Callable[[Client], Awaitable[Any]]) -> tuple[Route, AskedError, dict[str, Any]]:
    """The route that a call asks, what it sends, and the parameters."""
    client = Client(Endpoint("127.0.0.1:1", "00" * 32, "token"))
    client._session = Recorder()  # type: ignore[assignment]
    with pytest.raises(AskedError) as caught:
        await call(client)
    found = match(api.table(), caught.value.method, caught.value.path)
    assert isinstance(found, Match), str(caught.value)
    given = parse_qsl(caught.value.query, keep_blank_values=True, strict_parsing=bool(caught.value.query))
    parameters: dict[str, Any] = {name: value for name, value in given if name not in found.route.repeated}
    for name in found.route.repeated:
        parameters[name] = [value for other, value in given if other == name]
    return found.route, caught.value, {**parameters, **found.values}


def test_every_method_is_asked_here() -> None:
    public = {name for name, _ in inspect.getmembers(Client, callable) if not name.startswith("_")}
    assert public - {"websocket"} == CALLS.keys()


@pytest.mark.parametrize("call", [*CALLS.values(), *ALSO.values()], ids=[*CALLS, *ALSO])
async def test_what_a_method_sends_is_what_its_route_takes(call: Callable[[Client], Any]) -> None:
    route, sent, parameters = await asked(call)
    msgspec.convert(parameters, route.parameters, strict=False)
    if "path" in parameters:
        assert parameters["path"] == PATH
    if route.request not in (None, Upload):
        assert sent.body is not None
        api.table().decoders[route].decode(sent.body)


async def test_every_route_and_every_parameter_is_asked_by_some_method() -> None:
    told: dict[tuple[str, str], set[str]] = {}
    for call in (*CALLS.values(), *ALSO.values()):
        route, _, parameters = await asked(call)
        told.setdefault((route.method, route.path), set()).update(parameters)
    known = {(one.method, one.path): set(one.parameters.__struct_fields__) for one in api.routes()}
    assert told == known


@pytest.mark.parametrize("name", CALLS)
async def test_each_method_says_how_it_is_refused(name: str) -> None:
    route, _, _ = await asked(CALLS[name])
    said = _NAMED.search(inspect.getdoc(getattr(Client, name)) or "")
    named = set(said["names"].split(", ")) if said else set()
    assert named == {kind.name for kind in route.errors if kind is not problem.MISDIRECTED}


@pytest.mark.root
async def test_what_has_no_test_elsewhere_works_on_a_real_core_x(core: Any, sh: Any) -> None:
    client = core.client
    await client.put("web", sh("sleep 100"))
    assert "corex_process_state" in await client.metrics()
    assert (await client.openapi())["openapi"] == "3.1.0"
    ticket = await client.ticket("/v1/sessions/0123456789abcdef/attach")
    assert len(ticket.ticket) > 20
    session = await client.create_session(SessionSpec(("sleep", "100"), {"PATH": "/bin"}, window=Window()))
    assert (await client.resize_session(session.id, Window(50, 70))).spec.window == Window(50, 70)
    await client.delete_session(session.id)
    with pytest.raises(RefusedError) as refused:
        await client.target("none")
    assert refused.value.problem.type == problem.NOT_FOUND.urn
    query = ExecQuery(("/bin/sh", "-c", "echo a & b; exit 3"))
    async with await client.kubernetes_exec(query) as socket:
        messages = [message.data async for message in socket if message.type is aiohttp.WSMsgType.BINARY]
    assert b"".join(one[1:] for one in messages if one[:1] == b"\1") == b"a\n"
    assert b'"3"' in messages[-1]
    with pytest.raises(RefusedError) as refused:
        await client.kubernetes_exec(ExecQuery(("/missing",)))
    assert refused.value.problem.status == 422
