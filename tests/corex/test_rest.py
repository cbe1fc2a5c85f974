"""Core-X's REST interface: who may ask, what it says of itself, what it does with rubbish."""

import asyncio
import hashlib
import json
from typing import Any

import msgspec
import pytest

from corex.client.client import Client, Endpoint, RefusedError, UnreachableError, WrongCertificateError
from corex.http import problem
from corex.http.problem import ProblemError
from corex.http.routes import PUBLIC
from corex.rest import access, api
from corex.rest.access import Access
from corex.wire.process import ProcessSpec
from tests.corex.conftest import plain_http

ROUTES = api.routes()
TOKENS = {"none": None, "wrong": "w" * 43, "right": "t" * 43}


async def ask(
    core: Any, method: str, path: str, token: str | None, data: bytes | None = None
) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json"} if data is not None else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with (
        plain_http(core.endpoint, headers) as session,
        session.request(method, path, data=data) as answer,
    ):
        if answer.status >= 400:
            assert answer.content_type == problem.CONTENT_TYPE
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.read()


@pytest.mark.root
async def test_access_of_every_route_with_every_token(core: Any) -> None:
    for route in ROUTES:
        path = route.path.replace("{name}", "none").replace("{id}", "0" * 16)
        answers = {kind: (await ask(core, route.method, path, token))[0] for kind, token in TOKENS.items()}
        # The table is longer than one address may fail in a minute: from there on the refusal is 429.
        closed = {200} if route.role == PUBLIC else {401, 429}
        assert {answers["none"], answers["wrong"]} <= closed, (route.method, route.path)
        assert answers["right"] in (200, 404, 415, 422), (route.method, route.path)


def test_only_health_is_public() -> None:
    assert [route.path for route in ROUTES if route.role == PUBLIC] == ["/v1/health"]


@pytest.mark.root
async def test_the_openapi_document_is_complete_and_resolves(core: Any) -> None:
    status, body = await ask(core, "GET", "/v1/openapi.json", TOKENS["right"])
    document = json.loads(body)
    assert (status, document["openapi"]) == (200, "3.1.0")
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {(route.method, route.path) for route in ROUTES}
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    for reference in _references(document):
        _, kind, section, name = reference.split("/")
        assert name in document[kind][section]
    for (_, path), operation in operations.items():
        given = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert given == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert all(response["description"] for response in operation["responses"].values())


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for inner in value.values() for found in _references(inner)]
    return [found for inner in value for found in _references(inner)] if isinstance(value, list) else []


@pytest.mark.root
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "pointer"),
    [
        pytest.param("GET", "/v1/processes/a%2Fb", None, 422, None, id="name with a slash"),
        pytest.param("GET", "/v1/processes/" + "a" * 7000, None, 422, None, id="long name"),
        pytest.param("GET", "/v1/processes/" + "a" * 10_000, None, 422, None, id="endless name"),
        pytest.param("PUT", "/v1/processes/A", {"argv": ["x"]}, 422, None, id="name in capitals"),
        pytest.param("GET", "/v1/processes/..", None, 404, None, id="parent folder"),
        pytest.param(
            "GET", f"/v1/events?after={1 << 53}", None, 422, None, id="cursor over what JSON has exactly"
        ),
        pytest.param("PUT", "/v1/processes/a", {"argv": []}, 422, "/argv", id="no program"),
        pytest.param(
            "PUT", "/v1/processes/a", {"argv": ["x"], "shell": True}, 422, "/shell", id="unknown field"
        ),
        pytest.param("PUT", "/v1/processes/a", {"argv": ["x\0"]}, 422, "/argv/0", id="zero byte"),
        pytest.param("PUT", "/v1/processes/a", {"argv": ["x"], "cwd": "."}, 422, "/cwd", id="relative cwd"),
        pytest.param(
            "PUT",
            "/v1/processes/a",
            {"argv": ["x"], "stop_signal": "NO"},
            422,
            "/stop_signal",
            id="no signal",
        ),
        pytest.param(
            "PUT", "/v1/processes/a", {"argv": ["x"], "stop_timeout": -1}, 422, "/stop_timeout", id="negative"
        ),
        pytest.param(
            "PUT", "/v1/processes/a", {"argv": ["x"], "restart": "no"}, 422, "/restart", id="policy"
        ),
        pytest.param("POST", "/v1/processes/a/start", None, 404, None, id="start of nothing"),
        pytest.param("POST", "/v1/exec", {"argv": ["x"], "timeout": 0}, 422, "/timeout", id="no time"),
        pytest.param("GET", "/v1/logs?after=-1", None, 422, None, id="negative cursor"),
        pytest.param("GET", "/v1/logs?limit=1000000", None, 422, None, id="huge page"),
        pytest.param("GET", "/v1/logs?frm=1", None, 422, None, id="unknown parameter"),
        pytest.param("GET", "/v1/events?wait=1e9", None, 422, None, id="endless wait"),
        pytest.param("GET", "/v1/events?wait=301s", None, 422, None, id="too long a wait"),
        pytest.param("GET", "/v1/events?wait=1m", None, 422, None, id="another unit"),
        pytest.param("GET", "/v1/events?wait=s", None, 422, None, id="a unit alone"),
    ],
)
async def test_bad_input_is_one_problem_and_disturbs_nothing(
    core: Any, method: str, path: str, body: Any, status: int, pointer: str | None
) -> None:
    data = None if body is None else json.dumps(body).encode()
    answered, text = await ask(core, method, path, TOKENS["right"], data)
    found = msgspec.json.decode(text, type=problem.Problem)
    assert (answered, found.status, found.pointer) == (status, status, pointer)
    assert found.detail.startswith("cannot ")
    assert await core.client.processes() == []


