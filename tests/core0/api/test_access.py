"""Who may do what, and what a request that is wrong gets: every route over real TLS, before a real node daemon."""

import asyncio
import datetime
import io
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from core0.api import daemon as daemon_module
from core0.api.table import ROUTES
from core0.client.client import NodeClient, NotAllowedError, RefusedError, UnreachableError, WrongNodeError
from core0.client.credentials import client_context
from core0.wire.types import ContainerSpec, PowerRequest
from corex.http.problem import CONTENT_TYPE, Problem
from corex.http.routes import Route
from tests.host_node import MAX_BODY, HostNode

SPEC = {"image": "http://127.0.0.1:9/demo/", "token_sha256": "ab" * 32}
PER_ROUTE = pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture
async def node(host_node: HostNode) -> AsyncIterator[HostNode]:
    """A node that serves, with one container that runs."""
    host_node.add_container("demo", msgspec.convert(SPEC, ContainerSpec))
    async with host_node.daemon(), host_node.api():
        yield host_node


async def ask(
    node: HostNode, method: str, path: str, pem: bytes | None, **options: object
) -> tuple[int, dict[str, str], bytes]:
    """One request as any HTTP client sends it."""
    pin = aiohttp.Fingerprint(bytes.fromhex(node.fingerprint))
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pin)) as session,
        session.request(
            method, f"https://{node.address}{path}", ssl=client_context(pem), **options
        ) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.read()


def problem_of(answer: tuple[int, dict[str, str], bytes], status: int) -> Problem:
    """The problem document that was expected."""
    assert (answer[0], answer[1]["Content-Type"]) == (status, CONTENT_TYPE), answer
    return msgspec.json.decode(answer[2], type=Problem)


def path_of(route: Route) -> str:
    return re.sub(r"\{\w+\}", "demo", route.path)


@PER_ROUTE
async def test_without_a_certificate_every_route_says_what_is_missing(node: HostNode, route: Route) -> None:
    problem = problem_of(await ask(node, route.method, path_of(route), None), 401)
    assert problem.type.endswith(":unauthenticated")
    assert "no client certificate" in problem.detail
    assert "signed by the operator's key" in problem.remedy


def of_another_key(node: HostNode) -> bytes:
    return node.certificate(Ed25519PrivateKey.generate())


def expired(node: HostNode) -> bytes:
    return node.certificate(hours=-1)


@PER_ROUTE
@pytest.mark.parametrize("certificate", [of_another_key, expired])
async def test_with_a_wrong_certificate_no_route_is_reached(
    node: HostNode, route: Route, certificate: Callable[[HostNode], bytes]
) -> None:
    with pytest.raises(aiohttp.ClientError):
        await ask(node, route.method, path_of(route), certificate(node))


@pytest.mark.parametrize(
    ("certificate", "cause"),
    [
        pytest.param(of_another_key, "its signature is not by the operator's key", id="another key"),
        pytest.param(expired, "is expired; check the clocks", id="expired"),
    ],
)
async def test_the_client_says_why_the_node_refuses_its_certificate(
    node: HostNode, certificate: Callable[[HostNode], bytes], cause: str
) -> None:
    async with node.client(certificate(node)) as client:
        with pytest.raises(NotAllowedError, match=cause):
            await client.node()


class Issuer:
    """Signs certificates as of a moment with a key, and remembers the moments."""

    def __init__(self, node: HostNode, key: Ed25519PrivateKey | None = None) -> None:
        self._node, self._key = node, key
        self.moments: list[datetime.datetime] = []

    def __call__(self, moment: datetime.datetime) -> ssl.SSLContext:
        self.moments.append(moment)
        return client_context(self._node.certificate(self._key, now=moment))


async def test_a_certificate_that_is_expired_by_the_nodes_clock_is_made_anew_by_that(node: HostNode) -> None:
    issuer = Issuer(node)
    old = client_context(expired(node))
    async with NodeClient(node.address, node.fingerprint, old, reissue=issuer) as client:
        assert (await client.node()).hostname == (await client.node()).hostname
    (moment,) = issuer.moments
    assert abs(moment - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("first", "second", "asked", "cause"),
    [
        pytest.param(of_another_key, None, 0, "its signature is not by", id="for another reason"),
        pytest.param(expired, Ed25519PrivateKey.generate(), 1, "its signature is not by", id="in vain, once"),
    ],
)
async def test_no_other_certificate_is_made_anew(
    node: HostNode,
    first: Callable[[HostNode], bytes],
    second: Ed25519PrivateKey | None,
    asked: int,
    cause: str,
) -> None:
    issuer = Issuer(node, second)
    async with NodeClient(
        node.address, node.fingerprint, client_context(first(node)), reissue=issuer
    ) as client:
        for _ in range(2):
            with pytest.raises(NotAllowedError, match=cause):
                await client.node()
    assert len(issuer.moments) == asked


