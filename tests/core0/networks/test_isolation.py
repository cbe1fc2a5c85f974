"""The isolation matrix with real packets: who reaches whom is what the declared policy says, and nothing else."""

import asyncio
import ctypes.util
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from core0.linux import netlink
from core0.linux.netlink import Netlink
from core0.networks import ruleset
from core0.wire.networks import INTERNET, EgressRule, NetworkSpec
from core0.wire.types import PublishedPort
from tests.core0.networks.site import ECHO_PORT, LAN, NODE, Site, kernel_rules

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not ctypes.util.find_library("nftables"), reason="needs Debian's libnftables1"),
]

TO_LAN = tuple(
    EgressRule(f"{address}/{length}", "tcp", ECHO_PORT)
    for address, length in zip(LAN, (32, 128), strict=True)
)
NETWORKS = {
    "blue": NetworkSpec(),
    "walled": NetworkSpec(egress="none"),
    "routed": NetworkSpec(egress="routed", egress_allow=(EgressRule(INTERNET, "tcp"), *TO_LAN)),
}
CONTAINERS = {"a": "default", "b": "default", "c": "blue", "w": "walled", "x": "walled", "r": "routed"}
HOSTS = ("node", "lan", "internet")


async def build(site: Site) -> None:
    for name, spec in NETWORKS.items():
        site.route_back(await site.put(name, spec))
    site.route_back((f"{NODE[0]}/32", f"{NODE[1]}/128"))
    for one in site.networks.list():
        site.route_back((one.ipv4, one.ipv6))
        site.route_back((one.ipv4, one.ipv6), "lan")  # so that the filter alone is in the way
    ports = {
        "b": (PublishedPort(8000, ECHO_PORT), PublishedPort(8000, ECHO_PORT, "udp")),
        "c": tuple(PublishedPort(8001, ECHO_PORT, address=address) for address in NODE),
        "x": (PublishedPort(8002, ECHO_PORT),),
        "r": (PublishedPort(8003, 7001),),
    }
    for name, network in CONTAINERS.items():
        site.add_container(name, network, ports.get(name, ()))
    for name in (*CONTAINERS, *HOSTS):
        site.serve(name)
    site.serve("r", 7001)


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(build)


def policy(source: str, target: str, how: str) -> bool:
    """What the networks above declare."""
    mine, its = CONTAINERS.get(source), CONTAINERS.get(target)
    if mine is None:
        return False  # nothing from outside but to published ports
    if its:
        return mine == its
    if target == "internet":
        return mine in ("default", "blue") or (mine == "routed" and how == "tcp")
    return target == "lan" and mine == "routed" and how == "tcp"


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("how", ["tcp", "udp", "icmp"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        (source, target)
        for source in ("a", "c", "w", "r", "lan", "internet")
        for target in (*CONTAINERS, *HOSTS)
        if source != target and not (source in HOSTS and target in HOSTS)
    ],
)
def test_who_reaches_whom_is_what_is_declared(
    site: Site, source: str, target: str, how: str, family: int
) -> None:
    shall = policy(source, target, how)
    probe = site.gets_through if shall else site.reaches
    assert probe(source, site.addresses[target][family], how) == shall


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("source", "port", "how", "expected"),
    [
        pytest.param("lan", 8000, "tcp", True, id="from the LAN"),
        pytest.param("lan", 8000, "udp", True, id="by UDP"),
        pytest.param("internet", 8000, "tcp", True, id="from the Internet"),
        pytest.param("c", 8000, "tcp", True, id="from another network"),
        pytest.param("a", 8000, "tcp", True, id="from the same network"),
        pytest.param("b", 8000, "tcp", True, id="from the container itself"),
        pytest.param("w", 8000, "tcp", False, id="not from an isolated network"),
        pytest.param("lan", 8001, "tcp", True, id="at one address"),
        pytest.param("lan", 8001, "udp", False, id="not by the other protocol"),
        pytest.param("lan", 8002, "tcp", True, id="into an isolated network"),
        pytest.param("lan", 8004, "tcp", False, id="not what is not published"),
    ],
)
def test_a_published_port_is_reached_at_the_node(
    site: Site, source: str, port: int, how: str, expected: bool, family: int
) -> None:
    probe = site.gets_through if expected else site.reaches
    assert probe(source, NODE[family], how, port) == expected


