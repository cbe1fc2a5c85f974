"""Which changes bring the node's links from what is seen to what is wanted. Pure.

The kernel changes more than it is asked to, and the plan knows: a link that is deleted takes the VLANs on it along
and leaves its members down; a bond takes a member only while that is down, and sets it up itself; VLANs follow their
link up; an IPv4 address takes along the later ones of its network, and the last one all routes (net/ipv4/devinet.c,
net/8021q/vlan.c, drivers/net/bonding/bond_main.c, net/ipv6/addrconf.c).
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from core0.links.model import (
    Action,
    AddRoute,
    Create,
    DeleteRoute,
    SeenLink,
    SetBond,
    SetDown,
    SetIpv6,
    SetMaster,
    SetMtu,
    WantedLink,
)
from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp

# Below this the kernel takes IPv6 from a link, and above gives it anew (RFC 8200, section 5).
_IPV6_MTU = 1280


def plan(wanted: Sequence[WantedLink], landscape: Sequence[SeenLink]) -> tuple[Action, ...]:
    """The actions, in order. Planning again after they were applied gives none.

    Args:
        wanted: the links as they shall be, each after those that it lies on.
        landscape: every link as it is, those of others included: they are never touched.
    """
    seen = {link.name: link for link in landscape}
    actions: list[Action] = []
    for name in _superfluous(wanted, seen):
        actions.append(DeleteLink(name))
        was_bond = seen.pop(name).kind == "bond"
        members = [other for other in seen.values() if other.master == name]
        seen |= {other.name: _released(other) if was_bond else replace(other, master="") for other in members}
    for link in wanted:
        if link.kind and link.name not in seen:
            actions.append(Create(link.name, link))
            seen[link.name] = _fresh(link)
    for link in wanted:
        held = seen.get(link.name)
        if held and held.master != link.master and held.master in seen and seen[held.master].ours:
            actions.append(SetMaster(link.name, ""))
            left_bond = seen[held.master].kind == "bond"
            seen[link.name] = _released(held) if left_bond else replace(held, master="")
    raised: set[str] = set()
    for link in wanted:
        if link.name in seen:
            own = list(_plan_link(link, seen[link.name], link.parent in raised))
            raised |= {link.name for action in own if isinstance(action, SetUp)}
            actions += own
            if link.kind == "bond" and _gets_ipv6(seen[link.name], own):
                without = [one.name for one in wanted if one.master == link.name and not one.ipv6]
                actions += [SetIpv6(name, False) for name in without if name in seen]
    return tuple(actions)


def _gets_ipv6(bond: SeenLink, actions: Sequence[Action]) -> bool:
    """Whether a bond that is there gets as large as IPv6 needs, and its members with it."""
    return 0 < bond.mtu < _IPV6_MTU and any(
        isinstance(action, SetMtu) and action.mtu >= _IPV6_MTU for action in actions
    )


def _superfluous(wanted: Sequence[WantedLink], seen: Mapping[str, SeenLink]) -> list[str]:
    """The links to delete that the config had made: those of VLANs before the links that they are on."""
    shapes = {link.name: _shape(link) for link in wanted}
    found = [link.name for link in seen.values() if link.ours and shapes.get(link.name) != _shape(link)]
    for name in found:  # it grows meanwhile
        found += [
            link.name
            for link in seen.values()
            if link.ours and link.parent == name and link.name not in found
        ]
    depths = {name: _depth(seen[name], seen) for name in found}
    return sorted(found, key=lambda name: (-depths[name], name))


def _shape(link: SeenLink | WantedLink) -> tuple[str, str, int, str]:
    """What cannot be changed of a link that is there."""
    return link.kind, link.parent, link.vlan, link.bond.mode if link.bond else ""


def _depth(link: SeenLink, seen: Mapping[str, SeenLink]) -> int:
    return 1 + _depth(seen[link.parent], seen) if link.parent in seen else 0


def _released(link: SeenLink) -> SeenLink:
    """A link that its bond let go: with the MTU that it had when it joined, as is noted on it."""
    mtu = link.mtu if link.original_mtu is None else link.original_mtu
    return replace(link, master="", is_up=False, addresses=frozenset(), routes=frozenset(), mtu=mtu)


def _fresh(link: WantedLink) -> SeenLink:
    """A link that was just made; its MTU depends on others, so it is set in any case."""
    bond = replace(link.bond, primary="") if link.bond else None
    return SeenLink(0, link.name, "", False, False, frozenset(), link.kind, ours=True, mtu=0, bond=bond)


def _plan_link(wanted: WantedLink, seen: SeenLink, follows_up: bool) -> Iterator[Action]:
    """The changes of one link; `follows_up` if the link that it is on is set up by this plan."""
    name = wanted.name
    yield from (DeleteRoute(name, route) for route in sorted(seen.routes - wanted.routes))
    deleted = sorted(seen.addresses - wanted.addresses)
    yield from (DeleteAddress(name, address) for address in deleted)
    if seen.ipv6 and not wanted.ipv6:
        yield SetIpv6(name, False)
    yield from _plan_mtu(wanted, seen)
    joins_bond = wanted.master_is_bond and seen.master != wanted.master
    if wanted.master and seen.master != wanted.master:
        yield SetMaster(name, wanted.master, wanted.master_is_bond)
    if wanted.ipv6 and seen.ipv6 is False:
        yield SetIpv6(name, True)
    if wanted.bond and wanted.bond != seen.bond:
        yield SetBond(name, wanted.bond)
    if wanted.is_up and not (seen.is_up or joins_bond):
        yield SetUp(name)
    if not wanted.is_up and (seen.is_up or follows_up):
        yield SetDown(name)
    old = frozenset[str]() if any(":" not in address for address in deleted) else seen.addresses
    routes = seen.routes if old is seen.addresses else frozenset()
    yield from (AddAddress(name, address) for address in sorted(wanted.addresses - old))
    yield from (AddRoute(name, route) for route in sorted(wanted.routes - routes))


def _plan_mtu(wanted: WantedLink, seen: SeenLink) -> Iterator[Action]:
    """A bond's member has the bond's; before it joins it gets its own again, which is noted on it."""
    original = seen.mtu if seen.original_mtu is None else seen.original_mtu
    mtu, note = wanted.mtu, None if wanted.mtu == original else original
    if wanted.master_is_bond:
        mtu, note = (None if seen.master == wanted.master else original), original
    if mtu is None:
        return
    if seen.mtu != mtu or (seen.is_card and note != seen.original_mtu):
        yield SetMtu(wanted.name, mtu, seen.is_card, note if seen.is_card else None)
    if seen.mtu < _IPV6_MTU <= mtu and not wanted.ipv6:
        yield SetIpv6(wanted.name, False)
