"""The server on loopback addresses, which are its containers', with real name servers of the outside beside it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from core0.names import server as under_test
from core0.names import upstream as outside
from core0.names.server import Server
from core0.names.upstream import Upstream
from core0.names.zones import Zones
from core0.wire.names import Host, Told, Zone
from tests.core0.names.messages import ask, read, reply_to

A, DB, WALLED, STRANGER, OTHER = "127.1.0.2", "127.1.0.3", "127.2.0.2", "127.9.0.1", "127.3.0.1"
SERVER, FIRST, SECOND = "127.0.0.53", "127.0.0.61", "127.0.0.62"
ZONES = (
    Zone("web", "127.1.0.0/16", "fd20::/64", outside=True, others=(OTHER,)),
    Zone("walled", "127.2.0.0/16", "fd30::/64", outside=False),
)
HOSTS = (
    Host("web", "a", A, "fd20::2"),
    Host("web", "db", DB, "fd20::3"),
    Host("walled", "w", WALLED, "fd30::2"),
)
Answer = Callable[[bytes], bytes | None]


class Outside(asyncio.DatagramProtocol):
    """A name server by UDP that answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # asyncio's own is no DatagramTransport by type

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked.append(data)
        reply = self.answer(data)
        if reply is not None and self.transport:
            self.transport.sendto(reply, addr)


class World:
    """The server, and who is around it."""

    def __init__(self, at: tuple[str, int], upstream: Upstream, stack: contextlib.AsyncExitStack) -> None:
        self.at = at
        self.upstream = upstream
        self._stack = stack

    async def serve(self, address: str, answer: Answer) -> Outside:
        """A name server of the outside, by UDP."""
        loop = asyncio.get_running_loop()
        port = self.upstream._port
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Outside(answer), local_addr=(address, port)
        )
        self._stack.callback(transport.close)
        return protocol

    def socket(self, source: str) -> socket.socket:
        """A container's socket."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._stack.callback(made.close)
        made.bind((source, 0))
        made.connect(self.at)
        return made

    async def ask(self, source: str, message: bytes) -> bytes:
        """What a container is answered by UDP."""
        client, loop = self.socket(source), asyncio.get_running_loop()
        await loop.sock_sendall(client, message)
        return await loop.sock_recv(client, 65535)

    async def talk(self, source: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A container's connection."""
        reader, writer = await asyncio.open_connection(*self.at, local_addr=(source, 0))
        self._stack.callback(writer.close)
        return reader, writer


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        udp, tcp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        tcp.bind((SERVER, 0))
        udp.bind(tcp.getsockname())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as chosen:
            chosen.bind((FIRST, 0))
            upstream = Upstream(chosen.getsockname()[1])
        upstream.use((FIRST, SECOND))
        zones = Zones()
        zones.hear(Told(ZONES, None, HOSTS))
        server = Server(zones, upstream, udp, tcp)
        await server.begin()
        yield World(tcp.getsockname(), upstream, stack)
        await server.end()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_PATIENCE", 0.05)
    monkeypatch.setattr(outside, "_DEADLINE", 0.3)


async def silent(world: World, source: str, message: bytes) -> bool:
    """Whether a message gets no answer: one that is asked behind it on the same socket comes first."""
    client, loop = world.socket(source), asyncio.get_running_loop()
    await loop.sock_sendall(client, message)
    await loop.sock_sendall(client, ask("db.web.internal", number=4242))
    return (await loop.sock_recv(client, 65535))[:2] == (4242).to_bytes(2)


async def test_names_of_the_own_network_are_answered_without_asking_anybody(world: World) -> None:
    there = await world.serve(FIRST, lambda _: None)
    assert read(await world.ask(A, ask("db.web.internal"))) == (0, [socket.inet_aton(DB)])
    assert read(await world.ask(A, ask("w.walled.internal")))[0] == 3
    assert read(await world.ask(WALLED, ask("db.web.internal")))[0] == 3
    assert not there.asked


