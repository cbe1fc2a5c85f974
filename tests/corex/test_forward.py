"""Log lines sent on to syslog, Loki and OTLP: in their words, all of them or declared as lost, and nobody waits."""

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from corex.client.client import RefusedError
from corex.forward import names
from corex.forward.formats import Sayer, counted
from corex.forward.location import Place, place_of
from corex.wire.api import LogGap, LogLine
from corex.wire.plan import Layer, TargetLayer
from corex.wire.targets import TargetInfo, TargetSpec

MOMENT = 1_700_000_000.25
LINES = (
    LogLine(1, 1, MOMENT, "web", "stdout", "hällo"),
    LogLine(2, 2, MOMENT, "web", "stdout", "hällo"),
    LogGap(7),
    LogLine(10, 1, MOMENT + 1, "db", "stderr", "oops \\xff"),
)


GONE = "were overwritten before they could be sent"

# Words.


def test_syslog_says_it_as_rfc_5424_wants() -> None:
    spec = TargetSpec("syslog", "tcp://x", labels={"site": 'a "b" [c] \\'})
    said = Sayer("demo", spec).syslog(LINES, MOMENT + 2)
    data = '[zeronode@32473 site="a \\"b\\" [c\\] \\\\"]'
    assert [one.decode() for one in said] == [
        f"<14>1 2023-11-14T22:13:20.250000Z demo web - stdout {data} hällo",
        f"<14>1 2023-11-14T22:13:20.250000Z demo web - stdout {data} hällo",
        f"<12>1 2023-11-14T22:13:22.250000Z demo core-x - gap {data} 7 lines {GONE}",
        f"<12>1 2023-11-14T22:13:21.250000Z demo db - stderr {data} oops \\xff",
    ]
    assert Sayer("demo", TargetSpec("syslog", "tcp://x")).syslog(LINES[:1], 0)[0].endswith(b" - h\xc3\xa4llo")
    assert counted([b"ab", b"", b"c\n"]) == b"2 ab0 2 c\n"


def test_loki_gets_streams_whose_lines_all_differ_in_time() -> None:
    sayer = Sayer("demo", TargetSpec("loki", "http://x", labels={"site": "a", "process": "mine"}))
    told = json.loads(sayer.loki(LINES, MOMENT + 2))["streams"]
    assert [one["stream"] for one in told] == [
        {"site": "a", "process": process, "container": "demo", "stream": stream}
        for process, stream in (("web", "stdout"), ("core-x", "gap"), ("db", "stderr"))
    ]
    first = int(MOMENT * 1e9)
    assert told[0]["values"] == [[str(first), "hällo"], [str(first + 1), "hällo"]]
    again = json.loads(sayer.loki(LINES[:1], 0))["streams"][0]["values"]
    assert again == [[str(first + 2), "hällo"]]


def test_otlp_gets_a_resource_per_process() -> None:
    told = json.loads(Sayer("demo", TargetSpec("otlp", "http://x", labels={"site": "a"})).otlp(LINES, MOMENT))
    web = told["resourceLogs"][0]
    assert {one["key"]: one["value"]["stringValue"] for one in web["resource"]["attributes"]} == {
        "service.name": "web",
        "container.name": "demo",
        "site": "a",
    }
    (scope,) = web["scopeLogs"]
    assert scope["logRecords"][0] == {
        "timeUnixNano": str(int(MOMENT * 1e9)),
        "observedTimeUnixNano": str(int(MOMENT * 1e9)),
        "severityNumber": 9,
        "severityText": "INFO",
        "body": {"stringValue": "hällo"},
        "attributes": [{"key": "log.iostream", "value": {"stringValue": "stdout"}}],
    }
    assert len(told["resourceLogs"]) == 3


@pytest.mark.parametrize(
    ("type_", "location", "place"),
    [
        ("syslog", "tls://logs.example", Place("tls", "logs.example", 6514, "/")),
        ("syslog", "udp://[2001:db8::1]:99", Place("udp", "2001:db8::1", 99, "/")),
        ("loki", "https://l/loki/api/v1/push?x=1", Place("https", "l", 443, "/loki/api/v1/push?x=1")),
    ],
)
def test_places(type_: Any, location: str, place: Place) -> None:
    assert place_of(TargetSpec(type_, location)) == place


