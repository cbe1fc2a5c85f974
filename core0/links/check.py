"""What a config asks of the node's links and cannot be: each refusal with its cause, the field and the remedy. Pure.

A card that is not plugged is no reason to refuse a config: its link waits for it, and is told to wait.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from core0.links.cards import fitting
from core0.links.model import SeenLink
from core0.wire.control import RefusedError, conflict, invalid
from core0.wire.link_config import (
    LARGEST_MTU,
    LARGEST_VLAN,
    LEAST_MTU,
    LEAST_MTU_IPV6,
    MOST_LINKS,
    LinkConfig,
    NetworkConfig,
    RouteConfig,
)
from core0.wire.network import CONTAINER_LINK_PREFIX, MESH_LINK_PREFIX

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Links = Mapping[str, LinkConfig]

_NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})
_KINDS = ("select", "vlan", "bond", "bridge")
# The kernel's own, and how the node calls the links of containers and of meshes.
_RESERVED, _RESERVED_PREFIX = ("lo", "all", "default"), (CONTAINER_LINK_PREFIX, MESH_LINK_PREFIX)
# What the kernel takes for bonds (drivers/net/bonding/bond_options.c), as far as it makes sense.
_ETHERNET_MTU = 1500
_LEAST_MIIMON, _LARGEST_MIIMON = 10, 10_000


def check(
    config: NetworkConfig, landscape: Sequence[SeenLink], taken: Mapping[str, Sequence[str]] = _NOTHING
) -> None:
    """Refuse what can never be, or not with the links that this machine has now.

    Args:
        config: what shall be.
        landscape: every link of the node, those of others included.
        taken: subnets that no link may touch, by whose they are.

    Raises:
        RefusedError: with the field.
    """
    links = config.links
    if len(links) > MOST_LINKS:
        raise _wrong(f"{len(links)} links are too many", f"name {MOST_LINKS} at most", "/network/links")
    for name, link in links.items():
        _check_link(name, link)
    _check_joins(links)
    _check_loops(links)
    for name, link in links.items():
        _check_membership(name, links)
        _check_mtu(name, link, links)
        _check_routes(name, link)
    _check_overlaps(links, taken)
    _check_same_routes(links)
    _check_landscape(links, landscape)


def _wrong(said: str, remedy: str, pointer: str) -> RefusedError:
    return invalid(f"cannot use the config: {said}", remedy, pointer)


def _at(name: str, *fields: object) -> str:
    return "/".join(("/network/links", name, *map(str, fields)))


def _check_link(name: str, link: LinkConfig) -> None:
    """What is wrong with a link by itself."""
    if name in _RESERVED or name.startswith(_RESERVED_PREFIX):
        whose = "the kernel's, or of a container's link or a mesh's"
        said = f"no link of the node can be called {name}: that is a name of {whose}"
        raise _wrong(said, "choose another name", _at(name))
    given = [kind for kind in _KINDS if getattr(link, kind) is not None]
    if len(given) != 1:
        said = f"link {name} has {' and '.join(given) or 'none of select, vlan, bond, bridge'}"
        raise _wrong(said, "give exactly one of select, vlan, bond, bridge", _at(name, *given[1:2]))
    if link.select and not (link.select.mac or link.select.driver or link.select.path):
        raise _wrong(f"link {name} selects every card", "give mac, driver or path", _at(name, "select"))
    _check_kind(name, link)
    _check_addresses(name, link)
    for number, server in enumerate(link.nameservers):
        _address(server, _at(name, "nameservers", number))


def _check_kind(name: str, link: LinkConfig) -> None:
    if link.vlan and not 1 <= link.vlan.id <= LARGEST_VLAN:
        said = f"{link.vlan.id} is no VLAN's number"
        raise _wrong(said, f"use one from 1 to {LARGEST_VLAN}", _at(name, "vlan/id"))
    if link.bond is None:
        return
    if not link.bond.members:
        raise _wrong(f"bond {name} has no members", "name its cards", _at(name, "bond/members"))
    if not _LEAST_MIIMON <= link.bond.miimon <= _LARGEST_MIIMON:
        said = f"{link.bond.miimon} ms between looks at carriers is too often or too rare"
        raise _wrong(said, f"use {_LEAST_MIIMON} to {_LARGEST_MIIMON}", _at(name, "bond/miimon"))
    if link.bond.primary is None:
        return
    if link.bond.mode != "active-backup":
        said = f"a bond of mode {link.bond.mode} has no primary member"
        raise _wrong(said, "leave it out, or use mode active-backup", _at(name, "bond/primary"))
    if link.bond.primary not in link.bond.members:
        said = f"{link.bond.primary} is no member of bond {name}"
        raise _wrong(said, f"use one of {', '.join(link.bond.members)}", _at(name, "bond/primary"))


def _check_addresses(name: str, link: LinkConfig) -> None:
    seen: set[str] = set()
    for number, text in enumerate(link.addresses):
        pointer = _at(name, "addresses", number)
        interface = _interface(text, pointer)
        if str(interface.ip) in seen:
            raise _wrong(f"link {name} has address {interface.ip} twice", "give it once", pointer)
        seen.add(str(interface.ip))
        if interface.version == 6 and link.ipv6 == "off":
            said = f"link {name} has IPv6 off and the IPv6 address {text}"
            raise _wrong(said, "take the address out, or IPv6 on", pointer)


def _interface(text: str, pointer: str) -> Interface:
    """An address of a host with the length of its network's prefix."""
    remedy = "write it as 192.0.2.7/24 or 2001:db8::7/64"
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        raise _wrong(f"{text[:64]!a} is no address with a prefix length", remedy, pointer) from None
    if "/" not in text or "%" in text or not text.rpartition("/")[2].isdecimal():
        raise _wrong(f"{text[:64]!a} has no prefix length", remedy, pointer)
    network = found.network
    edge = {network.network_address, network.broadcast_address} if found.version == 4 else set()
    whole = network.prefixlen < network.max_prefixlen - 1
    if (
        found.ip.is_multicast
        or found.ip.is_unspecified
        or found.ip.is_loopback
        or (whole and found.ip in edge)
    ):
        raise _wrong(f"{text} is no address of one host", "use an address of a host", pointer)
    return found


