"""Faults from outside a booted node: cards and cables, image servers, memory, and nobody who may use it."""

import asyncio
import datetime
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace

from ci.pytest_machines import Machines
from ci.qemu import ports
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec, UserNic
from core0.client.client import NodeClient, NotAllowedError, RefusedError, UnreachableError
from core0.client.credentials import client_context, issue_certificate
from core0.wire.ports import API
from core0.wire.types import ContainerSpec
from tests.vm.layouts import BUSYBOX, layer_of_busybox, write_layout

Connect = Callable[[Machine], Awaitable[NodeClient]]
READY_SECONDS = 10.0
SHELL = ("/bin/sh", "-c", "while :; do sleep 1; done")

pytestmark = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs Debian's busybox-static")


@dataclass
class FragileServer:
    """Serves an image layout by HTTP with ranges, and breaks off layers on the way.

    Attributes:
        folder: the layout.
        layer: path of the layer's blob.
        allowed: bytes of the layer that are sent before each of the next breaks.
        asked: the first byte of each request for the layer.
        mortal: whether the last break is its own end, too.
    """

    folder: Path
    layer: Path
    allowed: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    mortal: bool = False
    server: asyncio.Server | None = None
    port: int = 0

    async def start(self) -> None:
        """Listen: at the first port again, if there was one."""
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def die(self) -> None:
        """Listen no more."""
        assert self.server
        self.server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = self.folder / head.split()[1].lstrip("/")
            first = next(
                (
                    int(line[13:].partition("-")[0])
                    for line in head.splitlines()
                    if line[:13] == "Range: bytes="
                ),
                0,
            )
            content = path.read_bytes()
            status = f"206 Partial Content\r\nContent-Range: bytes {first}-{len(content) - 1}/{len(content)}"
            start = f"HTTP/1.1 {status if first else '200 OK'}\r\nContent-Length: {len(content) - first}"
            writer.write(f"{start}\r\nConnection: close\r\n\r\n".encode())
            writer.write(content[first : self._end(path, first)])
            await writer.drain()
        finally:
            writer.close()

    def _end(self, path: Path, first: int) -> int | None:
        if path != self.layer:
            return None
        self.asked.append(first)
        if not self.allowed:
            return None
        end = first + self.allowed.pop(0)
        if self.mortal and not self.allowed:
            self.die()
        return end


@pytest.fixture
def layout(tmp_path: Path) -> tuple[Path, Path]:
    """An image layout and its layer."""
    folder = tmp_path / "layout"
    return folder, write_layout(folder, layer_of_busybox())


def spec_of(port: int, **wanted: Any) -> ContainerSpec:
    token = hashlib.sha256(b"token").hexdigest()
    return ContainerSpec(f"http://10.0.2.2:{port}/", token, argv=SHELL, **wanted)


async def settled(node: NodeClient, name: str, state: str) -> str:
    """Wait until a container is in a state, through failures and new tries; returns the why."""
    async with asyncio.timeout(180):
        while (found := await node.container(name, wait=20)).state != state:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return found.why


