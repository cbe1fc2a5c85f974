"""What the packet filter lets through between containers and the link of a mesh, with real packets.

The link is a pair of ordinary ones called as WireGuard's would be: the filter knows links by their names. Behind it
are a host with an address of another node's part, one with a single address of this node's part, and one of no part.
"""

import asyncio
import ctypes.util
import os
import socket
from collections.abc import Callable, Mapping

import pytest

from core0.linux import netlink
from core0.linux.netlink import Netlink
from core0.linux.openssl import new_x25519
from core0.mesh.manager import Meshes
from core0.mesh.model import Span
from core0.wire.mesh import MeshPeer, MeshSpec
from core0.wire.network import MESH_LINKS
from core0.wire.networks import EgressRule, NetworkSpec
from core0.wire.types import PublishedPort
from tests.core0.networks.site import ECHO_PORT, LAN, NODE, Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not ctypes.util.find_library("nftables"), reason="needs Debian's libnftables1"),
]

FAR, LAPTOP, STRANGER = (
    ("10.60.2.7", "fd60:0:0:2::7"),
    ("10.60.1.9", "fd60:0:0:1::9"),
    ("10.99.0.1", "fd99::1"),
)
WHOLE = ("10.60.0.0/16", "fd60::/48")
OWN = ("10.60.1.0/24", "fd60:0:0:1::/64")
KEYS = ("A" * 42 + "E=", "A" * 42 + "I=")


class NoKernel:
    """What the mesh manager is asked for here needs nothing of the node."""

    def port_owner(self, port: int) -> str:
        """None."""
        return ""

    def spans(self) -> Mapping[str, Span]:
        """None: nobody is to be asked for names here."""
        return {}


async def build(site: Site) -> None:
    meshes = Meshes(site.keep, site.keep.report, NoKernel(), new_x25519)  # type: ignore[arg-type]
    site.networks.meshes = lambda: meshes
    peers = {
        "far": MeshPeer(KEYS[:1], "10.60.2.0/24", "fd60:0:0:2::/64"),
        "laptop": MeshPeer(KEYS[1:], *LAPTOP),
    }
    mesh = MeshSpec(*WHOLE, peers=peers)
    everything = (EgressRule("0.0.0.0/0"), EgressRule("::/0"))
    await site.put("span", NetworkSpec(*OWN, mesh=mesh, egress_allow=everything))
    site.add_container("m", "span", (PublishedPort(8000, ECHO_PORT),))
    site.add_container("d", "default", (PublishedPort(8001, ECHO_PORT),))
    site.link(MESH_LINKS + 1, "zm1", "mesh", WHOLE, {"far": FAR, "laptop": LAPTOP, "stranger": STRANGER})
    site.route_back(WHOLE, "lan")
    with site.inside("node"):
        site.networks.watch_mesh("zm1")
    for name in ("m", "d", "node", "lan", "far"):
        site.serve(name)


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(build)


def gets_through(site: Site, source: str, target: str, family: int, port: int = ECHO_PORT) -> bool:
    """Whether a datagram of one of a host's addresses arrives at a port of UDP."""
    own, there = site.addresses[source][family], site.addresses[target][family]
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    with site.inside(source), socket.socket(kind, socket.SOCK_DGRAM) as client:
        client.bind((own, 0))
        client.sendto(b"hello", (there, port))
        arrived = site.arrived()
        for server in arrived:
            assert server.recvfrom(64)[1][0] == own, "NAT hides no traffic of a mesh"
    return bool(arrived)


FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


@FAMILIES
@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        pytest.param("far", "m", True, id="from another node to the network's container"),
        pytest.param("laptop", "m", True, id="from a single machine"),
        pytest.param("m", "far", True, id="to another node"),
        pytest.param("far", "d", False, id="not to another network's container"),
        pytest.param("laptop", "d", False, id="not from a single machine to another network"),
        pytest.param("stranger", "m", False, id="not from outside of the mesh"),
        pytest.param("far", "node", False, id="not to the node"),
        pytest.param("far", "lan", False, id="not to the LAN"),
        pytest.param("d", "far", False, id="not from another network"),
        pytest.param("lan", "far", False, id="not from the LAN"),
    ],
)
def test_what_comes_and_goes_by_a_mesh_is_for_its_own_network_only(
    site: Site, source: str, target: str, expected: bool, family: int
) -> None:
    assert gets_through(site, source, target, family) == expected


