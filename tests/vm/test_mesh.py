"""A network that spans three booted nodes, one of them hidden: real containers, a wire that everybody hears."""

import asyncio
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ci.pytest_machines import check_console, watch
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.segment import Segment
from ci.qemu.spec import DirectBoot, MachineSpec, SegmentNic, UserNic, mac_address
from cli import context
from core0.client.client import NodeClient
from core0.wire.config import parse
from core0.wire.mesh import MeshPeer, SeenPeer
from core0.wire.ports import API
from core0.wire.storage import Claim
from core0.wire.types import Container, ContainerSpec
from corex.wire.api import ExecRequest
from tests.disk_images import blank
from tests.vm import shelf
from tests.vm.inside import inside, running, settled
from tests.vm.sabotage import sabotage

Connect = Callable[[Machine], Awaitable[NodeClient]]
Spec = Callable[..., ContainerSpec]

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 10.0
# Seconds of this machine until nodes under way have come to what is waited for.
PATIENCE = 60.0
WIRE = {"hub": "203.0.113.1", "left": "203.0.113.2", "hidden": "203.0.113.3"}
# Only the hub has an endpoint: the two others meet there.
MESH = ("--nodes", "hub,left,hidden", "--ipv4", "10.60.0.0/16", "--ipv6", "fd60::/48")
MESH += ("--endpoint", f"hub={WIRE['hub']}:51820")
UUIDS = {name: f"{number}1111111-2222-4333-8444-555555555555" for number, name in enumerate(WIRE, 1)}
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
    contexts: Path
    connect: Connect
    machines: dict[str, Machine] = field(default_factory=dict)
    nodes: dict[str, NodeClient] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)

    async def zn(self, *words: str) -> str:
        """What the command line says, if it works."""
        command = (sys.executable, "-m", "cli", "--contexts", str(self.contexts), *words)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=-1, stderr=subprocess.STDOUT, cwd=ROOT
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return said.decode()

    async def enter(self, name: str) -> NodeClient:
        """Connect to a node that is ready, and let `zn` know it."""
        machine = self.machines[name]
        await machine.wait_for_phase("ready", READY_SECONDS)
        self.nodes[name] = await self.connect(machine)
        identity = await machine.wait_for_phase("identity", READY_SECONDS)
        address = f"127.0.0.1:{await machine.forward(API)}"
        fingerprint = identity.detail.removeprefix("sha256:")
        context.put(self.contexts, name, context.Context(address, fingerprint, "operator.pem"))
        return self.nodes[name]

    async def peer(self, name: str, other: str) -> SeenPeer:
        """How a node sees another."""
        mesh = (await self.nodes[name].network("span")).mesh
        assert mesh
        return next(peer for peer in mesh.peers if peer.name == other)

    async def run(self, name: str, script: str) -> str:
        """What a shell in the container of a node says."""
        async with inside(self.machines[name], self.containers[name]) as corex:
            done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
        return str(done.stdout.data)

    async def reaches(self, name: str, other: str, seconds: int = 8) -> list[bool]:
        """Whether a node's container gets the page of another's, by IPv4 and by IPv6 at the same time."""
        there = self.containers[other]
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w {seconds} $1 80 | busybox grep -c '^{PAGE}$'"
        return (
            await self.run(name, f"get() {{ {ask}; }}\nget {there.address} & get {there.address6}; wait")
        ).split() == ["1", "1"]

    async def until_reached(self, name: str, other: str) -> None:
        """Wait until a node's container reaches another's."""
        async with asyncio.timeout(PATIENCE):
            while not await self.reaches(name, other):
                pass


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    connect: Connect,
    spec: Spec,
    operator_key: Ed25519PrivateKey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("wire")
    pem = operator_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "operator.pem").touch(0o600)
    (folder / "operator.pem").write_bytes(pem)
    async with AsyncExitStack() as stack:
        segment = await stack.enter_async_context(Segment(folder))
        site = Site(segment, Tap(segment.nic("tap")), folder / "contexts.toml", connect)
        stack.callback(site.tap.close)
        for name in WIRE:
            disks = (blank(folder, name, 1 << 30),) if name == "left" else ()
            nics = (UserNic(), segment.nic(name))
            boot = sabotage(direct_boot, folder) if name == "hub" else direct_boot
            wanted = MachineSpec(name, boot, memory=384, nics=nics, disks=disks, uuid=UUIDS[name])
            site.machines[name] = Machine(wanted, acceleration, tmp_path_factory.mktemp(name))
        await asyncio.gather(*map(stack.enter_async_context, site.machines.values()))
        stack.push_async_callback(leave, site)
        for name in WIRE:
            await begin(site, name)
        await site.zn("network", "mesh", "span", *MESH)
        await asyncio.gather(*(start_container(site, name, spec) for name in WIRE))
        yield site
    for name, machine in site.machines.items():
        check_console(machine.console, name)


