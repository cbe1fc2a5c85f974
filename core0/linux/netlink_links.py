"""VLANs, bonds, bridges and WireGuard's links by rtnetlink, and the changes of links that no boot waits for.

Sources: include/uapi/linux/if_link.h, if_bonding.h and rtnetlink.h; Documentation/networking/bonding.rst.
"""

import struct

from core0.linux.netlink import (
    BOND_MODES,
    IFF_UP,
    NEW_LINK,
    Request,
    attribute,
    link_body,
    link_kind,
    number,
    route_request,
    text,
)

_CREATE, _EXCL = 0x400, 0x200
_IFLA_LINK, _IFLA_MASTER, _IFLA_IFALIAS = 5, 10, 20
_VLAN_ID = 1
_BOND_MODE, _BOND_MIIMON, _BOND_PRIMARY = 1, 3, 11


def set_down(index: int) -> Request:
    """Set a link down."""
    return Request(NEW_LINK, 0, link_body(index, change=IFF_UP), f"cannot set link {index} down")


def set_alias(index: int, alias: str) -> Request:
    """Note something on a link, which the kernel keeps as long as the link is there; "" takes it away."""
    body = link_body(index) + attribute(_IFLA_IFALIAS, alias.encode())
    return Request(NEW_LINK, 0, body, f"cannot set the alias of link {index}")


def set_master(index: int, master: int) -> Request:
    """Make a link a member of a bond or a bridge; of none with 0."""
    doing = (
        f"cannot make link {index} a member of link {master}" if master else f"cannot release link {index}"
    )
    return Request(NEW_LINK, 0, link_body(index) + number(_IFLA_MASTER, master), doing)


def add_vlan(name: str, parent: int, vlan: int) -> Request:
    """Make a VLAN on another link."""
    data = attribute(_VLAN_ID, struct.pack("=H", vlan))
    return _creation(name, "vlan", data, number(_IFLA_LINK, parent))


def add_bond(name: str, mode: str, miimon: int) -> Request:
    """Make a bond; milliseconds between looks at its members' carriers."""
    code = next(code for code, known in BOND_MODES.items() if known == mode)
    data = attribute(_BOND_MODE, bytes([code])) + number(_BOND_MIIMON, miimon)
    return _creation(name, "bond", data)


def add_bridge(name: str) -> Request:
    """Make a bridge without members."""
    return _creation(name, "bridge", b"")


def add_wireguard(name: str, index: int, mtu: int) -> Request:
    """Make a link of WireGuard's, with a number of the caller's choice; `core0.linux.wireguard` does the rest."""
    body = link_body(index) + text(3, name) + number(4, mtu) + link_kind("wireguard", b"")
    return Request(NEW_LINK, _CREATE | _EXCL, body, f"cannot create wireguard {name}")


def set_bond(index: int, miimon: int, primary: int | None) -> Request:
    """Set how a bond looks at carriers, and its preferred member (0 for none); None where its mode has none."""
    data = number(_BOND_MIIMON, miimon)
    data += b"" if primary is None else number(_BOND_PRIMARY, primary)
    return Request(NEW_LINK, 0, link_body(index) + link_kind("bond", data), f"cannot set bond {index}")


def _creation(name: str, kind: str, data: bytes, more: bytes = b"") -> Request:
    body = link_body(0) + text(3, name) + more + link_kind(kind, data)
    return Request(NEW_LINK, _CREATE | _EXCL, body, f"cannot create {kind} {name}")


def delete_route(destination: str, index: int, gateway: str | None = None, *, metric: int = 0) -> Request:
    """Take a static route."""
    return route_request(destination, index, gateway, metric=metric, delete=True)