@pytest.mark.parametrize(
    ("type_", "location", "reason"),
    [
        ("syslog", "http://x", "begins with tcp:// or udp:// or tls://"),
        ("loki", "tcp://x", "begins with http:// or https://"),
        ("otlp", "http://me:secret@x/", "without a user"),
        ("otlp", "http://:80/", "is a host with a port"),
        ("syslog", "tcp://x/path", "has no path"),
        ("syslog", "tcp://x:99999", "Port out of range"),
        ("otlp", "http://[::1/", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_place_is_refused(type_: Any, location: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        place_of(TargetSpec(type_, location))


# Names.


def reader(**files: bytes) -> Callable[[str], Any]:
    async def read(path: str) -> bytes:
        return files.get(path.rpartition("/")[2].partition(".")[0], b"")

    return read


class NameServer(asyncio.DatagramProtocol):
    """Knows logs.example, and answers with something wrong first."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question = data[12:]
        self.asked.append(question[:-4])
        kind = struct.unpack("!H", question[-4:-2])[0]
        known = question[:-4] == b"\4logs\7example\0"
        self.transport.sendto(b"\0\0" + data[2:], addr)
        records = b""
        if known and kind == 1:
            records += b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 2) + b"\xc0\x0c"
            records += b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes((192, 0, 2, 7))
        count = 2 if records else 0
        head = data[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, count, 0, 0)
        self.transport.sendto(head + question + records, addr)


async def test_names_are_looked_up_as_the_containers_files_say() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    read = reader(
        hosts=b"127.0.0.1 localhost\n10.9.8.7 Loki loki.internal # here\n",
        resolv=b"nameserver 127.0.0.1\nsearch example other.example\noptions ndots:1\n",
    )
    assert await names.addresses_of("192.0.2.1", read, port) == ["192.0.2.1"]
    assert await names.addresses_of("::1", read, port) == ["::1"]
    assert await names.addresses_of("LOKI", read, port) == ["10.9.8.7"]
    assert await names.addresses_of("logs", read, port) == ["192.0.2.7"]
    assert await names.addresses_of("logs.example.", read, port) == ["192.0.2.7"]
    with pytest.raises(OSError, match="nobody knows the name 'missing'"):
        await names.addresses_of("missing", read, port)
    with pytest.raises(OSError, match="nobody knows"):
        await names.addresses_of("ö..x" * 100, read, port)
    transport.close()


@given(st.binary(max_size=200), st.integers(0, 60))
def test_a_hostile_answer_is_no_trouble(data: bytes, at: int) -> None:
    for address in names.read_answer(b"\0\0\x81\x80\0\1\xff\xff\0\0\0\0" + data, at, 1):
        socket.inet_pton(socket.AF_INET, address)


# On a real Core-X.


class Collector:
    """A syslog server."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.tasks: set[Any] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        try:
            while True:
                await self.goes_on.wait()
                length = int(await reader.readuntil(b" "))
                self.messages.append(await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    def texts(self) -> list[str]:
        return [one.decode().split(" - ", 1)[1] for one in self.messages]


@asynccontextmanager
async def syslog(
    collector: Collector, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    server = await asyncio.start_server(collector.serve, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in collector.tasks:
            task.cancel()
        await asyncio.gather(*collector.tasks, return_exceptions=True)


async def send_to(core: Any, **targets: TargetLayer) -> None:
    await core.client.put_layer("forward", Layer("", targets=targets))
    await core.client.apply()


async def until_target(core: Any, accept: Callable[[TargetInfo], bool]) -> TargetInfo:
    async with asyncio.timeout(20):
        while True:
            (target,) = await core.client.targets()
            if accept(target):
                return target
            await asyncio.sleep(0.02)


async def write(core: Any, sh: Any, name: str, script: str) -> None:
    await core.client.put(name, sh(script))
    await core.client.start(name, 10)


@pytest.mark.root
async def test_lines_go_to_syslog_by_tcp_once_it_is_there(core: Any, sh: Any, unused_tcp_port: int) -> None:
    location = f"tcp://127.0.0.1:{unused_tcp_port}"
    await write(core, sh, "other", "echo not this")
    await core.client.put("a", sh("echo one; echo two >&2; sleep 100"))
    await send_to(core, out=TargetLayer(type="syslog", location=location, processes=("a",)))
    await core.client.start("a", 10)
    await core.client.start("other", 10)
    waiting = await until_target(core, lambda target: target.state == "retrying")
    assert waiting.why.startswith("Connection refused; the next try follows")
    collector = Collector()
    async with syslog(collector, unused_tcp_port):
        done = await until_target(core, lambda target: target.sent >= 2)
        assert (done.sent, done.lost, done.refused, done.state) == (2, 0, 0, "sending")
        async with asyncio.timeout(20):
            while len(collector.messages) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert sorted(collector.texts()) == ["stderr - two", "stdout - one"]
    assert core.imported_late() == []


@pytest.mark.root
async def test_a_target_that_does_not_read_delays_nobody_and_is_told_what_it_missed(
    core: Any, sh: Any
) -> None:
    collector, count = Collector(), 60_000
    collector.goes_on.clear()
    async with syslog(collector) as port:
        await send_to(core, out=TargetLayer(type="syslog", location=f"tcp://127.0.0.1:{port}"))
        script = f"i=0; while test $i -lt {count}; do echo line $i {'x' * 60}; i=$((i+1)); done"
        await core.client.put("flood", sh(script))
        await core.client.start("flood")
        await core.until("flood", "exited", 50)
        collector.goes_on.set()
        done = await until_target(core, lambda target: target.sent + target.lost == count)
        assert done.lost > 0
        async with asyncio.timeout(20):
            while not collector.messages[-1].endswith(f"line {count - 1} {'x' * 60}".encode()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    gaps = [text for text in collector.texts() if text.startswith("gap")]
    told = sum(int(text.split()[2]) for text in gaps)
    assert (told, len(collector.messages) - len(gaps)) == (done.lost, done.sent)


@pytest.mark.root
async def test_a_target_of_one_process_counts_that_ones_lines_alone(core: Any, sh: Any) -> None:
    collector, counts = Collector(), {"a": 9_000, "b": 20_000}
    collector.goes_on.clear()
    for name, count in counts.items():
        await core.client.put(name, sh(f"yes {name}{'x' * 60} | head -n {count}", enabled=False))
    async with syslog(collector) as port:
        location = f"tcp://127.0.0.1:{port}"
        await send_to(core, out=TargetLayer(type="syslog", location=location, processes=("a",)))
        for name in ("b", "a", "b"):
            await core.client.start(name, 10)
            await core.until(name, "exited")
        collector.goes_on.set()
        done = await until_target(core, lambda target: target.sent + target.lost >= counts["a"])
        assert (done.sent + done.lost, done.lost > 0) == (counts["a"], True)
        async with asyncio.timeout(20):
            while len(collector.messages) < done.sent + 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    told = [text for text in collector.texts() if text.startswith("gap")]
    assert sum(int(text.split()[2]) for text in told) == done.lost
    # more lines of b change nothing for it
    await core.client.start("b", 10)
    await core.until("b", "exited")
    (after,) = await core.client.targets()
    assert (after.sent, after.lost) == (done.sent, done.lost)


@pytest.mark.root
async def test_the_last_words_of_a_container_arrive(start: Any, busybox_root: Any, sh: Any) -> None:
    collector = Collector()
    async with syslog(collector) as port:
        core = await start(busybox_root, main=sh("sleep 1; echo goodbye", env={"PATH": "/bin"}))
        await send_to(core, out=TargetLayer(type="syslog", location=f"tcp://127.0.0.1:{port}"))
        assert await core.exit_code() == 0
        async with asyncio.timeout(10):
            while not collector.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert collector.texts() == ["stdout - goodbye"]


@pytest.mark.root
async def test_datagrams_are_messages(core: Any, sh: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        location = f"udp://127.0.0.1:{server.getsockname()[1]}"
        await send_to(core, out=TargetLayer(type="syslog", location=location, labels={"site": "a"}))
        await write(core, sh, "a", "echo one; printf '%020000d' 0; echo")
        async with asyncio.timeout(20):
            loop = asyncio.get_running_loop()
            found = [await loop.sock_recv(server, 65536) for _ in range(3)]
    assert found[0].endswith(b'a - stdout [zeronode@32473 site="a"] one')
    assert max(map(len, found)) == 8192


class Receiver:
    """An HTTP server that answers as it is told, then well."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers, self.bodies, self.headers = list(answers), [], []  # type: ignore[var-annotated]

    async def take(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        self.bodies.append(await request.json())
        status, body = self.answers.pop(0) if self.answers else (200, {})
        return web.json_response(body, status=status)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        app = web.Application()
        app.router.add_post("/push", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


@pytest.mark.root
async def test_loki_is_asked_again_after_an_error_and_not_after_a_refusal(core: Any, sh: Any) -> None:
    receiver = Receiver((503, {"later": 1}), (429, {}), (204, None), (400, {"error": "too old"}))
    async with receiver.serve() as port:
        layer = TargetLayer(
            type="loki", location=f"http://127.0.0.1:{port}/push", headers={"X-Scope-OrgID": "tenant"}
        )
        await send_to(core, out=layer)
        await write(core, sh, "a", "echo one")
        done = await until_target(core, lambda target: target.sent == 1)
        assert (done.refused, done.state) == (0, "sending")
        await write(core, sh, "b", "echo two")
        done = await until_target(core, lambda target: target.refused == 1)
        assert "it refused lines with 400" in done.why
        await write(core, sh, "c", "echo three")
        await until_target(core, lambda target: target.sent == 2)
    values = [body["streams"][0]["values"][0][1] for body in receiver.bodies]
    assert values == ["one", "one", "one", "two", "three"]
    assert {one["X-Scope-OrgID"] for one in receiver.headers} == {"tenant"}


@pytest.mark.root
async def test_otlp_says_how_many_it_did_not_want(core: Any, sh: Any) -> None:
    receiver = Receiver((200, {"partialSuccess": {"rejectedLogRecords": "2"}}))
    async with receiver.serve() as port:
        await send_to(core, out=TargetLayer(type="otlp", location=f"http://127.0.0.1:{port}/push"))
        await write(core, sh, "a", "printf '1\\n2\\n3\\n'")
        done = await until_target(core, lambda target: target.sent + target.refused == 3)
        assert (done.sent, done.refused) == (1, 2)


def authority() -> tuple[str, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that is its own authority, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "logs")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    from corex.http.tls import server_context

    certificate = made.public_bytes(pem).decode()
    secret = key.private_bytes(pem, private, serialization.NoEncryption()).decode()
    return certificate, server_context(certificate, secret)


@pytest.mark.root
async def test_only_a_certificate_that_is_trusted_gets_lines(core: Any, sh: Any) -> None:
    ca, tls = authority()
    other, _ = authority()
    collector = Collector()
    async with syslog(collector, tls=tls) as port:
        location = f"tls://127.0.0.1:{port}"
        await send_to(core, out=TargetLayer(type="syslog", location=location))
        await write(core, sh, "a", "echo secret")
        told = await until_target(core, lambda target: target.state == "retrying")
        assert "no certificates to trust" in told.why
        await send_to(core, out=TargetLayer(type="syslog", location=location, ca=other))
        told = await until_target(core, lambda target: target.state == "retrying" and target.spec.ca == other)
        assert "its certificate is not to be trusted: " in told.why
        assert collector.messages == []
        await send_to(core, out=TargetLayer(type="syslog", location=location, ca=ca))
        await until_target(core, lambda target: target.sent == 1)
        async with asyncio.timeout(10):
            while not collector.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert collector.texts() == ["stdout - secret"]
    assert core.imported_late() == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("target", "pointer"),
    [
        ({"type": "syslog"}, "/targets/out/location"),
        ({"type": "smoke", "location": "tcp://x"}, "/targets"),
        ({"type": "syslog", "location": "http://x"}, "/targets/out/location"),
        ({"type": "syslog", "location": "tcp://x", "processes": ["none"]}, "/targets/out/processes"),
        ({"type": "loki", "location": "http://x", "labels": {"a b": "c"}}, ""),
        ({"type": "loki", "location": "http://x", "headers": {"A": "b\r\nC: d"}}, "/targets"),
    ],
)
async def test_what_is_no_target_is_refused(
    core: Any, browser: Any, target: dict[str, Any], pointer: str
) -> None:
    async with browser.put("/v1/layers/l", json={"targets": {"out": target}}) as answer:
        found = await answer.json(content_type="application/problem+json")
        assert answer.status == 422
        assert found["pointer"].startswith(pointer)
    with pytest.raises(RefusedError, match="cannot find layer"):
        await core.client.layer("l")


def test_targets_merge_by_name() -> None:
    from corex.process import plan

    low = Layer("", targets={"out": TargetLayer(type="loki", location="http://a", labels={"a": "1"})})
    high = Layer("", targets={"out": TargetLayer(location="http://b", labels={"b": "2"})})
    merged = plan.merge({"low": low, "high": high})
    spec = TargetSpec("loki", "http://b", labels={"a": "1", "b": "2"})
    assert merged.targets == {"out": spec}
    changes = plan.difference({}, {}, merged, {"out": msgspec.structs.replace(spec, location="http://a")})
    assert [(one.verb, one.target, one.fields) for one in changes] == [("restart", "out", ("location",))]
    assert plan.difference({}, {}, merged, merged.targets) == []
