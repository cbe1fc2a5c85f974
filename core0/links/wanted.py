"""What the node's links shall be, of the config, the leases and the cards that are there. Pure."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from core0.links.cards import fitting
from core0.links.model import Bond, Lease, Route, Rule, SeenLink, WantedLink
from core0.links.uplinks import divide

if TYPE_CHECKING:
    from core0.wire.link_config import LinkConfig

# What a bond has, and a bridge without members.
_MTU = 1500
# Of what a DHCP server says: less is no MTU of IPv4 (RFC 791), or of IPv6 (RFC 8200, section 5); more there is none.
_LEAST_MTU, _LEAST_MTU_IPV6, _LARGEST_MTU = 576, 1280, 65535
_NONE = range(0)
# Several links may have a gateway by DHCP: the first link's wins, the others stand by, and a configured one wins.
_LEASED_METRIC = 100
# The kernel's metric of an IPv6 route that none was given for (IP6_RT_PRIO_USER, include/uapi/linux/ipv6_route.h).
_IPV6_METRIC = 1024


class Wanted(msgspec.Struct, frozen=True):
    """The links as they shall be.

    Attributes:
        links: each after those that it lies on.
        dhcp: those that ask for an IPv4 address.
        waiting: what the config names and cannot be yet, with the reason.
        names: by the kernel's names what the config calls its links.
        passed_over: what leases give and is not used, with the reason, by the kernel's names.
        rules: by which tables the node's own packets are routed.
    """

    links: tuple[WantedLink, ...]
    dhcp: frozenset[str]
    waiting: Mapping[str, str]
    names: Mapping[str, str]
    passed_over: Mapping[str, str] = {}
    rules: frozenset[Rule] = frozenset()


def want(
    config: "Mapping[str, LinkConfig]", leases: Mapping[int, Lease], landscape: Sequence[SeenLink]
) -> Wanted:
    """What shall be.

    Args:
        config: the links of a config that was checked, by the names that it gives them.
        leases: by the links' numbers.
        landscape: every link of the node, those of others included.
    """
    names, waiting = _find(config, landscape)
    found = _Landscape(config, names, landscape)
    lessee = _Lessee(leases, landscape)
    free = [
        lessee.equip(WantedLink(link.name, mtu=link.original_mtu), found.free_mtus(link))
        for link in landscape
        if found.is_free(link)
    ]
    made: dict[str, WantedLink] = {}
    asking = {link.name for link in free}
    for name in names:
        made[name] = found.want(name, made)
        if config[name].asks_dhcp4 and found.may_ask(name, made[name]):
            asking.add(names[name])
            made[name] = lessee.equip(made[name], found.mtus(name, made[name]))
    called = {kernel: name for name, kernel in names.items()}
    links, rules = divide((*free, *made.values()))
    return Wanted(links, frozenset(asking), waiting, called, lessee.passed_over, rules)


class _Lessee:
    """Who has the leases of the links.

    Args:
        leases: by the links' numbers.
        landscape: the links that are there.
    """

    def __init__(self, leases: Mapping[int, Lease], landscape: Sequence[SeenLink]) -> None:
        self._indexes = {link.name: link.index for link in landscape}
        self._leases = leases
        self.passed_over: dict[str, str] = {}

    def equip(self, link: WantedLink, mtus: range) -> WantedLink:
        """A link with what its lease gives it, if it has one; an MTU only if it is one of `mtus`."""
        index = self._indexes.get(link.name, 0)
        lease = self._leases.get(index)
        if lease is None:
            return link
        default = {Route("0.0.0.0/0", lease.gateway, _LEASED_METRIC + index)} if lease.gateway else set()
        if lease.mtu is not None and lease.mtu not in mtus and mtus:
            said = f"the MTU of {lease.mtu} that the DHCP server {lease.server} gives is not used"
            bounds = f"it must be {mtus.start} to {mtus[-1]} here"
            self.passed_over[link.name] = f"{said}: {bounds}; correct the server's option 26"
        return msgspec.structs.replace(
            link,
            addresses=link.addresses | {lease.address},
            routes=link.routes | default,
            mtu=lease.mtu if lease.mtu in mtus else link.mtu,
        )


def _find(
    config: "Mapping[str, LinkConfig]", landscape: Sequence[SeenLink]
) -> tuple[dict[str, str], dict[str, str]]:
    """The kernel's names of the links that can be, lower ones first; of the others the reasons."""
    names: dict[str, str] = {}
    waiting: dict[str, str] = {}
    strangers = {link.name for link in landscape if not link.ours}
    for name in _lower_first(config):
        link = config[name]
        if link.select:
            cards = [card.name for card in fitting(link.select, landscape)]
            if len(cards) != 1:
                waiting[name] = f"{len(cards)} cards fit it" if cards else "no card that is there fits it"
            elif cards[0] in names.values():
                waiting[name] = f"its card {cards[0]} is another link's"
            else:
                names[name] = cards[0]
        elif name in strangers:
            waiting[name] = "there is a link of its name, which the node did not make"
        elif link.vlan and link.vlan.link not in names:
            waiting[name] = f"its link {link.vlan.link} waits"
        else:
            names[name] = name
    return names, waiting


