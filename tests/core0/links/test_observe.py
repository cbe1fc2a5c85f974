"""The node's links out of what the kernel lists."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core0.links.model import SeenLink
from core0.links.observe import own, select
from core0.linux.netlink import IFF_LOOPBACK, IFF_UP, Address, Link


def link(index: int, name: str, flags: int = IFF_UP, kind: str = "") -> Link:
    return Link(index, name, "52:54:00:00:00:07", 1500, flags, carrier=True, kind=kind)


def test_hardware_comes_with_the_addresses_that_it_can_use() -> None:
    links = [link(1, "lo", IFF_UP | IFF_LOOPBACK), link(2, "card0"), link(3, "zc1", kind="veth")]
    addresses = [
        Address(1, "127.0.0.1/8"),
        Address(2, "10.0.2.15/24"),
        Address(2, "fe80::7/64"),
        Address(2, "2001:db8::7/64"),
        Address(2, "2001:db8:1::7/64", tentative=True),
        Address(2, "2001:db8:2::7/64", duplicate=True),
        Address(3, "169.254.1.1/32"),
    ]
    assert own(select(links, addresses)) == (
        SeenLink(
            2,
            "card0",
            "52:54:00:00:00:07",
            is_up=True,
            carrier=True,
            addresses=frozenset({"10.0.2.15/24"}),
            routed=frozenset({"2001:db8::7/64"}),
            duplicates=frozenset({"2001:db8:2::7/64"}),
            ipv6=None,
        ),
    )


@pytest.mark.root
def test_the_nodes_own_links_are_found_without_a_look_at_those_of_containers(
    in_fresh_network: Callable[[str], None],
) -> None:
    in_fresh_network("""
import os, subprocess
from msgspec.structs import replace
from core0.links.observe import observe, observe_indexes, observe_own, own
from core0.linux import netlink
from core0.linux.netlink import End, Netlink
from core0.wire.network import CONTAINER_LINKS
subprocess.run(['ip', 'link', 'add', 'card0', 'type', 'veth', 'peer', 'name', 'peer0'], check=True)
subprocess.run(['ip', 'link', 'set', 'card0', 'alias', netlink.MARK, 'up'], check=True)
subprocess.run(['ip', 'address', 'add', '192.0.2.1/24', 'dev', 'card0'], check=True)
other = os.open('/proc/self/ns/net', os.O_RDONLY)
with Netlink() as rt:
    rt.apply([netlink.add_veth(End('zc1', index=CONTAINER_LINKS + 1), End('eth0'), other)])
    looked, link = [], Netlink.link
    Netlink.link = lambda self, index: looked.append(index) or link(self, index)
    found = observe_own(rt, observe_indexes())
    assert [one.name for one in found] == ['card0'] and found[0].addresses == {'192.0.2.1/24'}, found
    assert CONTAINER_LINKS + 1 not in looked, looked
    assert found == tuple(replace(one, routes=frozenset()) for one in own(observe(rt)))
""")


@pytest.mark.root
def test_the_kernel_lists_links_again_only_when_one_of_the_nodes_own_came_or_went(
    in_fresh_network: Callable[[str], None], tmp_path: Path
) -> None:
    in_fresh_network(f"""
import os, subprocess
from concurrent.futures import ThreadPoolExecutor
from core0.links import manager
from core0.linux import namespaces, netlink
from core0.linux.netlink import End, Netlink
from core0.wire.network import CONTAINER_LINKS
def add(name):
    subprocess.run(['ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', name + 'p'], check=True)
    subprocess.run(['ip', 'link', 'set', name, 'alias', netlink.MARK, 'up'], check=True)
def make_namespace():
    namespaces.leave(namespaces.NEWNET)
    return os.open('/proc/thread-self/ns/net', os.O_RDONLY)
listed, observe_indexes = [], manager.observe_indexes
manager.observe_indexes = lambda: listed.append(1) or observe_indexes()
links = manager.Links(lambda *_: None, lambda _: None, '{tmp_path}/leases', '{tmp_path}/links')
def seen():
    listed.clear()
    return [link.name for link in links.seen()], len(listed)
add('card0')
assert seen() == (['card0'], 1)
with ThreadPoolExecutor(1) as thread, Netlink() as rt:
    other = thread.submit(make_namespace).result()
    rt.apply([netlink.add_veth(End('zc1', index=CONTAINER_LINKS + 1), End('eth0'), other)])
assert seen() == (['card0'], 0)
add('card1')
assert seen() == (['card0', 'card1'], 1) and seen() == (['card0', 'card1'], 0)
subprocess.run(['ip', 'link', 'delete', 'card0'], check=True)
assert seen() == (['card1'], 1)
""")
