"""The network manager beside the node's own links: what overlaps them, what a link is made of, what failed ends."""

import asyncio
import ctypes.util
import os
import socket
from collections.abc import AsyncIterator

import pytest

from core0.linux import netlink
from core0.linux.netlink import Netlink
from core0.networks.manager import Networks
from core0.wire.control import RefusedError
from core0.wire.networks import NetworkSpec
from tests.core0.networks.kept import KeptInMemory
from tests.core0.networks.site import Site, unasked_names

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not ctypes.util.find_library("nftables"), reason="needs Debian's libnftables1"),
]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    with Site() as site:
        yield site


async def test_a_subnet_of_the_nodes_own_links_is_refused_and_the_link_named(site: Site) -> None:
    with pytest.raises(RefusedError, match=r"overlaps 192\.168\.7\.1/24 of the node's link lan0") as refused:
        await site.put("web", NetworkSpec("192.168.0.0/16"))
    assert (refused.value.refusal.status, refused.value.refusal.pointer) == (409, "/ipv4")
    with pytest.raises(RefusedError, match="lan0") as refused:
        await site.put("web", NetworkSpec(ipv6="2001:db8:7::/48"))
    assert refused.value.refusal.pointer == "/ipv6"
    assert [one.name for one in site.networks.list()] == ["default"]


async def test_a_network_that_a_link_came_into_says_conflict_until_it_is_changed(site: Site) -> None:
    with site.inside("node"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "lan0")
        rt.apply([netlink.add_address(index, "10.88.4.1/24")])
    default = site.networks.get("default")
    assert (default.state, default.why) == (
        "conflict",
        "it overlaps 10.88.4.1/24 of the node's link lan0: put it with another subnet",
    )
    await site.put("default", NetworkSpec("10.200.0.0/16"))
    assert site.networks.get("default").state == "ready"


async def test_both_ends_of_a_link_have_the_networks_mtu(site: Site) -> None:
    await site.put("small", NetworkSpec(mtu=1400))
    site.add_container("a", "small")
    for name, link in (("node", "zc1"), ("a", "eth0")):
        with site.inside(name), Netlink() as rt:
            assert [one.mtu for one in rt.links() if one.name == link] == [1400]


async def test_an_attachment_that_fails_leaves_nothing_and_can_be_tried_again(site: Site) -> None:
    reader, writer = os.pipe()
    with site.inside("node"):
        with pytest.raises(OSError, match="cannot create link zc1"):
            site.networks.attach(1, "a", "default", 2, reader)  # no namespace
        with pytest.raises(OSError, match="there is no network gone"):
            site.networks.attach(1, "a", "gone", 2, reader)
    os.close(reader)
    os.close(writer)
    with site.inside("node"), Netlink() as rt:
        assert not [link.name for link in rt.links() if link.name.startswith("zc")]
    site.add_container("a")
    site.add_container("b")
    site.serve("b")
    assert site.gets_through("a", site.addresses["b"][0], "tcp")


async def test_links_end_while_the_loop_goes_on(site: Site) -> None:
    site.add_container("a")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    with site.inside("node"):
        await site.networks.remove(1)
        await site.networks.remove(1)
    ticking.cancel()
    assert ticks > 1
    with site.inside("node"), Netlink() as rt:
        assert not [link.name for link in rt.links() if link.name.startswith("zc")]


async def test_what_a_newer_image_wrote_is_reported_and_the_others_are_there() -> None:
    keep = KeptInMemory()
    first = Networks(keep, keep.report, unasked_names(), lambda _: {})
    await first.put("web", NetworkSpec("10.210.0.0/16"))
    first.close()
    keep.sections["network/new"] = b'{"spec": {}, "ipv4": "10.9.0.0/16", "ipv6": "fd09::/64", "more": 1}'
    keep.sections["network/bad"] = b'{"spec": {}, "ipv4": "10.9.0.0/16 }", "ipv6": "fd09::/64"}'
    second = Networks(keep, keep.report, unasked_names(), lambda _: {})
    assert [one.name for one in second.list()] == ["default", "web"]
    assert {subject for kind, subject, told in keep.told if told.startswith("Warning")} == {"new", "bad"}
    second.close()


async def test_what_went_over_a_link_is_counted_as_the_container_sees_it(site: Site) -> None:
    for name, network in (("a", "default"), ("b", "default"), ("c", "blue")):
        if network == "blue":
            await site.put("blue", NetworkSpec())
        site.add_container(name, network)
    site.serve("b")
    with site.inside("node"):
        before = site.networks.traffic(1)
    assert before
    with site.inside("a"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(10):
            client.sendto(bytes(1000), (site.addresses["b"][0], 7000))
        for _ in range(7):
            client.sendto(b"not yours", (site.addresses["c"][0], 7000))
        for port in (53, 9001):
            client.sendto(b"not yours", ("169.254.1.1", port))
    with site.inside("node"):
        of_a, of_b = site.networks.traffic(1), site.networks.traffic(2)
        shown = {one.container: one.traffic for one in site.networks.get("default").containers}
    assert of_a
    assert of_b
    assert of_a.sent_packets - before.sent_packets >= 19
    assert of_a.sent_bytes - before.sent_bytes >= 10 * 1042
    assert of_a.sent_refused - before.sent_refused == 8, "all but what b got, and a question for names"
    assert of_b.received_bytes >= 10 * 1042
    assert of_b.sent_refused == 0
    # the kernel asks for IPv6 routers when it likes, so a moment later it may be more
    assert [one.sent_bytes >= of_a.sent_bytes for name, one in shown.items() if one and name == "a"] == [True]
    assert set(shown) == {"a", "b"}
    assert site.networks.traffic(9) is None
    assert [one.traffic for one in site.networks.list()[0].containers] == [None]


async def test_packets_with_another_address_are_counted_as_refused(site: Site) -> None:
    site.add_container("a")
    site.add_container("b")
    with site.inside("a"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "eth0")
        rt.apply([netlink.add_address(index, "10.88.0.99/32")])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("10.88.0.99", 0))
            client.sendto(b"spoofed", (site.addresses["b"][0], 7000))
    with site.inside("node"):
        traffic = site.networks.traffic(1)
    assert traffic
    assert traffic.sent_refused == 1