@FAMILIES
def test_tcp_goes_both_ways(site: Site, family: int) -> None:
    assert site.gets_through("far", site.addresses["m"][family], "tcp")
    assert site.gets_through("m", site.addresses["far"][family], "tcp")
    assert site.gets_through("m", site.addresses["far"][family], "icmp")


@FAMILIES
def test_what_comes_and_goes_needs_no_forwarding(site: Site, family: int) -> None:
    with site.without_forwarding():
        assert site.gets_through("far", site.addresses["m"][family], "tcp")
        assert site.gets_through("m", site.addresses["far"][family], "tcp")
        assert not gets_through(site, "far", "d", family)


@FAMILIES
def test_a_hub_sends_on_from_one_peer_to_another_and_to_nobody_else(site: Site, family: int) -> None:
    """The packet comes by the link and leaves by it."""
    kind, listening = (socket.AF_INET, socket.AF_INET6)[family], (socket.AF_PACKET, socket.SOCK_RAW)
    third = ("10.60.3.3", "fd60:0:0:3::3")[family]
    with site.inside("node"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "zm1")
        rt.apply([netlink.add_neighbour(index, third, "02:5a:4e:02:00:02")])
    with site.inside("far"), socket.socket(*listening, socket.htons(3)) as wire:
        wire.bind(("node0", 0))
        wire.settimeout(1)
        for source, expected in (("far", True), ("stranger", False)):
            with socket.socket(kind, socket.SOCK_DGRAM) as client:
                client.bind((site.addresses[source][family], 0))
                client.sendto(b"on its way", (third, 9))
            assert came_back(wire, b"on its way") == expected


def came_back(wire: socket.socket, data: bytes) -> bool:
    """Whether a packet with some data is sent to this host by the node, besides the one that it sent itself."""
    try:
        while True:
            frame, origin = wire.recvfrom(2048)
            if data in frame and origin[2] != socket.PACKET_OUTGOING:
                return True
    except TimeoutError:
        return False


@FAMILIES
def test_a_published_port_is_no_way_from_a_mesh_into_another_network(site: Site, family: int) -> None:
    assert not site.reaches("far", NODE[family], "tcp", 8001)
    assert site.gets_through("lan", NODE[family], "tcp", 8001)


@FAMILIES
def test_nobody_on_the_lan_speaks_with_an_address_of_the_mesh(site: Site, family: int) -> None:
    stolen, bits = FAR[family], (32, 128)[family]
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    with site.inside("lan"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "node0")
        rt.apply([netlink.add_address(index, f"{stolen}/{bits}", properties=netlink.UNIQUE)])
        with socket.socket(kind, socket.SOCK_DGRAM) as client:
            client.bind((stolen, 0))
            client.sendto(b"spoofed", (site.addresses["m"][family], ECHO_PORT))
        arrived = site.arrived()
        rt.apply([netlink.delete_address(index, f"{stolen}/{bits}")])
    assert not arrived


@FAMILIES
def test_what_is_for_other_nodes_never_leaves_unencrypted_while_the_link_is_away(
    site: Site, loop: asyncio.AbstractEventLoop, family: int
) -> None:
    """Everything outside is allowed, and the default route leads there."""
    with site.inside("node"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "lan0")
        rt.apply([netlink.add_route(f"{FAR[family]}/{(32, 128)[family]}", index, LAN[family])])
    with site.inside("lan"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
        wire.bind(("node0", 0))
        wire.settimeout(1)
        with site.without_link("zm1"):
            assert not gets_through(site, "m", "far", family)
        assert not came_back(wire, b"hello")
    for server in site.arrived():  # the pair of links kept it until it knew for whom
        server.recv(64)
    with site.inside("node"), Netlink() as rt:
        from core0.linux.netlink_links import delete_route

        rt.apply([delete_route(f"{FAR[family]}/{(32, 128)[family]}", index, LAN[family])])
    assert gets_through(site, "m", "far", family)


def test_a_network_that_spans_nodes_no_more_leaves_no_rule_of_its_mesh(
    site: Site, loop: asyncio.AbstractEventLoop
) -> None:
    mesh = site.networks.get("span").spec
    loop.run_until_complete(site.put("span", NetworkSpec(*OWN)))
    assert not gets_through(site, "far", "m", 0)
    assert not gets_through(site, "m", "far", 0)
    loop.run_until_complete(site.put("span", mesh))
    with site.inside("node"):
        site.networks.watch_mesh("zm1")
    assert gets_through(site, "far", "m", 0)