def test_a_port_published_at_one_address_is_not_at_another(site: Site) -> None:
    with site.inside("node"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "lan0")
        rt.apply([netlink.add_address(index, "192.168.7.99/24")])
        assert not site.reaches("lan", "192.168.7.99", "tcp", 8001)
        assert site.gets_through("lan", "192.168.7.99", "tcp", 8000)
        rt.apply([netlink.delete_address(index, "192.168.7.99/24")])


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_in_a_routed_network_published_ports_are_reached_at_the_containers_own_address(
    site: Site, family: int
) -> None:
    own = site.addresses["r"][family]
    assert site.gets_through("internet", own, "tcp", 7001)
    assert not site.reaches("internet", own, "udp", 7001)
    assert not site.reaches("internet", own, "tcp", ECHO_PORT)
    assert not site.reaches("a", own, "tcp", 7001), "a container of another network uses the node's port"
    assert not site.reaches("internet", site.addresses["b"][family], "tcp", ECHO_PORT)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("network", "whose"),
    [("default", "b"), ("blue", "a"), ("routed", "a"), ("walled", "x"), ("default", "lan")],
)
def test_nothing_leaves_a_container_with_an_address_that_is_not_its_own(
    site: Site, network: str, whose: str, family: int
) -> None:
    source = next(name for name, its in CONTAINERS.items() if its == network)
    stolen, bits = site.addresses[whose][family], (32, 128)[family]
    with site.inside(source), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "eth0")
        rt.apply([netlink.add_address(index, f"{stolen}/{bits}", properties=netlink.UNIQUE)])
        with socket.socket((socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_DGRAM) as client:
            client.bind((stolen, 0))
            for target in ("a", "b", "c", "w", "x", "r", "internet"):
                if target not in (source, whose):
                    client.sendto(b"spoofed", (site.addresses[target][family], ECHO_PORT))
        rt.apply([netlink.delete_address(index, f"{stolen}/{bits}")])
    assert not site.arrived()


@pytest.mark.parametrize("hardware", ["02:5a:4e:01:00:01", "02:5a:4e:01:00:02"], ids=["its own", "another's"])
def test_nothing_leaves_a_container_with_a_hardware_address_that_is_not_its_own(
    site: Site, hardware: str
) -> None:
    source, target = (socket.inet_aton(site.addresses[name][0]) for name in ("a", "b"))
    udp = struct.pack(">HHHH", 5555, ECHO_PORT, 8, 0)
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, 7, 0, 64, 17, 0, source, target)
    header = header[:10] + struct.pack(">H", _checksum(header)) + header[12:]
    frame = bytes.fromhex(f"025a4e000001{hardware.replace(':', '')}0800") + header + udp
    with site.inside("a"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(frame)
    arrived = site.arrived()
    for server in arrived:
        server.recv(64)
    assert bool(arrived) == (hardware == "02:5a:4e:01:00:01")


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_nobody_outside_joins_a_flow_with_a_containers_address(site: Site, family: int) -> None:
    """The flow is established, so nothing but where the packet comes from tells that it is another's."""
    stolen, target = site.addresses["a"][family], (site.addresses["b"][family], ECHO_PORT)
    kind = (socket.AF_INET, socket.AF_INET6)[family]

    def send(host: str) -> int:
        with site.inside(host), socket.socket(kind, socket.SOCK_DGRAM) as client:
            client.bind((stolen, 5555))
            client.sendto(b"one of a flow", target)
            return sum(server.sendto(*server.recvfrom(64)) > 0 for server in site.arrived())

    assert send("a") == 1
    with site.inside("lan"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "node0")
        rt.apply([netlink.add_address(index, f"{stolen}/{(32, 128)[family]}", properties=netlink.UNIQUE)])
        arrived = send("lan")
        rt.apply([netlink.delete_address(index, f"{stolen}/{(32, 128)[family]}")])
    assert arrived == 0


def test_a_router_advertisement_of_a_container_stays_in_its_link(site: Site) -> None:
    def counted() -> int:
        with site.inside("node"):
            lines = Path("/proc/thread-self/net/dev_snmp6/zc1").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Icmp6InRouterAdvertisements"))

    before = counted()
    with site.inside("a"), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.sendto(struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1%eth0", 0))
    assert counted() == before


def test_another_policy_is_in_force_at_once(site: Site, loop: asyncio.AbstractEventLoop) -> None:
    target = site.addresses["internet"]
    loop.run_until_complete(site.put("blue", NetworkSpec(egress_allow=())))
    assert not site.reaches("c", target[0], "tcp")
    assert not site.reaches("c", target[1], "tcp")
    loop.run_until_complete(site.put("blue", NetworkSpec(egress_allow=(EgressRule(f"{target[1]}/128"),))))
    assert not site.reaches("c", target[0], "tcp")
    assert site.gets_through("c", target[1], "tcp")
    loop.run_until_complete(site.put("blue", NetworkSpec()))
    assert site.gets_through("c", target[0], "tcp")


def test_a_public_subnet_that_the_node_gets_is_its_lan(site: Site, loop: asyncio.AbstractEventLoop) -> None:
    async def change(verb: object) -> None:
        with site.inside("node"), Netlink() as rt:
            index = next(link.index for link in rt.links() if link.name == "internet0")
            rt.apply([verb(index, "203.0.113.1/24")])  # type: ignore[operator]
            await asyncio.sleep(0.1)  # the manager hears of it from the kernel

    site.route_back(("203.0.113.1/32", "2001:db8:98::/64"))
    assert site.gets_through("a", site.addresses["internet"][0], "tcp")
    loop.run_until_complete(change(netlink.add_address))
    assert not site.reaches("a", site.addresses["internet"][0], "icmp")
    loop.run_until_complete(change(netlink.delete_address))


def test_what_came_and_went_leaves_nothing(site: Site) -> None:
    def left() -> tuple[str, ...]:
        commands = ("ip -o link", "ip route show table all", "ip -6 route show table all")
        with site.inside("node"):
            shown = [
                subprocess.run(one.split(), capture_output=True, text=True, check=True) for one in commands
            ]
            return (*(one.stdout for one in shown), kernel_rules())

    before = left()
    for _ in range(20):
        with site.come_and_go("default", (PublishedPort(8100, 80), PublishedPort(8101, 80, "udp", NODE[0]))):
            assert left() != before
    assert left() == before


def test_another_node_daemon_enforces_the_same_for_what_runs(
    site: Site, loop: asyncio.AbstractEventLoop
) -> None:
    loop.run_until_complete(site.restart())
    for family in (0, 1):
        assert site.gets_through("a", site.addresses["b"][family], "tcp")
        assert not site.reaches("a", site.addresses["c"][family], "tcp")
        assert not site.reaches("a", LAN[family], "tcp")
        assert site.gets_through("r", LAN[family], "tcp"), (
            "the network's own policy came from the node's state"
        )
        assert site.gets_through("lan", NODE[family], "tcp", 8000)
        assert site.gets_through("internet", site.addresses["r"][family], "tcp", 7001)


def test_a_container_with_too_many_connections_has_no_more_and_the_others_have_theirs(
    site: Site, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ruleset, "limit_flows", lambda _, limit=ruleset.limit_flows: limit(20))
    loop.run_until_complete(site.restart())
    with site.inside("a"):
        flood = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
        for one in flood:
            one.sendto(b"hello", (site.addresses["internet"][0], 9))
            one.close()
    for family in (0, 1):
        assert not site.reaches("a", site.addresses["internet"][family], "tcp")
        assert site.gets_through("a", site.addresses["b"][family], "tcp"), "the short way needs none"
        assert site.gets_through("c", site.addresses["internet"][family], "tcp")
    monkeypatch.undo()
    loop.run_until_complete(site.restart())
    assert site.gets_through("a", site.addresses["internet"][0], "tcp")