async def test_another_name_is_asked_for_and_its_answer_goes_back_as_it_came(world: World) -> None:
    there = await world.serve(FIRST, lambda question: reply_to(question, b"\1\2\3\4"))
    message = ask("www.example.org", number=7, edns=True)
    reply = await world.ask(A, message)
    assert reply == reply_to(message, b"\1\2\3\4")
    (asked,) = there.asked
    assert asked[2:] == message[2:]


async def test_who_may_reach_nothing_outside_asks_for_nothing_there(world: World) -> None:
    there = await world.serve(FIRST, lambda question: reply_to(question, b"\1\2\3\4"))
    assert read(await world.ask(WALLED, ask("www.example.org"))) == (5, [])
    assert not there.asked


async def test_a_stranger_gets_no_answer(world: World) -> None:
    client = world.socket(STRANGER)
    client.send(ask("db.web.internal"))
    assert read(await world.ask(A, ask("db.web.internal")))[0] == 0  # the stranger's came before
    with pytest.raises(BlockingIOError):
        client.recv(100)


async def test_what_is_no_question_gets_no_answer_and_the_next_one_does(world: World) -> None:
    assert await silent(world, A, b"\0" * 5)
    assert await silent(world, A, reply_to(ask("db.web.internal"), b"\1\2\3\4"))


async def test_the_second_server_is_asked_where_the_first_is_silent(world: World, impatient: None) -> None:
    first = await world.serve(FIRST, lambda _: None)
    await world.serve(SECOND, lambda question: reply_to(question, b"\4\3\2\1"))
    assert read(await world.ask(A, ask("www.example.org"))) == (0, [b"\4\3\2\1"])
    assert read(await world.ask(A, ask("www.example.org"))) == (0, [b"\4\3\2\1"])
    assert len(first.asked) == 1, "the one that answered is asked first from then on"


async def test_the_second_server_is_asked_where_the_first_cannot_answer(world: World) -> None:
    await world.serve(FIRST, lambda question: reply_to(question, code=2))
    await world.serve(SECOND, lambda question: reply_to(question, b"\4\3\2\1"))
    assert read(await world.ask(A, ask("www.example.org"))) == (0, [b"\4\3\2\1"])


@pytest.mark.parametrize("running", [True, False], ids=["silent", "not there"])
async def test_without_an_answer_own_names_are_answered_and_others_fail(
    world: World, impatient: None, running: bool
) -> None:
    if running:
        await world.serve(FIRST, lambda _: None)
    assert read(await world.ask(A, ask("www.example.org"))) == (2, [])
    assert read(await world.ask(A, ask("db.web.internal")))[0] == 0


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda question: b"\0\0" + reply_to(question, b"\6\6\6\6")[2:], id="another number"),
        pytest.param(lambda question: reply_to(ask("bad.example.org"), b"\6\6\6\6"), id="another question"),
        pytest.param(lambda question: question, id="the question itself"),
        pytest.param(lambda question: b"\0", id="no message"),
    ],
)
async def test_an_answer_that_does_not_fit_is_passed_over(
    world: World, impatient: None, forge: Answer
) -> None:
    there = await world.serve(FIRST, lambda _: None)

    def answer(question: bytes) -> bytes | None:
        if question[:2] == b"\0\0":
            return None  # the forged number is the right one, once in 65,536
        forged = forge(question)
        assert there.transport
        return forged

    there.answer = answer
    await world.serve(SECOND, lambda question: reply_to(question, b"\1\2\3\4"))
    assert read(await world.ask(A, ask("www.example.org"))) == (0, [b"\1\2\3\4"])