async def test_a_certificate_that_ends_in_a_long_talk_is_not_made_anew(node: HostNode) -> None:
    issuer = Issuer(node)
    good = client_context(node.certificate())
    async with NodeClient(node.address, node.fingerprint, good, reissue=issuer) as client:
        await client.node()
        client._context = client_context(expired(node))
        with pytest.raises(NotAllowedError, match="is expired"):
            await client.node()
    assert issuer.moments == []


@PER_ROUTE
async def test_with_the_operators_certificate_every_route_is_reached(node: HostNode, route: Route) -> None:
    status, _, answer = await ask(node, route.method, path_of(route), node.certificate())
    assert status not in (401, 403, 405)
    assert status != 404 or b"openapi.json" not in answer  # a disk or pool of that name, not the route


async def test_a_node_without_an_operator_lets_nobody_in(node: HostNode) -> None:
    assert node.identity
    nobody = msgspec.structs.replace(node.identity, operator_certificate=None)
    async with node.api(nobody):
        problem_of(await ask(node, "GET", "/v1/node", None), 401)
        async with node.operator() as client:
            with pytest.raises(NotAllowedError, match="does not know the operator's key"):
                await client.node()


async def test_older_tls_than_1_3_is_refused(node: HostNode) -> None:
    context = client_context(node.certificate())
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", node.port, ssl=context)


async def test_another_node_than_the_pinned_one_is_not_trusted(node: HostNode) -> None:
    async with node.client(node.certificate(), fingerprint="00" * 32) as client:
        with pytest.raises(WrongNodeError, match=rf"its certificate is {node.fingerprint}, not 0000"):
            await client.node()


async def test_an_address_where_nobody_listens_is_named(node: HostNode) -> None:
    async with node.client(node.certificate(), address="127.0.0.1:1") as client:
        with pytest.raises(
            UnreachableError, match=r"cannot reach the node at 127.0.0.1:1: .*check that it runs"
        ):
            await client.node()


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "kind", "pointer"),
    [
        pytest.param(
            "PUT", "/v1/containers/a", b"x" * (MAX_BODY + 1), JSON, 413, "too-large", None, id="oversized"
        ),
        pytest.param("GET", "/v1/node", b"x", JSON, 413, "too-large", None, id="body where none is taken"),
        pytest.param("PUT", "/v1/containers/a", b"{", JSON, 400, "malformed-json", None, id="no JSON"),
        pytest.param("PUT", "/v1/containers/a", b"\xff", JSON, 400, "malformed-json", None, id="no UTF-8"),
        pytest.param(
            "PUT", "/v1/containers/a", b'{"env":' * 9_000, JSON, 422, "invalid", "/env", id="nested deeply"
        ),
        pytest.param(
            "PUT",
            "/v1/containers/a",
            json.dumps({**SPEC, "limits": {"memory": 1}}).encode(),
            JSON,
            422,
            "invalid",
            "/limits/memory",
            id="unknown field",
        ),
        pytest.param(
            "PUT",
            "/v1/containers/a",
            json.dumps({**SPEC, "ports": [{"node": 70000, "container": 1}]}).encode(),
            JSON,
            422,
            "invalid",
            "/ports/0/node",
            id="port out of range",
        ),
        pytest.param(
            "PUT",
            "/v1/containers/a",
            json.dumps({**SPEC, "ports": [{"node": 8443, "container": 1}]}).encode(),
            JSON,
            409,
            "conflict",
            "/ports/0/node",
            id="port of the API",
        ),
        pytest.param(
            "PUT",
            "/v1/containers/a",
            json.dumps({**SPEC, "image": "ftp://x/y"}).encode(),
            JSON,
            422,
            "invalid",
            "/image",
            id="no image reference",
        ),
        pytest.param(
            "POST",
            "/v1/power",
            b'{"action": "reboot"}',
            {"Content-Type": "text/plain"},
            415,
            "unsupported-type",
            None,
            id="wrong content type",
        ),
        pytest.param("GET", "/v1/containers/gone", b"", {}, 404, "not-found", None, id="no such container"),
        pytest.param("GET", "/v1/containers/..%2Fx", b"", {}, 422, "invalid", None, id="a name that climbs"),
        pytest.param(
            "GET", "/v1/containers/demo%0A", b"", {}, 422, "invalid", None, id="a name with a line end"
        ),
        pytest.param("GET", "/v1/events?after=-1", b"", {}, 422, "invalid", None, id="cursor below zero"),
        pytest.param("GET", "/v1/node?verbose=1", b"", {}, 422, "invalid", None, id="unknown parameter"),
        pytest.param("DELETE", "/v1/node", b"", {}, 405, "method-not-allowed", None, id="no such method"),
        pytest.param("GET", "/v2/node", b"", {}, 404, "not-found", None, id="unknown path"),
    ],
)
async def test_a_wrong_request_is_told_what_is_wrong(
    node: HostNode,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    kind: str,
    pointer: str | None,
) -> None:
    answer = await ask(
        node, method, path, node.certificate(), data=io.BytesIO(body) if body else None, headers=headers
    )
    problem = problem_of(answer, status)
    assert (problem.type, problem.pointer) == (f"urn:zeronode:problem:{kind}", pointer)
    assert problem.detail.startswith("cannot ")