async def begin(site: Site, name: str) -> None:
    """Bring up a node on the wire; the one with a disk remembers what it is told."""
    node = await site.enter(name)
    if name == "left":
        await shelf.settled(node, 1)
        await node.claim_disk(name, Claim())
    card = f'[network.links.wire]\nselect = {{ mac = "{mac_address(name, name)}" }}\n'
    await node.put_config(parse(f'{card}addresses = ["{WIRE[name]}/24"]\n'))


async def leave(site: Site) -> None:
    for node in site.nodes.values():
        await node.__aexit__(None, None, None)


async def start_container(site: Site, name: str, spec: Spec) -> None:
    site.containers[name] = await running(site.nodes[name], f"web-{name}", spec(network="span"))


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
                assert await site.reaches(name, other), (name, other)
    assert site.tap.heard["wireguard"] > 20
    assert set(site.tap.heard) <= {"wireguard", "arp", "ipv6 58"}, site.tap.heard
    seen = await site.peer("hidden", "hub")
    assert (seen.state, seen.endpoint) == ("up", f"{WIRE['hub']}:{PORT}")
    assert min(seen.received_bytes, seen.sent_bytes) > 1000
    assert (await site.peer("hidden", "left")).why.startswith("reached via hub: its last handshake was")
    assert (await site.peer("hub", "hidden")).endpoint == f"{WIRE['hidden']}:{PORT}"


async def test_containers_find_each_other_by_name(site: Site) -> None:
    for name, other in (("left", "hub"), ("left", "hidden"), ("hidden", "left")):
        said = await site.run(name, f"busybox nslookup -type=a web-{other}.span.internal")
        assert site.containers[other].address in said, (name, other, said)
    nobody = await site.run("left", "busybox nslookup -type=a nobody.span.internal 2>&1")
    assert "NXDOMAIN" in nobody


async def test_no_node_is_reached_by_the_mesh(site: Site) -> None:
    ends = ("10.60.1.1", "fd60:0:0:1::1", WIRE["hub"], "10.60.2.1")
    probes = "".join(
        f"nc -w 4 {end} {API} -e /bin/busybox true 2>/dev/null && echo {end} &\n" for end in ends
    )
    assert await site.run("left", f"{probes}wait") == ""


async def test_a_peer_with_another_key_than_is_declared_gets_nothing(site: Site) -> None:
    hub = site.nodes["hub"]
    right = (await hub.network("span")).spec
    assert right.mesh
    wrong = msgspec.structs.replace(right.mesh.peers["left"], public_keys=("A" * 42 + "E=",))
    peers = {**right.mesh.peers, "left": wrong}
    await hub.put_network(
        "span", msgspec.structs.replace(right, mesh=msgspec.structs.replace(right.mesh, peers=peers))
    )
    assert not await site.reaches("left", "hub", seconds=3)
    seen = await site.peer("hub", "left")
    assert (seen.state, seen.handshake_seconds, seen.received_bytes) == ("waiting", None, 0)
    await hub.put_network("span", right)
    await site.until_reached("left", "hub")


