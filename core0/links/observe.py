"""The node's links as the kernel has them. Reads, never changes."""

import os
import socket
from collections.abc import Iterable, Mapping

from core0.links.model import Bond, Route, Rule, SeenLink
from core0.linux import files, netlink
from core0.linux.netlink import Address, Link, Netlink
from core0.wire.network import CONTAINER_LINKS

_DEVICES = "/sys/class/net"
_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"


def observe(rtnetlink: Netlink) -> tuple[SeenLink, ...]:
    """Every link of the node but the loopback, those of containers included, in the kernel's order."""
    links = rtnetlink.links()
    # of containers' links, which may be thousands, nothing more is of interest
    ipv6 = {link.index: _ipv6(link.name) for link in links if not link.kind or link.alias == netlink.MARK}
    return select(links, rtnetlink.addresses(), rtnetlink.routes(), ipv6)


def observe_indexes() -> tuple[int, ...]:
    """The numbers of the node's own links. The kernel describes containers' links for that, 40 ms for a thousand."""
    return tuple(index for index, _ in socket.if_nameindex() if index < CONTAINER_LINKS)


def observe_own(rtnetlink: Netlink, indexes: Iterable[int]) -> tuple[SeenLink, ...]:
    """The links of these numbers that are there, without their routes: those may be thousands, and none is read."""
    links = [link for index in indexes if (link := rtnetlink.link(index))]
    ipv6 = {link.index: _ipv6(link.name) for link in links}
    return own(select(links, rtnetlink.addresses(), ipv6=ipv6))


def observe_rules(rtnetlink: Netlink) -> frozenset[Rule]:
    """The rules of routing that the node made."""
    return frozenset(Rule(*rule) for rule in rtnetlink.rules())


def own(landscape: Iterable[SeenLink]) -> tuple[SeenLink, ...]:
    """The cards, and the links that the config had made."""
    return tuple(link for link in landscape if link.is_card or link.ours)


def select(
    links: Iterable[Link],
    addresses: Iterable[Address],
    routes: Iterable[netlink.Route] = (),
    ipv6: Mapping[int, bool | None] = {},
) -> tuple[SeenLink, ...]:
    """The links with their addresses and routes.

    Args:
        links: of the kernel.
        addresses: of the kernel; one that is still being looked for elsewhere is none yet.
        routes: the static ones.
        ipv6: by a link's number whether it speaks IPv6; None where nobody knows.
    """
    by_index: dict[int, list[Address]] = {}
    for address in addresses:
        by_index.setdefault(address.index, []).append(address)
    static: dict[int, set[Route]] = {}
    for route in routes:
        found = Route(route.destination, route.gateway, route.metric, route.table)
        static.setdefault(route.index, set()).add(found)
    links = [link for link in links if not link.is_loopback]
    names = {link.index: link.name for link in links}
    return tuple(
        _seen(link, names, by_index.get(link.index, ()), static.get(link.index, ()), ipv6.get(link.index))
        for link in links
    )


def _seen(
    link: Link,
    names: Mapping[int, str],
    addresses: Iterable[Address],
    routes: Iterable[Route],
    ipv6: bool | None,
) -> SeenLink:
    mark, _, original = link.alias.partition(" mtu=")
    marked = mark == netlink.MARK
    own = frozenset(one.interface for one in addresses if _is_own(one))
    return SeenLink(
        link.index,
        link.name,
        link.permanent or link.address,
        link.is_up,
        link.carrier,
        own,
        kind=link.kind,
        ours=marked and bool(link.kind),
        mtu=link.mtu,
        original_mtu=int(original) if marked and original.isdecimal() else None,
        largest_mtu=link.largest_mtu,
        ipv6=ipv6,
        master=names.get(link.master, ""),
        parent=names.get(link.parent, "") if link.kind == "vlan" else "",
        vlan=link.vlan,
        bond=_bond(link, names),
        routes=frozenset(routes),
        driver="" if link.kind else driver_of(f"{_DEVICES}/{link.name}/device"),
        path="" if link.kind else place_of(f"{_DEVICES}/{link.name}"),
        routed=frozenset(one.interface for one in addresses if _is_routed(one)) - own,
        duplicates=frozenset(one.interface for one in addresses if one.duplicate),
    )


def _is_own(address: Address) -> bool:
    """Whether a lease or the config gave it."""
    return ":" not in address.interface or address.protocol == netlink.CONFIGURED


def _is_routed(address: Address) -> bool:
    """Whether it can be used beyond the link."""
    usable = not address.tentative and not address.duplicate
    return usable and ":" in address.interface and not address.interface.startswith("fe80:")


def _bond(link: Link, names: Mapping[int, str]) -> Bond | None:
    if not link.bond:
        return None
    mode, miimon, primary = link.bond
    return Bond(netlink.BOND_MODES.get(mode, str(mode)), miimon, names.get(primary, ""))


def _ipv6(name: str) -> bool | None:
    """Whether a link speaks IPv6; None if the kernel does not, or the link is gone."""
    try:
        return files.read(_IPV6.format(name)) == b"0\n"
    except FileNotFoundError:
        return None


def driver_of(device: str) -> str:
    """The driver that has a device, by its folder in sysfs; "" for none."""
    try:
        return os.path.basename(os.readlink(f"{device}/driver"))
    except OSError:  # it is made of software, or its driver just left
        return ""


def place_of(link: str) -> str:
    """The last PCI address on the way to a link, by its place in sysfs: its card's, as a bridge's comes before."""
    try:
        steps = os.readlink(link).split("/")
    except OSError:
        return ""
    return next((step for step in reversed(steps) if step.count(":") == 2 and "." in step), "")