async def test_unknown_paths_and_methods_are_hidden_from_strangers(node: HostNode) -> None:
    for method, path in (("GET", "/v2/node"), ("DELETE", "/v1/node"), ("GET", "/")):
        problem_of(await ask(node, method, path, None), 401)


async def test_a_daemon_that_is_away_is_told_and_found_again_without_a_restart(host_node: HostNode) -> None:
    async with host_node.daemon():
        identity = host_node.identity
        fingerprint = host_node.fingerprint
    async with host_node.api(identity), host_node.client(host_node.certificate(), fingerprint) as client:
        with pytest.raises(
            RefusedError, match=r"cannot ask the node daemon: .*it starts again by itself"
        ) as away:
            await client.node()
        assert away.value.problem.status == 503
        for _ in range(2):  # the second time over a connection that ended with the daemon before
            async with host_node.daemon():
                assert (await client.node()).version == "1.2.3"


async def test_a_daemon_that_does_not_answer_in_time_is_given_up_and_asked_again_afresh(
    host_node: HostNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_DEADLINE", 0.2)
    calls: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(writer)

    async with host_node.daemon():
        identity = host_node.identity
        fingerprint = host_node.fingerprint
    server = await asyncio.start_unix_server(silent, str(host_node.socket))
    async with host_node.api(identity), host_node.client(host_node.certificate(), fingerprint) as client:
        for _ in range(2):
            with pytest.raises(RefusedError, match=r"cannot ask the node daemon: no answer within 0.2 s"):
                await client.node()
        assert len(calls) == 2
        for writer in calls:
            writer.close()
        server.close()
        host_node.socket.unlink()
        async with host_node.daemon():
            assert (await client.node()).version == "1.2.3"


async def test_who_waits_for_events_holds_nobody_up(node: HostNode) -> None:
    async with node.operator() as client:
        cursor = (await client.events()).cursor
        waiting = asyncio.create_task(client.events(cursor, wait=30))
        assert (await client.node()).version == "1.2.3"
        assert not waiting.done()
        assert node.state
        node.state.events("test", "subject", "happened")
        assert [event.message for event in (await waiting).events] == ["happened"]


async def test_power_goes_to_pid_1_after_the_answer(node: HostNode) -> None:
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    class Init(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            told.set_result(data)

    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(str(node.folder / "init.sock"))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Init, sock=control)
    try:
        async with node.operator() as client:
            await client.power(PowerRequest("poweroff"))
            assert not told.done()
        assert await asyncio.wait_for(told, 5) == b"poweroff"
    finally:
        transport.close()


async def test_the_document_is_complete(node: HostNode, golden: Callable[[str, str], None]) -> None:
    async with node.operator() as client:
        document = await client.openapi()
    paths = document["paths"]
    assert isinstance(paths, dict)
    listed = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert listed == {(route.method, route.path) for route in ROUTES}
    golden("openapi.json", json.dumps(document, indent=2) + "\n")