@pytest.mark.root
async def test_put_and_delete_are_what_they_say(core: Any) -> None:
    spec = ProcessSpec(("sleep", "100"))
    data = msgspec.json.encode(spec)
    assert [(await ask(core, "PUT", "/v1/processes/a", TOKENS["right"], data))[0] for _ in range(2)] == [
        201,
        200,
    ]
    assert (await core.client.start("a", 5)).state == "running"
    for seconds in ("5", "0.5", "5s"):
        assert (await ask(core, "POST", f"/v1/processes/a/start?wait={seconds}", TOKENS["right"]))[0] == 200
    with pytest.raises(RefusedError, match="cannot delete a: it is running; stop it first"):
        await core.client.delete("a")
    await core.client.stop("a", 10)
    with pytest.raises(RefusedError, match="cannot signal a: it is stopped; start it first"):
        await core.client.signal("a", "HUP")
    await core.client.delete("a")
    with pytest.raises(RefusedError, match="cannot find process a"):
        await core.client.process("a")


@pytest.mark.root
async def test_a_verb_that_is_still_under_way_answers_202(core: Any, sh: Any) -> None:
    await core.client.put("deaf", sh("trap '' TERM; echo up; while :; do sleep 1; done", stop_timeout=0.5))
    await core.client.start("deaf")
    await core.output("deaf", 1)
    status, _ = await ask(core, "POST", "/v1/processes/deaf/stop", TOKENS["right"])
    assert status == 202
    status, _ = await ask(core, "POST", "/v1/processes/deaf/stop?wait=10", TOKENS["right"])
    assert status == 200


@pytest.mark.root
async def test_events_wait_for_the_next_one(core: Any, sh: Any) -> None:
    waiting = asyncio.ensure_future(core.client.events(0, wait=20))
    await core.client.put("a", sh("exit 0"))
    await core.client.start("a")
    page = await waiting
    assert (page.events[0].process, page.events[0].state, page.lost) == ("a", "starting", 0)


@pytest.mark.root
async def test_the_client_trusts_one_certificate_only(core: Any) -> None:
    other = Endpoint(core.endpoint.address, "00" * 32, core.endpoint.token)
    async with Client(other) as client:
        with pytest.raises(WrongCertificateError, match=f"its certificate is {core.endpoint.fingerprint}"):
            await client.health()


async def test_the_client_says_that_nobody_is_there(unused_tcp_port: int) -> None:
    async with Client(Endpoint(f"127.0.0.1:{unused_tcp_port}", "00" * 32, "x")) as client:
        with pytest.raises(UnreachableError, match="is the container running"):
            await client.health()


def test_an_endpoint_does_not_print_its_token() -> None:
    assert "secret" not in repr(Endpoint("host:1", "00", "secret"))