def _lower_first(config: "Mapping[str, LinkConfig]") -> Iterator[str]:
    """Each link after those that it lies on."""
    done: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name in done:
            return
        done.add(name)
        for lower in config[name].below:
            yield from visit(lower)
        yield name

    for name in config:
        yield from visit(name)


class _Landscape:
    """The links that a config meets.

    Args:
        config: the links of the config.
        names: the kernel's names of those that can be.
        landscape: the links that are there.
    """

    def __init__(
        self, config: "Mapping[str, LinkConfig]", names: Mapping[str, str], landscape: Sequence[SeenLink]
    ) -> None:
        self._config = config
        self._names = names
        self._seen = {link.name: link for link in landscape}
        self._masters = {member: name for name in names for member in config[name].members if member in names}

    def is_free(self, link: SeenLink) -> bool:
        """Whether this is a card that the config does not name."""
        return link.is_card and link.name not in self._names.values()

    def may_ask(self, name: str, link: WantedLink) -> bool:
        """Whether a link is up and no member of another."""
        return link.is_up and name not in self._masters

    def free_mtus(self, link: SeenLink) -> range:
        """Which MTUs a lease may give a card that the config does not name."""
        return range(_LEAST_MTU_IPV6, (link.largest_mtu or _LARGEST_MTU) + 1)

    def mtus(self, name: str, link: WantedLink) -> range:
        """Which MTUs a lease may give a link: none where the config says it.

        Only a card's can grow. VLANs above have room for what the config says of them.
        """
        own = self._config[name]
        if own.mtu is not None:
            return _NONE
        most = link.mtu
        if own.select:
            most = self._seen[link.name].largest_mtu
        above = [own, *self._above(name)]
        least = _LEAST_MTU_IPV6 if any(one.ipv6 == "auto" for one in above) else _LEAST_MTU
        return range(max(least, *(one.mtu or 0 for one in above)), (most or _LARGEST_MTU) + 1)

    def _above(self, name: str) -> "Iterator[LinkConfig]":
        """The VLANs on a link, and those on them."""
        for other, link in self._config.items():
            if link.vlan and link.vlan.link == name:
                yield link
                yield from self._above(other)

    def want(self, name: str, lower: Mapping[str, WantedLink]) -> WantedLink:
        """One link; those that it lies on are known."""
        link, master = self._config[name], self._masters.get(name, "")
        is_up = link.up and (not link.vlan or lower[link.vlan.link].is_up)
        return WantedLink(
            self._names[name],
            kind=link.kind,
            parent=self._names[link.vlan.link] if link.vlan else "",
            vlan=link.vlan.id if link.vlan else 0,
            bond=self._bond(link),
            master=self._names[master] if master else "",
            master_is_bond=bool(master and self._config[master].bond),
            mtu=self._mtu(name, lower),
            is_up=is_up,
            ipv6=link.ipv6 == "auto",
            addresses=frozenset(map(canonical, link.addresses)) if is_up else frozenset(),
            routes=frozenset(_routes(link)) if is_up else frozenset(),
        )

    def _bond(self, link: "LinkConfig") -> Bond | None:
        if not link.bond:
            return None
        return Bond(link.bond.mode, link.bond.miimon, self._names.get(link.bond.primary or "", ""))

    def _mtu(self, name: str, lower: Mapping[str, WantedLink]) -> int | None:
        """What the config says; else a card's own, a VLAN's link's, the least of a bridge's members."""
        link = self._config[name]
        if link.mtu is not None:
            return link.mtu
        if link.select:
            return self._seen[self._names[name]].original_mtu
        if link.bond:
            return _MTU
        return min((self._effective(lower[other]) for other in link.below if other in lower), default=_MTU)

    def _effective(self, link: WantedLink) -> int:
        return self._seen[link.name].mtu if link.mtu is None else link.mtu


def _routes(link: "LinkConfig") -> Iterator[Route]:
    for route in link.routes:
        metric = route.metric or (_IPV6_METRIC if ":" in route.to else 0)
        yield Route(canonical(route.to), _canonical_address(route.via) if route.via else "", metric)


def canonical(text: str) -> str:
    """An address with its prefix length as the kernel writes it."""
    address, _, length = text.partition("/")
    return f"{_canonical_address(address)}/{int(length)}"


def _canonical_address(text: str) -> str:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, text))
