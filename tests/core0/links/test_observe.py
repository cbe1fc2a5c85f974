"""The node's links out of what the kernel lists."""

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