async def test_a_pull_goes_on_where_the_server_broke_off(node: NodeClient, layout: tuple[Path, Path]) -> None:
    size = layout[1].stat().st_size
    server = FragileServer(*layout, allowed=[size // 2, size // 4])
    await server.start()
    await node.put_container("resumed", spec_of(server.port))
    await settled(node, "resumed", "running")
    server.die()
    assert len(server.asked) == 3
    assert server.asked[0] == 0
    assert size // 4 < server.asked[1] < server.asked[2] < size


async def test_a_server_that_dies_is_named_and_when_it_is_back_the_container_runs(
    node: NodeClient, layout: tuple[Path, Path]
) -> None:
    server = FragileServer(*layout, allowed=[layout[1].stat().st_size // 2], mortal=True)
    await server.start()
    await node.put_container("waiting", spec_of(server.port))
    why = await settled(node, "waiting", "failed")
    assert f"cannot fetch http://10.0.2.2:{server.port}/" in why
    assert "trying again in" in why
    found = await node.container("waiting")
    assert (found.pid, found.address, found.image_digest) == (None, None, None)
    await server.start()
    await settled(node, "waiting", "running")
    server.die()


async def test_a_container_that_waits_for_a_dead_server_is_removed_at_once(
    node: NodeClient, layout: tuple[Path, Path]
) -> None:
    server = FragileServer(*layout, allowed=[1000], mortal=True)
    await server.start()
    await node.put_container("given-up", spec_of(server.port))
    await settled(node, "given-up", "failed")
    await node.delete_container("given-up")
    async with asyncio.timeout(30):
        while await node.containers():  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_container_outlives_a_pulled_cable_and_the_api_answers_again(
    machine: Machine, node: NodeClient, layout: tuple[Path, Path], connect: Connect
) -> None:
    server = FragileServer(*layout)
    await server.start()
    await node.put_container("steady", spec_of(server.port))
    await settled(node, "steady", "running")
    server.die()
    before = replace(await node.container("steady"), traffic=None)  # which grows

    start = len(machine.console.lines)
    await machine.monitor.execute("set_link", name="net0-card", up=False)
    await asyncio.sleep(1)
    await machine.monitor.execute("set_link", name="net0-card", up=True)
    async with await connect(machine) as again:
        assert replace(await again.container("steady"), traffic=None) == before
        assert (await again.health()).ok
    assert not [line for line in machine.console.lines[start:] if "container steady" in line]


@asynccontextmanager
async def client_by(machine: Machine, nic: str, key: Ed25519PrivateKey) -> AsyncIterator[NodeClient]:
    """A client of the node by a card that was plugged."""
    identity = await machine.wait_for_phase("identity", READY_SECONDS)
    tls = client_context(issue_certificate(key, "tests", now=datetime.datetime.now(datetime.UTC)))
    port = await ports.add_forward(machine.monitor, nic, API)
    async with NodeClient(f"127.0.0.1:{port}", identity.detail.removeprefix("sha256:"), tls) as client:
        yield client


async def test_a_node_without_a_card_is_ready_and_serves_each_card_that_is_plugged(
    machines: Machines,
    direct_boot: DirectBoot,
    operator_key: Ed25519PrivateKey,
    layout: tuple[Path, Path],
) -> None:
    machine = await machines.start(MachineSpec("cardless", direct_boot, nics=()))
    await machine.wait_for_phase("ready", READY_SECONDS)
    assert "network" not in {phase.name for phase in machine.console.phases}
    await machine.wait_for_line("zn: network links: None is there; plug a network card", READY_SECONDS)

    server = FragileServer(*layout)
    await server.start()
    pid = None
    for nic in ("first", "second"):
        start = len(machine.console.lines)
        await machine.plug_nic(UserNic(nic))
        await machine.wait_for_line(r"zn: network .*: Add", 3 * READY_SECONDS, start)
        async with client_by(machine, nic, operator_key) as client:
            if pid is None:
                await client.put_container("steady", spec_of(server.port))
            await settled(client, "steady", "running")
            found = await client.container("steady")
            assert pid in (None, found.pid)
            pid = found.pid
            assert (await client.health()).ok
        await machine.pull(nic, 3 * READY_SECONDS)
    server.die()


async def test_256_mib_of_memory_are_enough_for_a_container(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, layout: tuple[Path, Path]
) -> None:
    machine = await machines.start(MachineSpec("frugal", direct_boot, memory=256))
    await machine.wait_for_phase("ready", READY_SECONDS)
    server = FragileServer(*layout)
    await server.start()
    async with await connect(machine) as client:
        await client.put_container("small", spec_of(server.port))
        await settled(client, "small", "running")
        health = await client.health()
        assert health.ok, health
    server.die()


async def test_a_node_without_an_operator_answers_nobody(
    machines: Machines, direct_boot: DirectBoot, connect: Connect
) -> None:
    words = [word for word in direct_boot.arguments.split() if not word.startswith("zn.operator=")]
    boot = DirectBoot(direct_boot.kernel, direct_boot.initramfs, " ".join(words))
    machine = await machines.start(MachineSpec("ownerless", boot))
    await machine.wait_for_phase("ready", READY_SECONDS)
    await machine.wait_for_port(API, READY_SECONDS)
    async with await connect(machine) as operator:
        with pytest.raises(NotAllowedError, match="does not know the operator's key"):
            await operator.node()
    identity = await machine.wait_for_phase("identity", READY_SECONDS)
    address = f"127.0.0.1:{await machine.forward(API)}"
    async with NodeClient(address, identity.detail.removeprefix("sha256:"), client_context(None)) as nobody:
        with pytest.raises(RefusedError, match="no client certificate") as refused:
            await nobody.node()
        assert refused.value.problem.status == 401
        with pytest.raises((RefusedError, UnreachableError)):
            await nobody.containers()
