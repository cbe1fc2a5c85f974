"""The node daemon against a hostile API process: whatever comes over the socket, it goes on answering others."""

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core0.wire.control import LARGEST, receive
from tests.host_node import HostNode


@pytest.fixture
async def daemon(host_node: HostNode) -> AsyncIterator[HostNode]:
    async with host_node.daemon():
        yield host_node


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


async def say(node: HostNode, data: bytes, *, then_close: bool = False) -> bytes:
    """Send bytes and return all that comes until the daemon ends the connection."""
    reader, writer = await asyncio.open_unix_connection(str(node.socket))
    try:
        writer.write(data)
        if then_close:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def ask(node: HostNode, data: bytes) -> bytes:
    """Send one call and return its reply."""
    reader, writer = await asyncio.open_unix_connection(str(node.socket))
    try:
        writer.write(frame(data))
        async with asyncio.timeout(10):
            return await receive(reader)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack(">I", LARGEST + 1), id="over the limit"),
        pytest.param(b"\xff" * 64, id="no length"),
        pytest.param(frame(b""), id="empty"),
        pytest.param(frame(b"null"), id="no call"),
        pytest.param(frame(b"\xff\xfe"), id="no UTF-8"),
        pytest.param(frame(b'{"verb":"format_disks"}'), id="unknown verb"),
        pytest.param(frame(b'{"verb":"node","as":"root"}'), id="unknown field"),
        pytest.param(frame(b'{"verb":"container","name":"../../etc"}'), id="a name that climbs"),
        pytest.param(frame(b'{"verb":"container","name":"demo\\n"}'), id="a name with a line end"),
        pytest.param(frame(b'{"body":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), id="nested deeply"),
    ],
)
async def test_what_is_no_call_ends_its_connection_only(daemon: HostNode, data: bytes) -> None:
    assert await say(daemon, data) == b""
    assert b'"version":"1.2.3"' in await ask(daemon, b'{"verb":"node"}')


@pytest.mark.parametrize("data", [b"", b"\0\0", frame(b'{"verb":"node"}')[:-3]])
async def test_a_call_that_is_cut_ends_its_connection_only(daemon: HostNode, data: bytes) -> None:
    assert await say(daemon, data, then_close=True) == b""
    assert b'"version":"1.2.3"' in await ask(daemon, b'{"verb":"node"}')


async def test_a_call_may_come_in_pieces(daemon: HostNode) -> None:
    reader, writer = await asyncio.open_unix_connection(str(daemon.socket))
    for byte in frame(b'{"verb":"node"}'):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert b'"version":"1.2.3"' in await receive(reader)
    writer.close()


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        (b'{"verb":"put_container","name":"a","body":{}}', b'"status":422'),
        (b'{"verb":"put_container","name":"a"}', b'"status":422'),
        (b'{"verb":"events","body":{"after":"x","wait":0}}', b'"status":422'),
        (b'{"verb":"power","body":{"action":"explode"}}', b'"status":422'),
        (b'{"verb":"stop_container","name":"gone"}', b'"status":404'),
    ],
)
async def test_a_call_with_a_wrong_body_is_refused(daemon: HostNode, call: bytes, refusal: bytes) -> None:
    assert refusal in await ask(daemon, call)


# the fixture only names folders; each example runs a daemon of its own in them
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_end_the_daemon(host_node: HostNode, data: bytes) -> None:
    async def run() -> None:
        async with host_node.daemon():
            await say(host_node, frame(data), then_close=True)
            await say(host_node, data, then_close=True)
            assert b'"version":"1.2.3"' in await ask(host_node, b'{"verb":"node"}')

    asyncio.run(run())
