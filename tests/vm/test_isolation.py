"""The isolation matrix on a booted node: containers, node, LAN and Internet; TCP, UDP, ICMP; IPv4 and IPv6."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from ci.pytest_machines import watched_during
from ci.qemu.machine import Machine
from ci.qemu.segment import Segment
from ci.qemu.spec import mac_address
from core0.client.client import NodeClient
from core0.wire.config import parse
from core0.wire.networks import EgressRule, NetworkSpec
from core0.wire.types import Container, ContainerSpec, PublishedPort
from corex.wire.api import ExecRequest
from tests.vm.inside import inside, running
from tests.vm.layouts import PERL, layer_of_busybox, write_layout
from tests.vm.outside import Outside

Spec = Callable[..., ContainerSpec]
Connect = Callable[[Machine], Awaitable[NodeClient]]
HERE = Path(__file__).parent
SECONDS, SCAN_SECONDS = 20.0, 90.0
NODE, LAN, INTERNET = (
    ("192.0.2.1", "2001:db8:2::1"),
    ("192.0.2.2", "2001:db8:2::2"),
    ("203.0.113.9", "2001:db8:99::9"),
)
GATEWAY = ("169.254.1.1", "fe80::1")
HOSTS = {"gateway": GATEWAY, "node": NODE, "lan": LAN, "internet": INTERNET}
CONTAINERS = {"a": "default", "b": "default", "c": "blue", "w": "walled"}
WEB, PUBLISHED, CLOSED = 80, 8085, 4444
PORTS = {"node": (8443, 9001, PUBLISHED), "gateway": (8443, 9001)}
# How often each packet with another's address is sent: more than anything else that a container may get meanwhile.
TIMES = 20
CONFIG = f"""
[network.links.lan]
select = {{ mac = "%s" }}
addresses = ["{NODE[0]}/24", "{NODE[1]}/64"]
[[network.links.lan.routes]]
to = "203.0.113.0/24"
via = "{LAN[0]}"
[[network.links.lan.routes]]
to = "2001:db8:99::/64"
via = "{LAN[1]}"
"""


@pytest.fixture(scope="module")
def perl(oci: Path) -> str:
    """The reference of an image with a service and perl."""
    write_layout(oci / "perl", layer_of_busybox(PERL))
    return "oci/perl/"


@dataclass(frozen=True)
class Site:
    """A node between containers and the outside."""

    machine: Machine
    node: NodeClient
    outside: Outside
    there: dict[str, Container]

    def addresses(self, name: str) -> tuple[str, str]:
        """Both of a container or a host."""
        if name in HOSTS:
            return HOSTS[name]
        container = self.there[name]
        return container.address or "", container.address6 or ""

    async def perl(self, source: str, script: str, *arguments: str) -> list[str]:
        """What a script prints in a container."""
        command = (PERL, "-e", (HERE / script).read_text(), *arguments)
        async with inside(self.machine, self.there[source]) as corex:
            done = await corex.execute(ExecRequest(command))
        assert not done.stderr.data, done.stderr.data
        return done.stdout.data.splitlines()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    booted: Machine, connect: Connect, spec: Spec, perl: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """One for all tests here: none of them changes it."""
    machine = booted
    await machine.restore("ready")
    async with await connect(machine) as node, Segment(tmp_path_factory.mktemp("wire")) as lan:
        hardware = mac_address("node1", "lan0")
        await machine.plug_nic(lan.nic("lan0"))
        async with Outside(lan.nic("outside"), hardware, LAN, INTERNET) as outside:
            await node.put_config(parse(CONFIG % hardware))
            allowed = tuple(
                EgressRule(f"{address}/{length}", "tcp", WEB)
                for address, length in zip(LAN, (32, 128), strict=True)
            )
            await node.put_network("blue", NetworkSpec(egress_allow=(EgressRule("internet"), *allowed)))
            await node.put_network("walled", NetworkSpec("10.77.0.0/24", "fd77::/64", egress="none"))
            ports = {"b": (PublishedPort(PUBLISHED, WEB),)}
            there = {
                name: await running(node, name, spec(perl, network=network, ports=ports.get(name, ())))
                for name, network in CONTAINERS.items()
            }
            for family in (0, 1):
                await outside.echo(LAN[family], NODE[family], machine.acceleration.seconds(SECONDS))
            yield Site(machine, node, outside, there)
        await machine.pull("lan0", SECONDS)


@pytest.fixture(autouse=True)
def watched(site: Site, request: pytest.FixtureRequest) -> Iterator[None]:
    with watched_during(request.node, site.machine):
        yield


def policy(source: str, target: str, how: str, port: int) -> bool:
    """What the networks above declare."""
    mine, its = CONTAINERS[source], CONTAINERS.get(target)
    if its:
        return mine == its
    if target == "node":
        return how == "tcp" and port == PUBLISHED and mine != "walled"
    if target == "gateway":
        return False
    if target == "internet":
        return mine != "walled"
    return mine == "blue" and how == "tcp" and port == WEB


def probes(site: Site, source: str) -> Iterator[tuple[str, bool]]:
    """Everything that a container can try, and whether it shall succeed."""
    for target in (*CONTAINERS, *HOSTS):
        for address in site.addresses(target):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            tries = [("tcp", WEB), ("udp", CLOSED), ("icmp", 0)]
            tries += [("tcp", port) for port in PORTS.get(target, ())]
            for how, port in tries if source != target else ():
                shall = policy(source, target, how, port)
                yield f"{how}:{socket.inet_pton(family, address).hex()}:{port}", shall


async def test_everybody_reaches_what_is_declared_and_nothing_else(site: Site) -> None:
    assert site.addresses("w") == ("10.77.0.2", "fd77::2")
    assert (await site.node.network("blue")).containers[0].ipv6 == site.addresses("c")[1]
    for source in CONTAINERS:
        expected = dict(probes(site, source))
        reached = set(await site.perl(source, "probe.pl", *expected))
        assert reached == {probe for probe, shall in expected.items() if shall}, source

    # from outside: nothing of a container's own, whoever asks
    patience = site.machine.acceleration.seconds(SECONDS)
    for host in (LAN, INTERNET):
        for name in CONTAINERS:
            for family, address in enumerate(site.addresses(name)):
                for how, port in (("tcp", WEB), ("udp", CLOSED), ("icmp", 0)):
                    site.outside.ask(how, host[family], address, port)
    for family in (0, 1):
        for host in (LAN, INTERNET):
            await site.outside.echo(host[family], NODE[family], patience)
            assert await site.outside.open_ports(host[family], NODE[family], (PUBLISHED, WEB), patience) == {
                PUBLISHED
            }
    answered = [
        (how, name)
        for name in CONTAINERS
        for address in site.addresses(name)
        for how, port in (("tcp", WEB), ("udp", CLOSED), ("icmp", 0))
        if site.outside.answered(how, address, port)
    ]
    assert not answered


async def received(site: Site, name: str) -> int:
    """Packets that a container got since its link was made."""
    traffic = (await site.node.container(name)).traffic
    assert traffic
    return traffic.received_packets


async def test_nobody_gets_through_with_anothers_address(site: Site) -> None:
    a, b, c = (site.addresses(name) for name in ("a", "b", "c"))
    before = [await received(site, name) for name in ("b", "c")]
    tried = await site.perl("a", "spoof.pl", *(socket.inet_aton(one[0]).hex() for one in (b, c)))
    assert [line for line in tried if line.endswith((" made", " set", " sent"))] == []
    assert len(tried) == 5
    patience = site.machine.acceleration.seconds(SECONDS)
    for family in (0, 1):
        for target, port in ((NODE, PUBLISHED), (b, WEB), (c, WEB)):
            for _ in range(TIMES):
                for how in ("tcp", "udp", "icmp"):
                    site.outside.ask(how, a[family], target[family], port)
                await site.outside.echo(LAN[family], NODE[family], patience)
    after = [await received(site, name) for name in ("b", "c")]
    # the node itself says now and then which groups it is in (MLD)
    assert all(now - then < TIMES for now, then in zip(after, before, strict=True))


async def test_a_scan_of_ports_finds_those_that_are_declared(site: Site) -> None:
    """All 65,535 are looked at by nmap (test_boot_matrix)."""
    declared = {8443, PUBLISHED, *(one.corex.port for one in site.there.values() if one.corex)}
    patience = site.machine.acceleration.seconds(SCAN_SECONDS)
    few = [*range(1, 1025), *range(8000, 10_000)]
    assert await site.outside.open_ports(INTERNET[0], NODE[0], few, patience) == declared
    assert await site.outside.open_ports(LAN[1], NODE[1], few, patience) == declared