def _address(text: str, pointer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        found = None
    if found is None or "%" in text or found.is_multicast or found.is_unspecified:
        remedy = "write it as 192.0.2.1 or 2001:db8::1"
        raise _wrong(f"{text[:64]!a} is no address of a host", remedy, pointer)
    return found


def _check_joins(links: Links) -> None:
    """Whom links name must be there, and belong to one bond or bridge alone."""
    owners: dict[str, str] = {}
    tags: dict[tuple[str, int], str] = {}
    for name, link in links.items():
        if link.vlan:
            pointer = _at(name, "vlan/link")
            _need(link.vlan.link, links, pointer)
            other = tags.setdefault((link.vlan.link, link.vlan.id), name)
            if other != name:
                said = f"{other} and {name} are both VLAN {link.vlan.id} of {link.vlan.link}"
                raise _wrong(said, "give one of them another number", _at(name, "vlan/id"))
        for pointer, member in _named_members(name, link):
            _need(member, links, pointer)
            if member in owners:
                said = f"{member} is a member of {owners[member]} already"
                raise _wrong(said, "name it as a member of one link, once", pointer)
            owners[member] = name


def _named_members(name: str, link: LinkConfig) -> Iterator[tuple[str, str]]:
    """Each member with the pointer to it."""
    kind = "bond" if link.bond else "bridge"
    for number, member in enumerate(link.members):
        yield _at(name, kind, "members", number), member


def _need(name: str, links: Links, pointer: str) -> None:
    if name not in links:
        known = ", ".join(links)
        raise _wrong(f"the config has no link {name}", f"use one of {known}, or give it a section", pointer)


def _check_loops(links: Links) -> None:
    """No link lies on itself, directly or by others."""
    sound: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            said = f"{' on '.join((*way[way.index(name) :], name))} is a loop"
            raise _wrong(said, "let no link lie on itself", _at(way[-1]))
        if name in sound:
            return
        for lower in links[name].below:
            visit(lower, (*way, name))
        sound.add(name)

    for name in links:
        visit(name, ())


def _check_membership(name: str, links: Links) -> None:
    """What members cannot be, and what is their bond's or bridge's to have."""
    link = links[name]
    for pointer, member in _named_members(name, link):
        other = links[member]
        if link.bond and not other.select:
            said = f"{member} is no card, and only cards can be members of a bond"
            raise _wrong(said, "name links with select", pointer)
        if other.bridge:
            raise _wrong(f"bridge {member} cannot be a member of {name}", "name another link", pointer)
        for field in ("addresses", "routes", "nameservers", "dhcp4"):
            if getattr(other, field):
                said = f"{member} is a member of {name} and has {field} of its own"
                raise _wrong(said, f"give them to {name}", _at(member, field))
        if not other.up:
            said = f"{member} is a member of {name} and shall be down"
            raise _wrong(said, f"take it out of {name}'s members", _at(member, "up"))
        if link.bond and other.mtu is not None:
            said = f"{member} is a member of bond {name}, whose MTU it has"
            raise _wrong(said, f"give the MTU to {name}", _at(member, "mtu"))
        if link.bond:
            _refuse_vlan_on(member, name, links)


def _refuse_vlan_on(member: str, bond: str, links: Links) -> None:
    for name, link in links.items():
        if link.vlan and link.vlan.link == member:
            said = f"VLAN {name} is on {member}, which is a member of bond {bond}"
            raise _wrong(said, f"put it on {bond}", _at(name, "vlan/link"))


def _check_mtu(name: str, link: LinkConfig, links: Links) -> None:
    pointer, mtu = _at(name, "mtu"), _mtu(name, links)
    if not LEAST_MTU <= mtu <= LARGEST_MTU:
        remedy = f"use {LEAST_MTU} to {LARGEST_MTU}, and at least {LEAST_MTU_IPV6} with IPv6"
        raise _wrong(f"link {name} cannot have an MTU of {mtu}", remedy, pointer)
    if mtu < LEAST_MTU_IPV6 and link.ipv6 != "off":
        said = f"IPv6 needs an MTU of {LEAST_MTU_IPV6}, and {name} shall have {mtu}"
        raise _wrong(said, 'raise it, or give the link ipv6 = "off"', pointer)
    most = _mtu(link.vlan.link, links) if link.vlan else mtu
    if link.vlan and mtu > most:
        said = f"VLAN {name} cannot have an MTU of {mtu}: {link.vlan.link} has {most}"
        raise _wrong(said, f"lower it, or raise that of {link.vlan.link}", pointer)


def _mtu(name: str, links: Links) -> int:
    """What a link will have; cards that the config says nothing of are taken to have what Ethernet has."""
    link = links[name]
    if link.mtu is not None:
        return link.mtu
    below = () if link.bond else link.below
    return min((_mtu(lower, links) for lower in below), default=_ETHERNET_MTU)


def _check_routes(name: str, link: LinkConfig) -> None:
    subnets = [ipaddress.ip_interface(text).network for text in link.addresses]
    for number, route in enumerate(link.routes):
        pointer = _at(name, "routes", number)
        network = _network(route.to, f"{pointer}/to")
        if route.via is None and network in subnets:
            said = f"{route.to} is what {name}'s address is in: the kernel has that route by itself"
            raise _wrong(said, "leave it out", f"{pointer}/to")
        if network.version == 6 and link.ipv6 == "off":
            raise _wrong(f"link {name} has IPv6 off and an IPv6 route", "leave it out", f"{pointer}/to")
        if route.via is not None:
            _check_gateway(name, link, route, route.via, f"{pointer}/via")


def _network(text: str, pointer: str) -> Network:
    try:
        whole = ipaddress.ip_network(text, strict=False)
    except ValueError:
        whole = None
    if whole is None or not text.rpartition("/")[2].isdecimal() or "/" not in text or "%" in text:
        raise _wrong(f"{text[:64]!a} is no network", "write it as 192.0.2.0/24 or 2001:db8::/32", pointer)
    if whole.network_address != ipaddress.ip_interface(text).ip:
        raise _wrong(f"{text} is an address within a network", f"write {whole}", pointer)
    if whole.is_multicast or whole.is_loopback:
        raise _wrong(f"{text} cannot be routed", "use a network of hosts", pointer)
    return whole


def _check_gateway(name: str, link: LinkConfig, route: RouteConfig, via: str, pointer: str) -> None:
    """Refuse a gateway that cannot be, or that nobody can say the way to."""
    gateway, version = _address(via, pointer), 6 if ":" in route.to else 4
    if gateway.version != version:
        said = f"gateway {via} and network {route.to} are of two protocols"
        raise _wrong(said, f"use an IPv{version} gateway", pointer)
    interfaces = [ipaddress.ip_interface(text) for text in link.addresses]
    if any(gateway == interface.ip for interface in interfaces):
        said = f"gateway {via} is an address of {name} itself: the route is a loop"
        raise _wrong(said, "use the router's address", pointer)
    learns = link.asks_dhcp4 if version == 4 else link.ipv6 == "auto"
    near = gateway.is_link_local or any(gateway in interface.network for interface in interfaces)
    if not (near or learns or route.onlink):
        said = f"gateway {via} is in no subnet of {name}"
        raise _wrong(said, "give the link an address of its subnet, or the route onlink = true", pointer)


def _check_overlaps(links: Links, others: Mapping[str, Sequence[str]]) -> None:
    """Of two links with one subnet the kernel would answer by either, so the subnets must differ."""
    taken = [(whose, ipaddress.ip_network(text)) for whose, subnets in others.items() for text in subnets]
    for name, link in links.items():
        own = []
        for number, text in enumerate(link.addresses):
            network = ipaddress.ip_interface(text).network
            for other, subnet in taken:
                if network.version == subnet.version and network.overlaps(subnet):
                    said = f"{network} of {name} and {subnet} of {other} overlap"
                    raise _wrong(said, "give each link a subnet of its own", _at(name, "addresses", number))
            if not network.is_link_local:
                own.append((name, network))
        taken += own


def _check_same_routes(links: Links) -> None:
    """Of two routes with one metric to one network the kernel would take the later for the only one."""
    taken: dict[tuple[Network, int], str] = {}
    for name, link in links.items():
        for number, route in enumerate(link.routes):
            key = ipaddress.ip_network(route.to), route.metric or 0
            if key in taken:
                said = f"{route.to} is routed twice with one metric, by {taken[key]} and by {name}"
                raise _wrong(said, "give one of them a higher metric", _at(name, "routes", number))
            taken[key] = name


def _check_landscape(links: Links, landscape: Sequence[SeenLink]) -> None:
    """What does not go with the links that are there now."""
    cards: dict[str, str] = {}
    strangers = {link.name for link in landscape if not link.ours}
    for name, link in links.items():
        if not link.select:
            if name in strangers:
                said = f"the name {name} is taken: there is such a link, and the node did not make it"
                raise conflict(f"cannot use the config: {said}", "choose another name", _at(name))
            continue
        found = fitting(link.select, landscape)
        if len(found) > 1:
            fits = ", ".join(f"{card.name} ({card.hardware})" for card in found)
            said = f"{len(found)} cards fit link {name}: {fits}"
            raise conflict(f"cannot use the config: {said}", "select by mac or path", _at(name, "select"))
        for card in found:
            other = cards.setdefault(card.name, name)
            if other != name:
                said = f"links {other} and {name} select one card, {card.name}"
                raise conflict(f"cannot use the config: {said}", "leave one of them out", _at(name, "select"))
