"""WireGuard's links as the kernel keeps them, for plans: what each action does to them."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp
from core0.linux.wireguard import Device, Peer, PeerChange
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
)


def applied(actions: Iterable[Action], seen: Sequence[SeenLink]) -> tuple[SeenLink, ...]:
    """The links after a plan."""
    links = {link.name: link for link in seen}
    for action in actions:
        if isinstance(action, DeleteLink):
            del links[action.link]
        elif isinstance(action, CreateLink):
            assert action.link not in links
            nothing: frozenset[str] = frozenset()
            fresh = Device(None, 0, {})
            links[action.link] = SeenLink(
                action.link, action.index, action.alias, action.mtu, False, nothing, nothing, fresh
            )
        else:
            links[action.link] = _changed(links[action.link], action)
    return tuple(links.values())


def _changed(link: SeenLink, action: Action) -> SeenLink:
    device = link.device
    match action:
        case SetMtu(_, mtu):
            return replace(link, mtu=mtu)
        case SetKey(_, _, key):
            others = {known: peer for known, peer in device.peers.items() if known != key}
            return replace(link, device=replace(device, key=key, peers=others))
        case SetPort(_, port):
            return replace(link, device=replace(device, port=port))
        case SetPeer(_, _, change):
            return replace(link, device=replace(device, peers=_set_peer(device.peers, change)))
        case Greet(_, _, key, keepalive):
            assert device.peers[key].keepalive == keepalive
            return link
        case SetUp():
            return replace(link, is_up=True)
        case _:
            return _with_ways(link, action)


def _with_ways(link: SeenLink, action: Action) -> SeenLink:
    match action:
        case AddAddress(_, address):
            return replace(link, addresses=link.addresses | {address})
        case DeleteAddress(_, address):
            return replace(link, addresses=link.addresses - {address})
        case AddRoute(_, to):
            assert link.is_up, "a route out of a link that is down is refused"
            return replace(link, routes=link.routes | {to})
        case DeleteRoute(_, to):
            return replace(link, routes=link.routes - {to})
    raise AssertionError(action)


def _set_peer(peers: dict[bytes, Peer], change: PeerChange) -> dict[bytes, Peer]:
    """A subnet that one peer gets is taken from the others."""
    if change.removed:
        return {key: peer for key, peer in peers.items() if key != change.key}
    old = peers.get(change.key, Peer(change.key))
    allowed = old.allowed if change.allowed is None else change.allowed
    others = {
        key: replace(peer, allowed=peer.allowed - allowed) for key, peer in peers.items() if key != change.key
    }
    new = replace(
        old,
        endpoint=change.endpoint or old.endpoint,
        keepalive=old.keepalive if change.keepalive is None else change.keepalive,
        allowed=allowed,
    )
    return {**others, change.key: new}
