"""The network manager beside the node's own links: what overlaps them, what a link is made of, what failed ends."""

import asyncio
import ctypes.util
import os
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
    assert site.reaches("a", site.addresses["b"][0], "tcp")


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
