"""VLANs, bonds, bridges, WireGuard's links and rules of routing by rtnetlink: what no boot waits for.

Sources: include/uapi/linux/if_link.h, if_bonding.h and rtnetlink.h; Documentation/networking/bonding.rst.
"""

import socket
import struct

from core0.linux.netlink import (
    BOND_MODES,
    CONFIGURED,
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
# include/uapi/linux/fib_rules.h: struct fib_rule_hdr and its attributes
_RULE = struct.Struct("=BBBBBBBBI")
_NEWRULE, _DELRULE, _TO_TABLE, _RT_TABLE_MAIN = 32, 33, 1, 254
_FRA_SRC, _FRA_PRIORITY, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_PROTOCOL = 2, 6, 14, 15, 21
# Which rules are looked at first: these two, after that of the node's own addresses (0), before the main one (32766).
_NETWORKS, _SOURCES = 30000, 30001


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


def delete_route(
    destination: str, index: int, gateway: str | None = None, *, metric: int = 0, table: int = 0
) -> Request:
    """Take a static route."""
    return route_request(destination, index, gateway, metric=metric, table=table, delete=True)


def rule_request(version: int, source: str, table: int, *, delete: bool) -> Request:
    """Add or take a rule of routing, marked as the node's.

    Args:
        version: of IP, 4 or 6.
        source: what packets have as their source to be routed by the table; "" for all, by the main table but for its
            routes to everywhere, before the others are looked at.
        table: one of `netlink.OWN_TABLES`; the main one without a source.
        delete: take it.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    packed = socket.inet_pton(family, source) if source else b""
    body = _RULE.pack(family, 0, 8 * len(packed), 0, 0, 0, 0, _TO_TABLE, 0)
    body += number(_FRA_PRIORITY, _SOURCES if source else _NETWORKS)
    body += number(_FRA_TABLE, table if source else _RT_TABLE_MAIN) + attribute(
        _FRA_PROTOCOL, bytes([CONFIGURED])
    )
    body += attribute(_FRA_SRC, packed) if source else number(_FRA_SUPPRESS_PREFIXLEN, 0)
    kind, flags, verb = (_DELRULE, 0, "delete") if delete else (_NEWRULE, _CREATE | _EXCL, "add")
    return Request(kind, flags, body, f"cannot {verb} the rule for {source or f'all of IPv{version}'}")
