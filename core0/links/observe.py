"""The node's own links as the kernel has them. Reads, never changes."""

from collections.abc import Iterable

from core0.links.model import SeenLink
from core0.linux.netlink import Address, Link, Netlink


def observe(rtnetlink: Netlink) -> tuple[SeenLink, ...]:
    """Every link that stands for hardware (a virtual one has a kind), in the kernel's order."""
    return select(rtnetlink.links(), rtnetlink.addresses())


def select(links: Iterable[Link], addresses: Iterable[Address]) -> tuple[SeenLink, ...]:
    """The hardware links with their addresses; one that is still being looked for elsewhere is none yet."""
    own: dict[int, set[str]] = {}
    routed: dict[int, set[str]] = {}
    duplicates: dict[int, set[str]] = {}
    for address in addresses:
        if address.duplicate:
            duplicates.setdefault(address.index, set()).add(address.interface)
        elif ":" not in address.interface:
            own.setdefault(address.index, set()).add(address.interface)
        elif not address.tentative and not address.interface.startswith("fe80:"):
            routed.setdefault(address.index, set()).add(address.interface)
    return tuple(
        SeenLink(
            link.index,
            link.name,
            link.address,
            link.is_up,
            link.carrier,
            frozenset(own.get(link.index, ())),
            frozenset(routed.get(link.index, ())),
            frozenset(duplicates.get(link.index, ())),
        )
        for link in links
        if not link.is_loopback and not link.kind
    )
