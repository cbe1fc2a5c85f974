"""Which changes bring the links of meshes from what is seen to what is wanted. Pure.

A subnet belongs to one peer of a link: giving it to one takes it from another (allowedips.c). A peer with two keys is
two peers to the kernel, and the one that shook hands last has the subnets: so it changes its key whenever it likes,
and its flows follow within the second that the manager needs to see it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp
from core0.linux.wireguard import Peer, PeerChange
from core0.mesh.model import (
    Action,
    AddRoute,
    CreateLink,
    DeleteRoute,
    Greet,
    SeenLink,
    SetKey,
    SetMtu,
    SetPeer,
    SetPort,
    WantedLink,
    WantedPeer,
)

# Of a peer whose key is to change: either key is tried, so that the one in use is known soon.
_TRYING = 25


def plan(
    wanted: Sequence[WantedLink], seen: Sequence[SeenLink], moved: Collection[bytes] = ()
) -> tuple[Action, ...]:
    """The actions, in order. Planning again after they were applied gives none.

    Args:
        wanted: the links as they shall be.
        seen: every link of WireGuard's as it is; those of others are never touched.
        moved: keys of peers that are to be sent to where they are wanted; the others stay where their packets come
            from.
    """
    known = {link.name: link for link in seen if link.ours}
    names = {link.name: link for link in wanted}
    actions: list[Action] = [
        DeleteLink(name) for name, link in known.items() if not _is_same(names.get(name), link)
    ]
    for link in wanted:
        held = known.get(link.name)
        actions += _plan_link(link, held if held and _is_same(link, held) else None, moved)
    return tuple(actions)


def active_key(keys: Sequence[bytes], peers: Mapping[bytes, Peer]) -> bytes:
    """The key of a peer that is in use: of the newest handshake; the first one before there was any."""

    def handshake(key: bytes) -> float:
        return peers[key].handshake if key in peers else 0.0

    return max(keys, key=handshake)


def _is_same(wanted: WantedLink | None, seen: SeenLink) -> bool:
    return wanted is not None and (wanted.alias, wanted.index) == (seen.alias, seen.index)


def _plan_link(link: WantedLink, seen: SeenLink | None, moved: Collection[bytes]) -> Iterator[Action]:
    name = link.name
    if seen is None:
        yield CreateLink(name, link.index, link.mtu, link.alias)
    elif seen.mtu != link.mtu:
        yield SetMtu(name, link.mtu)
    peers = seen.device.peers if seen else {}
    is_new_key = seen is None or seen.device.key != link.key
    if is_new_key:
        yield SetKey(name, link.network, link.key)
        peers = {key: peer for key, peer in peers.items() if key != link.key}
    if seen is None or seen.device.port != link.port:
        yield SetPort(name, link.port)
    yield from _plan_peers(link, peers, moved)
    addresses, routes = (seen.addresses, seen.routes) if seen else (frozenset[str](), frozenset[str]())
    yield from (DeleteAddress(name, one) for one in sorted(addresses - link.addresses))
    yield from (AddAddress(name, one) for one in sorted(link.addresses - addresses))
    yield from (DeleteRoute(name, one) for one in sorted(routes - link.routes))
    if seen is None or not seen.is_up:
        yield SetUp(name)
        routes = frozenset()  # the kernel took them with its going down
    yield from (AddRoute(name, one) for one in sorted(link.routes - routes))
    if seen and is_new_key:
        yield from _greet(link)


def _plan_peers(link: WantedLink, seen: Mapping[bytes, Peer], moved: Collection[bytes]) -> Iterator[SetPeer]:
    known = {key for peer in link.peers.values() for key in peer.keys}
    for key in sorted(seen.keys() - known):
        yield SetPeer(link.name, "a peer", PeerChange(key, removed=True))
    for name, peer in sorted(link.peers.items()):
        active = active_key(peer.keys, seen)
        for key in sorted(peer.keys, key=lambda one: one != active):
            subnets = peer.subnets if key == active else frozenset[str]()
            change = _change_of(key, peer, subnets, seen.get(key), key in moved)
            if change:
                yield SetPeer(link.name, name, change)


def keepalive_of(peer: WantedPeer) -> int:
    """Seconds between packets to a peer that keep its way open; 0 for none."""
    return peer.keepalive or (_TRYING if len(peer.keys) > 1 else 0)


def _change_of(
    key: bytes, peer: WantedPeer, subnets: frozenset[str], seen: Peer | None, is_moved: bool
) -> PeerChange | None:
    """What is to be told of one key; None if the kernel knows it all."""
    keepalive = keepalive_of(peer)
    if seen is None:
        return PeerChange(key, peer.endpoint, keepalive, subnets)
    goes = peer.endpoint is not None and seen.endpoint != peer.endpoint and (is_moved or not seen.endpoint)
    change = PeerChange(
        key,
        peer.endpoint if goes else None,
        keepalive if keepalive != seen.keepalive else None,
        subnets if subnets != seen.allowed else None,
    )
    return change if change != PeerChange(key) else None


def _greet(link: WantedLink) -> Iterator[Greet]:
    for name, peer in sorted(link.peers.items()):
        yield from (Greet(link.name, name, key, keepalive_of(peer)) for key in peer.keys)
