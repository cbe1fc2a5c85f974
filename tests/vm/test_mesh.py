"""A network that spans three booted nodes, one of them hidden: real containers, a wire that everybody hears."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from ci.pytest_machines import check_console, watch
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.segment import Segment
from ci.qemu.spec import DirectBoot, MachineSpec, SegmentNic, UserNic, mac_address
from core0.client.client import NodeClient
from core0.wire.config import parse
from core0.wire.mesh import MeshPeer, MeshSpec, SeenPeer
from core0.wire.networks import Network, NetworkSpec
from core0.wire.types import Container, ContainerSpec
from corex.wire.api import ExecRequest
from tests.vm.inside import inside, running

Connect = Callable[[Machine], Awaitable[NodeClient]]
Spec = Callable[..., ContainerSpec]

READY_SECONDS = 10.0
ANSWER_SECONDS = 10.0
WIRE = {"hub": "203.0.113.1", "left": "203.0.113.2", "hidden": "203.0.113.3"}
PORT = 51820
PAGE = "served from a container"


class Tap:
    """A card on the segment that hears every frame of the others."""

    def __init__(self, nic: SegmentNic) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(nic.local))
        self.heard: Counter[str] = Counter()
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _hear(self) -> None:
        self.heard[what(self._socket.recv(65550))] += 1


def what(frame: bytes) -> str:
    """What a frame is, as far as one sees without a key."""
    kind, packet = int.from_bytes(frame[12:14]), frame[14:]
    if kind == 0x0806:
        return "arp"
    if kind == 0x86DD:
        return f"ipv6 {packet[6]}"
    ports = {int.from_bytes(packet[at : at + 2]) for at in (20, 22)}
    if packet[9] == 17:
        return "wireguard" if ports == {PORT} else f"udp {sorted(ports)}"
    return f"ipv4 {packet[9]}"


@dataclass
class Site:
    """Three nodes, a container on each, and what the segment between them hears."""

    segment: Segment
    tap: Tap
    machines: dict[str, Machine] = field(default_factory=dict)
    nodes: dict[str, NodeClient] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)

    def spec_of(self, name: str) -> NetworkSpec:
        """The network on one node: two of them are reached, the hidden one comes to the hub."""
        peers = {other: self._peer(name, other) for other in WIRE if other != name and self.keys.get(other)}
        number = list(WIRE).index(name) + 1
        mesh = MeshSpec("10.60.0.0/16", "fd60::/48", peers=peers)
        return NetworkSpec(f"10.60.{number}.0/24", f"fd60:0:0:{number}::/64", mesh=mesh)

    def _peer(self, name: str, other: str) -> MeshPeer:
        number = list(WIRE).index(other) + 1
        parts = (f"10.60.{number}.0/24", f"fd60:0:0:{number}::/64")
        if {name, other} == {"left", "hidden"}:
            return MeshPeer(self.keys[other], *parts, via="hub")
        if other == "hidden":
            return MeshPeer(self.keys[other], *parts)
        keepalive = 10 if name == "hidden" else None
        return MeshPeer(self.keys[other], *parts, endpoint=f"{WIRE[other]}:{PORT}", keepalive=keepalive)

    async def declare(self, name: str) -> Network:
        """Have the network on a node."""
        return await self.nodes[name].put_network("span", self.spec_of(name))

    async def peer(self, name: str, other: str) -> SeenPeer:
        """How a node sees another."""
        mesh = (await self.nodes[name].network("span")).mesh
        assert mesh
        return next(peer for peer in mesh.peers if peer.name == other)

    async def run(self, name: str, *argv: str) -> str:
        """What a program in the container of a node says."""
        async with inside(self.machines[name], self.containers[name]) as corex:
            done = await corex.execute(ExecRequest(argv, env={"PATH": "/bin"}))
        return str(done.stdout.data)

    async def reaches(self, name: str, other: str) -> list[bool]:
        """Whether a node's container gets the page of another's, by IPv4 and by IPv6."""
        there = self.containers[other]
        script = "get() { printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 8 $1 80 | busybox tail -n 1; echo; }\n"
        said = await self.run(name, "/bin/sh", "-c", f"{script}get {there.address}\nget {there.address6}")
        return [line == PAGE for line in said.splitlines() if line]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    connect: Connect,
    spec: Spec,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        folder = tmp_path_factory.mktemp("wire")
        segment = await stack.enter_async_context(Segment(folder))
        site = Site(segment, Tap(segment.nic("tap")))
        stack.callback(site.tap.close)
        for name in WIRE:
            wanted = MachineSpec(name, direct_boot, memory=384, nics=(UserNic(), segment.nic(name)))
            site.machines[name] = Machine(wanted, acceleration, tmp_path_factory.mktemp(name))
        await asyncio.gather(*map(stack.enter_async_context, site.machines.values()))
        await asyncio.gather(*(begin(site, name, connect, stack) for name in WIRE))
        await asyncio.gather(*map(site.declare, WIRE))
        await asyncio.gather(*(start_container(site, name, spec) for name in WIRE))
        yield site
    for name, machine in site.machines.items():
        check_console(machine.console, name)


async def begin(site: Site, name: str, connect: Connect, stack: AsyncExitStack) -> None:
    """Bring up a node on the wire, and have its key."""
    machine = site.machines[name]
    await machine.wait_for_phase("ready", READY_SECONDS)
    node = site.nodes[name] = await stack.enter_async_context(await connect(machine))
    card = f'[network.links.wire]\nselect = {{ mac = "{mac_address(name, name)}" }}\n'
    await node.put_config(parse(f'{card}addresses = ["{WIRE[name]}/24"]\n'))
    mesh = (await site.declare(name)).mesh
    assert mesh
    site.keys[name] = (mesh.public_key,)


async def start_container(site: Site, name: str, spec: Spec) -> None:
    site.containers[name] = await running(site.nodes[name], "web", spec(network="span"))


@pytest.fixture(autouse=True)
def watched(site: Site, request: pytest.FixtureRequest) -> None:
    for machine in site.machines.values():
        watch(request.node, machine)


async def test_containers_of_three_nodes_reach_each_other_and_the_wire_sees_wireguard_only(
    site: Site,
) -> None:
    site.tap.heard.clear()
    for name in WIRE:
        for other in WIRE:
            if other != name:
                assert await site.reaches(name, other) == [True, True], (name, other)
    assert site.tap.heard["wireguard"] > 20
    assert set(site.tap.heard) <= {"wireguard", "arp", "ipv6 58"}, site.tap.heard
    seen = await site.peer("hidden", "hub")
    assert (seen.state, seen.endpoint) == ("up", f"{WIRE['hub']}:{PORT}")
    assert min(seen.received_bytes, seen.sent_bytes) > 1000
    assert (await site.peer("hidden", "left")).why.startswith("reached via hub: its last handshake was")
    assert (await site.peer("hub", "hidden")).endpoint == f"{WIRE['hidden']}:{PORT}"
