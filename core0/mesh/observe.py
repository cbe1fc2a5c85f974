"""The links of meshes as the kernel has them. Reads, never changes."""

import errno
from collections.abc import Iterable

from msgspec.structs import replace

from core0.linux.netlink import Netlink
from core0.linux.wireguard import Device, WireGuard
from core0.mesh.model import SeenLink
from core0.wire.network import MESH_LINK_PREFIX

_KIND = "wireguard"


def observe(rtnetlink: Netlink, wireguard: WireGuard) -> tuple[SeenLink, ...]:
    """Every link of WireGuard's whose name could be ours, with its peers."""
    links = [
        link for link in rtnetlink.links() if link.kind == _KIND and link.name.startswith(MESH_LINK_PREFIX)
    ]
    addresses, routes = rtnetlink.addresses() if links else [], rtnetlink.routes() if links else []
    seen = []
    for link in links:
        device = _look(wireguard, link.index)
        if device:
            own = frozenset(one.interface for one in addresses if one.index == link.index)
            ways = frozenset(one.destination for one in routes if one.index == link.index)
            seen.append(SeenLink(link.name, link.index, link.alias, link.mtu, link.is_up, own, ways, device))
    return tuple(seen)


def look_again(seen: Iterable[SeenLink], wireguard: WireGuard) -> tuple[SeenLink, ...]:
    """The same links with their peers of now; one that went away is left out.

    A node with thousands of containers has as many links and routes: they are looked at only after a change.
    """
    devices = ((link, _look(wireguard, link.index)) for link in seen)
    return tuple(replace(link, device=device) for link, device in devices if device)


def _look(wireguard: WireGuard, index: int) -> Device | None:
    """None of a link that went away meanwhile."""
    try:
        return wireguard.device(index)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    return None