async def test_an_answer_from_elsewhere_is_not_taken(world: World, impatient: None) -> None:
    forger = await world.serve("127.0.0.66", lambda _: None)
    there = await world.serve(FIRST, lambda _: None)
    received = there.datagram_received

    def forged(data: bytes, addr: tuple[str, int]) -> None:
        received(data, addr)
        assert forger.transport
        forger.transport.sendto(reply_to(data, b"\6\6\6\6"), addr)

    there.datagram_received = forged  # type: ignore[method-assign]
    await world.serve(SECOND, lambda question: reply_to(question, b"\1\2\3\4"))
    assert read(await world.ask(A, ask("www.example.org"))) == (0, [b"\1\2\3\4"])


async def test_an_answer_that_was_cut_is_asked_for_by_tcp(world: World) -> None:
    await world.serve(FIRST, lambda question: reply_to(question, more=0x0200))
    long = b"\xff" + b"x" * 255

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        reply = reply_to(question, *[long] * 20)
        writer.write(len(reply).to_bytes(2) + reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, FIRST, world.upstream._port)
    message = ask("big.example.org", "TXT")
    cut = await world.ask(A, message)
    assert cut[2] & 2
    reader, writer = await world.talk(A)
    for _ in range(2):
        writer.write(len(message).to_bytes(2) + message)
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        assert read(reply) == (0, [long] * 20)
    server.close()


async def test_a_connection_that_is_silent_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_SILENCE", 0.05)
    reader, writer = await world.talk(A)
    writer.write(b"\0")
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


async def test_one_container_cannot_take_all_connections(world: World) -> None:
    held = [await world.talk(A) for _ in range(under_test._MOST_CONNECTIONS_EACH)]
    message = ask("db.web.internal")
    for reader, writer in held:
        writer.write(len(message).to_bytes(2) + message)
        await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    reader, _ = await world.talk(A)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    reader, writer = await world.talk(DB)
    writer.write(len(message).to_bytes(2) + message)
    assert await reader.readexactly(2)
    reader, _ = await world.talk(STRANGER)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


async def test_a_question_by_tcp_that_is_too_long_ends_the_connection(world: World) -> None:
    reader, writer = await world.talk(A)
    writer.write(b"\xff\xff" + b"x" * 100)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""


async def test_a_flood_of_one_container_leaves_others_their_place(world: World) -> None:
    held: list[bytes] = []
    there = await world.serve(FIRST, lambda _: None)
    flood = world.socket(A)
    for number in range(under_test._MOST_WAITING_EACH * 3):
        flood.send(ask(f"n{number}.example.org", number=number))
    assert read(await world.ask(A, ask("db.web.internal")))[0] == 0
    assert read(await world.ask(DB, ask("a.web.internal"))) == (0, [socket.inet_aton(A)])
    there.answer = lambda question: reply_to(question, b"\1\2\3\4")
    assert read(await world.ask(DB, ask("www.example.org"))) == (0, [b"\1\2\3\4"])
    assert len(there.asked) <= under_test._MOST_WAITING_EACH + 1
    assert not held


async def test_what_this_node_does_not_have_another_node_may_have(world: World) -> None:
    there = await world.serve(OTHER, lambda question: reply_to(question, b"\x0a\x1f\0\2"))
    assert read(await world.ask(A, ask("far.web.internal"))) == (0, [b"\x0a\x1f\0\2"])
    assert read(await world.ask(A, ask("db.web.internal"))) == (0, [socket.inet_aton(DB)])
    assert len(there.asked) == 1


async def test_no_node_passes_another_nodes_question_on(world: World) -> None:
    there = await world.serve(OTHER, lambda question: reply_to(question, b"\x0a\x1f\0\2"))
    assert read(await world.ask(OTHER, ask("far.web.internal"))) == (3, [])
    assert read(await world.ask(OTHER, ask("www.example.org"))) == (5, [])
    assert read(await world.ask(OTHER, ask("db.web.internal"))) == (0, [socket.inet_aton(DB)])
    assert not there.asked


async def test_where_no_other_node_has_it_there_is_no_such_name(world: World, impatient: None) -> None:
    await world.serve(OTHER, lambda question: reply_to(question, code=3))
    assert read(await world.ask(A, ask("far.web.internal"))) == (3, [])