async def test_a_peer_whose_host_nobody_knows_says_so_and_the_others_go_on(site: Site) -> None:
    """The resolver is a process without privilege, which asks the name server of QEMU's own network."""
    ghost = MeshPeer(("A" * 42 + "I=",), "10.60.9.0/24", endpoint="ghost.invalid:51820")
    before = (await site.nodes["hidden"].network("span")).spec
    assert before.mesh
    mesh = msgspec.structs.replace(before.mesh, peers={**before.mesh.peers, "ghost": ghost})
    await site.nodes["hidden"].put_network("span", msgspec.structs.replace(before, mesh=mesh))
    async with asyncio.timeout(PATIENCE):
        while (seen := await site.peer("hidden", "ghost")).state != "unresolved":
            pass
    assert seen.why.startswith("cannot find its host ghost.invalid: ")
    assert await site.reaches("hidden", "hub")
    await site.nodes["hidden"].put_network("span", before)


async def test_a_flow_goes_on_while_a_node_gets_another_key(site: Site) -> None:
    before = (await site.peer("hub", "left")).public_key
    # with an input that does not end, because nc hangs up when that does
    listen = "busybox mkfifo /tmp/open; nc -l -p 5000 <> /tmp/open > /tmp/got"
    receiving = asyncio.create_task(site.run("left", listen))
    there = site.containers["left"].address
    count = "i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i + 1)); busybox sleep 0.1; done"
    await site.run("left", "until busybox netstat -ltn | busybox grep -q :5000; do busybox sleep 0.1; done")
    sending = asyncio.create_task(site.run("hub", f"({count}) | nc {there} 5000"))
    await grown(site, 5)
    said = await site.zn("--context", "left", "network", "rotate", "span", "--nodes", "hub,left,hidden")
    assert "left has another key" in said
    reached = len((await site.run("left", "cat /tmp/got")).split())
    await grown(site, reached + 5)
    await site.run("hub", "echo > /tmp/stop")
    await asyncio.gather(sending, receiving)
    lines = (await site.run("left", "cat /tmp/got")).split()
    assert len(lines) >= reached + 5
    assert lines == [str(number) for number in range(len(lines))], "nothing is lost, and nothing comes twice"
    seen = await site.peer("hub", "left")
    assert (seen.state, seen.public_key != before) == ("up", True)
    assert await site.reaches("hidden", "left")


async def grown(site: Site, count: int) -> None:
    """Wait until the flow has brought so many lines."""
    async with asyncio.timeout(PATIENCE):
        while len((await site.run("left", "cat /tmp/got")).split()) < count:
            pass


async def test_a_node_daemon_that_starts_again_leaves_the_mesh_as_it_is(site: Site) -> None:
    machine, before = site.machines["hub"], await site.peer("hub", "left")
    start = len(machine.console.lines)
    await machine.type("kill node\n")
    await machine.wait_for_line("zn: node api: Answers authenticated requests", READY_SECONDS, start)
    assert await site.reaches("left", "hidden"), "through a hub that is just starting"
    async with asyncio.timeout(PATIENCE):
        while (after := await site.peer("hub", "left")).state != "up":
            pass
    assert after.public_key == before.public_key
    assert after.received_bytes >= before.received_bytes
    assert not [line for line in machine.console.lines[start:] if "zn: mesh" in line]
    assert await site.reaches("hub", "left")


async def test_a_node_that_is_killed_and_comes_back_is_in_the_mesh_again_by_itself(site: Site) -> None:
    key = (await site.peer("hub", "left")).public_key
    machine = site.machines["left"]
    await machine.cut_power()
    assert not await site.reaches("hidden", "left", seconds=2)
    assert await site.reaches("hidden", "hub"), "the others go on"
    await site.nodes["left"].__aexit__(None, None, None)
    await machine.power_on()
    node = await site.enter("left")
    site.containers["left"] = await settled(node, "web-left")
    await site.until_reached("left", "hidden")
    assert await site.reaches("hub", "left")
    assert (await site.peer("hub", "left")).public_key == key, "it remembers who it is"
