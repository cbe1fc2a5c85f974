"""The node's own links as the kernel has them. Reads, never changes."""

from collections.abc import Iterable

from core0.links.model import SeenLink
from core0.linux.netlink import Address, Link, Netlink


def observe(rtnetlink: Netlink) -> tuple[SeenLink, ...]:
    """Every link that stands for hardware (a virtual one has a kind), in the kernel's order."""
    return select(rtnetlink.links(), rtnetlink.addresses())


def select(links: Iterable[Link], addresses: Iterable[Address]) -> tuple[SeenLink, ...]:
    """The hardware links with their IPv4 addresses."""
    by_index: dict[int, set[str]] = {}
    for address in addresses:
        if ":" not in address.interface:
            by_index.setdefault(address.index, set()).add(address.interface)
    return tuple(
        SeenLink(
            link.index,
            link.name,
            link.address,
            link.is_up,
            link.carrier,
            frozenset(by_index.get(link.index, ())),
        )
        for link in links
        if not link.is_loopback and not link.kind
    )
