"""What the link of a mesh shall be, from what the operator wished and what the node knows. Pure."""

from collections.abc import Callable, Iterator, Mapping

from core0.linux.wireguard import Endpoint
from core0.mesh.model import Kept, Span, WantedLink, WantedPeer
from core0.wire.mesh import MeshPeer, MeshSpec, parse_key
from core0.wire.network import packed
from core0.wire.subnets import parse_interface, parse_part, parse_subnet

# Where an endpoint is now; None if nobody knows.
Locate = Callable[[str], Endpoint | None]
# The node's own address in its part of a mesh; containers' numbers begin behind it.
_NODE = 1


def want(network: str, kept: Kept, span: Span, locate: Locate) -> WantedLink:
    """The link of a network's mesh."""
    own = tuple(_own_subnets(span))
    return WantedLink(
        kept.link,
        kept.index,
        network,
        span.spec.mtu,
        kept.port,
        parse_key(kept.key.public),
        addresses=frozenset(f"{subnet.address(_NODE)}/{subnet.bits}" for subnet in map(parse_subnet, own)),
        routes=frozenset(str(parse_subnet(text)) for text in (span.spec.ipv4, span.spec.ipv6) if text),
        peers=_peers(span.spec, locate),
    )


def _own_subnets(span: Span) -> Iterator[str]:
    """This node's part of the mesh, of each family that spans nodes."""
    if span.spec.ipv4:
        yield span.ipv4
    if span.spec.ipv6:
        yield span.ipv6


def _peers(spec: MeshSpec, locate: Locate) -> dict[str, WantedPeer]:
    """The peers that this node talks to itself, with the subnets of those behind them."""
    subnets: dict[str, set[str]] = {}
    for name, peer in spec.peers.items():
        subnets.setdefault(reached_by(name, spec.peers), set()).update(subnets_of(peer))
    return {
        name: WantedPeer(
            tuple(map(parse_key, peer.public_keys)),
            _outside(locate(peer.endpoint), spec) if peer.endpoint else None,
            peer.keepalive or 0,
            frozenset(subnets[name]),
        )
        for name, peer in spec.peers.items()
        if not peer.via
    }


def _outside(endpoint: Endpoint | None, spec: MeshSpec) -> Endpoint | None:
    """An endpoint, if it is not within the mesh itself: a name server may say anything."""
    return endpoint if endpoint and not is_within(endpoint[0], spec) else None


def subnets_of(peer: MeshPeer) -> tuple[str, ...]:
    """A peer's addresses in the mesh, of one family or both."""
    return tuple(str(parse_part(text)) for text in (peer.ipv4, peer.ipv6) if text)


def reached_by(name: str, peers: Mapping[str, MeshPeer]) -> str:
    """The peer that this node sends to for another, which may be that one itself. There is no loop (`checks`)."""
    while via := peers[name].via:
        name = via
    return name


def is_within(host: str, spec: MeshSpec) -> bool:
    """Whether a host is an address of the mesh: its packets would go round in it for ever."""
    if packed(host) is None:
        return False
    address, _ = parse_interface(f"{host}/{128 if ':' in host else 32}")
    return any(parse_subnet(text).overlaps(address) for text in (spec.ipv4, spec.ipv6) if text)
