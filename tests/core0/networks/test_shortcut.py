"""The short way within a network: which packets take it. A node that forwards nothing lets only those through."""

import asyncio
import ctypes.util
import errno
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable

import pytest

from core0.wire.networks import NetworkSpec
from core0.wire.types import PublishedPort
from tests.core0.networks.site import ECHO_PORT, NODE, Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not ctypes.util.find_library("nftables"), reason="needs Debian's libnftables1"),
]
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


async def build(site: Site) -> None:
    await site.put("blue", NetworkSpec())
    await site.put("within", NetworkSpec(egress="none"))
    site.add_container("v", "within", (PublishedPort(8001, ECHO_PORT),))
    site.add_container("w", "within")
    for name, network in (("a", "default"), ("b", "default"), ("c", "blue")):
        site.add_container(name, network, (PublishedPort(8000, ECHO_PORT),) if name == "b" else ())
    kept = site.networks.get("default")
    await site.put("default", NetworkSpec(kept.ipv4, kept.ipv6, mtu=1400))
    site.add_container("small", "default")
    for name in ("a", "b", "c", "small", "v"):
        site.serve(name)


@pytest.fixture(scope="module")
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(build)


@FAMILIES
@pytest.mark.parametrize("how", ["tcp", "udp", "icmp"])
def test_containers_of_a_network_need_no_forwarding(site: Site, how: str, family: int) -> None:
    with site.without_forwarding():
        assert site.gets_through("a", site.addresses["b"][family], how)
        assert site.gets_through("b", site.addresses["a"][family], how)


@FAMILIES
def test_no_other_network_is_reached_by_it(site: Site, family: int) -> None:
    with site.without_forwarding():
        assert not site.reaches("a", site.addresses["c"][family], "udp")


@FAMILIES
def test_links_of_different_mtus_go_by_the_ip_stack_both_ways(site: Site, family: int) -> None:
    with site.without_forwarding():
        assert not site.reaches("a", site.addresses["small"][family], "tcp")
        assert not site.reaches("small", site.addresses["a"][family], "tcp")
    assert site.gets_through("a", site.addresses["small"][family], "tcp")
    assert site.gets_through("small", site.addresses["a"][family], "tcp")


def test_a_datagram_too_big_for_the_others_link_is_told_to_its_sender(site: Site) -> None:
    with site.inside("a"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO (ip(7))
        client.settimeout(1)
        client.connect((site.addresses["small"][0], ECHO_PORT))
        client.send(bytes(1450))
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
            client.recv(1)
        assert client.getsockopt(socket.IPPROTO_IP, 14) == 1400  # IP_MTU


def test_a_header_with_options_is_the_ip_stacks(site: Site) -> None:
    with site.inside("a"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x00")
        with site.without_forwarding():
            client.sendto(b"hello", (site.addresses["b"][0], ECHO_PORT))
            assert not site.arrived()
        client.sendto(b"hello", (site.addresses["b"][0], ECHO_PORT))
        for server in site.arrived():
            assert server.recv(64) == b"hello"


def test_a_packet_at_the_end_of_its_life_is_answered_by_the_node(site: Site) -> None:
    with site.inside("a"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        client.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR (ip(7))
        client.settimeout(1)
        client.connect((site.addresses["b"][0], ECHO_PORT))
        client.send(b"hello")
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            client.recv(1)


def test_a_stolen_address_is_not_taken_along(site: Site) -> None:
    """Of the sender's own network: the receiver is in the same group."""
    stolen, target = (socket.inet_aton(site.addresses[name][0]) for name in ("small", "b"))
    udp = struct.pack(">HHHH", 5555, ECHO_PORT, 8, 0)
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, 7, 0, 64, 17, 0, stolen, target)
    with site.inside("a"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(bytes.fromhex("025a4e000001025a4e0100010800") + header + udp)
    assert not site.arrived()


def test_who_came_and_went_is_reached_no_more(site: Site) -> None:
    with site.come_and_go("default", ()):
        pass
    for family in (0, 1):
        with site.without_forwarding():
            assert site.gets_through("a", site.addresses["b"][family], "tcp")


def test_a_published_port_is_reached_from_the_same_network_as_before(site: Site) -> None:
    assert site.gets_through("a", NODE[0], "tcp", 8000)


def test_another_node_daemon_goes_on_with_it(site: Site, loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(site.restart())
    with site.without_forwarding():
        for family in (0, 1):
            assert site.gets_through("a", site.addresses["b"][family], "tcp")
            assert not site.reaches("a", site.addresses["small"][family], "tcp")
            assert not site.reaches("a", site.addresses["c"][family], "tcp")


@FAMILIES
@pytest.mark.parametrize("source", ["w", "lan"])
def test_large_segments_of_a_network_within_itself_arrive_whole_inside_and_outside(
    site: Site, source: str, family: int
) -> None:
    """Sixteen MiB of random bytes, of which TCP makes packets of 256 KiB where no card is on the way."""
    address, port = (NODE[family], 8001) if source == "lan" else (site.addresses["v"][family], ECHO_PORT)
    data, got = os.urandom(16 << 20), bytearray()
    with site.inside(source):
        client = socket.create_connection((address, port), timeout=10)
    sender, _ = site.listener("v", family).accept()
    sending = threading.Thread(target=lambda: (sender.sendall(data), sender.close()))
    sending.start()
    with client:
        while piece := client.recv(1 << 20):
            got += piece
    sending.join()
    assert bytes(got) == data


def test_only_a_network_within_itself_has_large_segments(site: Site) -> None:
    def segment(name: str) -> str:
        with site.inside(name):
            return subprocess.run(
                ["ip", "-d", "link", "show", "eth0"], capture_output=True, text=True, check=True
            ).stdout

    assert "gso_max_size 262144 " in segment("w")
    assert "gso_max_size 65536 " in segment("a")