class Caller:
    """As much of a request as authentication may look at."""

    def __init__(
        self,
        token: str,
        remote: str = "192.0.2.1",
        path: str = "/",
        query: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.headers = {"authorization": token}
        self.remote, self.path, self.query = remote, path, query


def refusal(check: Access, caller: Any) -> ProblemError:
    with pytest.raises(ProblemError) as refused:
        check(caller)
    return refused.value


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def check(clock: list[float]) -> Access:
    return Access(hashlib.sha256(b"right").hexdigest(), lambda: clock[0])


def test_many_failures_from_one_address_are_limited_and_forgotten(check: Access, clock: list[float]) -> None:
    statuses = [refusal(check, Caller("Bearer wrong")).problem.status for _ in range(access.MAX_FAILURES + 1)]
    assert statuses == [401] * access.MAX_FAILURES + [429]
    assert refusal(check, Caller("Bearer wrong", "192.0.2.2")).problem.status == 401
    clock[0] += access.WINDOW
    assert refusal(check, Caller("Bearer wrong")).problem.status == 401


def test_the_right_token_passes_whatever_the_neighbours_do(check: Access) -> None:
    for _ in range(100):
        refusal(check, Caller("Bearer wrong"))
    assert check(Caller("Bearer right")).name == "owner"  # type: ignore[arg-type]
    assert check(Caller("bearer right")).name == "owner"  # type: ignore[arg-type]


@pytest.mark.parametrize("header", ["", "right", "Basic right", "Bearer", "Bearer rightt", "Bearer r\udcff"])
def test_what_is_not_the_token_is_refused(check: Access, header: str) -> None:
    error = refusal(check, Caller(header))
    assert error.headers["WWW-Authenticate"].startswith("Bearer")


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_others_get_what_their_role_allows_and_the_owner_stays(check: Access) -> None:
    assert check.put("web", "viewer", hashed("theirs"))
    assert not check.put("web", "operator", hashed("theirs"))
    theirs = check(Caller("Bearer theirs"))  # type: ignore[arg-type]
    assert (theirs.name, theirs.roles) == ("web", {"viewer", "operator", "metrics"})
    assert check.identities() == {"owner": "admin", "web": "operator"}
    for change in (
        lambda: check.put("owner", "viewer", hashed("x")),
        lambda: check.delete("owner"),
        lambda: check.put("other", "admin", hashed("theirs")),
        lambda: [check.put(f"n{number}", "viewer", hashed(str(number))) for number in range(64)],
    ):
        with pytest.raises(ProblemError) as refused:
            change()
        assert refused.value.problem.status == 409
    check.delete("web")
    assert refusal(check, Caller("Bearer theirs")).problem.status == 401
    with pytest.raises(ProblemError, match="cannot find identity web"):
        check.delete("web")


def test_a_ticket_is_of_use_for_thirty_seconds_and_as_long_as_its_owner(
    check: Access, clock: list[float]
) -> None:
    check.put("web", "viewer", hashed("theirs"))
    theirs = check(Caller("Bearer theirs"))  # type: ignore[arg-type]
    for late, gone, status in ((29, False, 0), (31, False, 401), (0, True, 401)):
        shown = Caller(
            "", path="/v1/x", query=(("ticket", check.ticket(theirs, "/v1/x").ticket), ("after", "1"))
        )
        shown.headers["upgrade"] = "websocket"
        clock[0] += late
        if gone:
            check.delete("web")
        if status:
            assert refusal(check, shown).problem.status == status
        else:
            assert check(shown).name == "web"  # type: ignore[arg-type]
            assert shown.query == (("after", "1"),), "handlers do not see it"


def test_tickets_take_bounded_memory(check: Access) -> None:
    owner = check(Caller("Bearer right"))  # type: ignore[arg-type]
    for _ in range(access.MAX_TICKETS * 2):
        check.ticket(owner, "/v1/x")
    assert len(check._tickets) == access.MAX_TICKETS


def test_a_million_addresses_take_bounded_memory(check: Access) -> None:
    for number in range(access.MAX_ADDRESSES * 2):
        refusal(check, Caller("Bearer wrong", f"address {number}"))
    assert len(check._failures) == access.MAX_ADDRESSES
