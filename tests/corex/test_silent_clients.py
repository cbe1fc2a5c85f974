"""Clients that ask, then neither read nor say goodbye: nobody else waits for them, nor does the container's end."""

import asyncio
import contextlib
import functools
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any

import pytest

from corex.client.client import Client
from corex.http.connection import MOST_STRANGERS
from corex.http.server import MAX_CONNECTIONS
from corex.wire.api import LogGap, LogLine
from corex.wire.process import ProcessSpec
from corex.wire.sessions import SESSION_PROTOCOL, SessionSpec, Window
from tests.corex.conftest import eventually

pytestmark = pytest.mark.root
Script = Callable[..., ProcessSpec]
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Protocol: {SESSION_PROTOCOL}\r\n"
)


@contextlib.contextmanager
def silence(container: Any, path: str, headers: str = "") -> Iterator[ssl.SSLSocket]:
    """A connection whose request was answered, and that nobody reads from."""
    endpoint = container.endpoint
    host, _, port = endpoint.address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with context.wrap_socket(plain) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: {endpoint.address}\r\nAuthorization: Bearer {endpoint.token}\r\n"
                f"{headers}\r\n".encode()
            )
            assert connection.recv(12).startswith(b"HTTP/1.1 ")
            yield connection


async def test_the_end_of_a_container_waits_for_none_of_them(
    start: Any, sh: Script, busybox_root: Path
) -> None:
    container = await start(busybox_root, main=sh("echo up; exec sleep 1000"))
    await container.output("main", 1)
    spec = SessionSpec(("/bin/cat",), window=Window())
    session = (await container.client.create_session(spec)).id
    with contextlib.ExitStack() as stack:
        for path, headers in (
            (f"/v1/sessions/{session}/attach", UPGRADE),
            ("/v1/logs?follow=true", ""),
            ("/v1/health", ""),
        ):
            await asyncio.to_thread(stack.enter_context, silence(container, path, headers))
        host, _, port = container.endpoint.address.rpartition(":")
        stack.enter_context(socket.create_connection((host, int(port))))
        container.process.send_signal(signal.SIGTERM)
        # less than asyncio waits for a goodbye by TLS
        assert await container.exit_code(15) == 128 + signal.SIGTERM


async def test_a_follower_that_does_not_read_keeps_neither_writers_nor_others_waiting(
    core: Any, sh: Script
) -> None:
    lines = 100_000
    script = f"i=0; while [ $i -lt {lines} ]; do echo line $i of what nobody reads; i=$((i+1)); done"
    await core.client.put("flood", sh(script))
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, silence(core, "/v1/logs?follow=true"))
        await core.client.start("flood")
        counted = 0
        async with asyncio.timeout(60), contextlib.aclosing(core.client.follow("flood")) as records:
            async for record in records:
                counted += record.lost if isinstance(record, LogGap) else isinstance(record, LogLine)
                if counted >= lines:
                    break
        assert counted == lines
        assert (await core.until("flood", "exited")).exit.code == 0


async def test_strangers_are_few_and_keep_nobody_out_who_shows_a_token(core: Any) -> None:
    """Whether they say nothing at all, or begin TLS and say nothing then."""
    host, _, port = core.endpoint.address.rpartition(":")
    believing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    believing.check_hostname, believing.verify_mode = False, ssl.CERT_NONE
    head = f"GET /v1/processes HTTP/1.1\r\nHost: {core.endpoint.address}\r\n"
    request = f"{head}Authorization: Bearer {core.endpoint.token}\r\n\r\n".encode()
    known, asking = await asyncio.open_connection(host, int(port), ssl=believing)
    asking.write(request)
    assert (await known.readline()).startswith(b"HTTP/1.1 200")
    writers, ends = [asking], []

    async def come(tls: ssl.SSLContext | None) -> None:
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
            writers.append(writer)
            await reader.read()

    try:
        for tls, many in ((believing, MOST_STRANGERS // 2), (None, MAX_CONNECTIONS)):
            ends += [asyncio.create_task(come(tls)) for _ in range(many)]
            await eventually(functools.partial(_has_many, writers, 1 + len(ends)))
        async with Client(core.endpoint) as owner:
            assert await owner.processes() == []
        await eventually(lambda: sum(one.done() for one in ends) > MOST_STRANGERS)
        assert not all(one.done() for one in ends), "those whose place nobody waits for may stay"
        asking.write(request)
        await known.readuntil(b"HTTP/1.1 200")
    finally:
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*ends)


def _has_many(found: Sized, count: int) -> bool:
    return len(found) >= count
