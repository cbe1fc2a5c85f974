"""Which wishes for meshes can be granted; the others are refused by their field, and nothing is changed. Pure."""

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise

from core0.mesh.endpoint import parse_endpoint
from core0.mesh.model import Span
from core0.mesh.wanted import is_within
from core0.wire.control import RefusedError, conflict, invalid
from core0.wire.mesh import MeshPeer, parse_key
from core0.wire.subnets import Subnet, parse_part, parse_subnet

_FAMILIES = ("ipv4", "ipv6")
_LONGEST_KEEPALIVE = 65535
_KEYS = 2


def check_mesh(span: Span, own_keys: Collection[str], hosts: Mapping[str, str]) -> None:
    """Refuse a mesh that can never be (422), or not with what is in the network now (409).

    Args:
        span: the wish, whose subnets were checked like a network's, and the network's own.
        own_keys: public keys of this node.
        hosts: the containers of the network by their addresses.
    """
    _check_whole(span)
    peers = span.spec.peers
    for name, peer in peers.items():
        _check_keys(name, peer, own_keys)
        _check_reach(name, peer, span)
        _check_via(name, peers)
    _check_distinct(peers)
    _check_parts(span, hosts)


def _check_whole(span: Span) -> None:
    if not (span.spec.ipv4 or span.spec.ipv6):
        raise invalid("cannot span nodes: the mesh has no subnet", "give mesh.ipv4 or mesh.ipv6", "/mesh")
    for family, own in zip(_FAMILIES, (span.ipv4, span.ipv6), strict=True):
        text = getattr(span.spec, family)
        if text is None:
            continue
        whole = parse_subnet(text)
        if not whole.holds(parse_subnet(own)) or str(whole) == own:
            detail = f"cannot span nodes: the network's own subnet {own} is not a part of the mesh {whole}"
            remedy = "give the network a subnet within the mesh's, another one on each node"
            raise invalid(detail, remedy, f"/{family}")


def _subnet(text: str, family: str, pointer: str) -> Subnet:
    """A subnet of a family. Raises RefusedError (422)."""
    try:
        subnet = parse_part(text)
    except ValueError as error:
        detail = f"cannot use subnet {text[:64]!a}: {error}"
        raise invalid(detail, "write it as 10.60.2.0/24 or fd60:0:0:2::/64", pointer) from None
    if (":" in text) != (family == "ipv6"):
        detail = f"cannot use subnet {text} as {family}: it is of the other family"
        raise invalid(detail, "exchange the two", pointer)
    return subnet


def _at(name: str, *fields: str) -> str:
    return "/".join(("/mesh/peers", name, *fields))


def _check_keys(name: str, peer: MeshPeer, own_keys: Collection[str]) -> None:
    if not 1 <= len(peer.public_keys) <= _KEYS:
        detail = f"cannot know peer {name} by {len(peer.public_keys)} keys"
        raise invalid(detail, "give one public key, or two while it changes", _at(name, "public_keys"))
    for index, text in enumerate(peer.public_keys):
        pointer = _at(name, "public_keys", str(index))
        try:
            parse_key(text)
        except ValueError as error:
            detail = f"cannot use {text[:64]!a} as the public key of peer {name}: {error}"
            raise invalid(detail, "'zn network show' on its node shows it", pointer) from None
        if text in own_keys:
            detail = f"cannot use {text} as the public key of peer {name}: it is this node's own"
            raise invalid(detail, "a node is no peer of itself: leave it out", pointer)


def _check_reach(name: str, peer: MeshPeer, span: Span) -> None:
    if peer.keepalive is not None and not 1 <= peer.keepalive <= _LONGEST_KEEPALIVE:
        detail = f"cannot keep the way to peer {name} open every {peer.keepalive} s"
        raise invalid(detail, f"use 1 to {_LONGEST_KEEPALIVE}; 25 is usual", _at(name, "keepalive"))
    if peer.via and (peer.endpoint or peer.keepalive):
        field = "endpoint" if peer.endpoint else "keepalive"
        detail = f"cannot send to peer {name} both via {peer.via} and itself"
        raise invalid(detail, f"leave out via, or {field}", _at(name, field))
    if not peer.endpoint:
        return
    try:
        host, _ = parse_endpoint(peer.endpoint)
    except ValueError as error:
        detail = f"cannot reach peer {name} at {peer.endpoint[:80]!a}: {error}"
        raise invalid(detail, "write it as host:port or [2001:db8::1]:51820", _at(name, "endpoint")) from None
    if is_within(host, span.spec):
        detail = f"cannot reach peer {name} at {peer.endpoint}: that is within the mesh itself"
        raise invalid(detail, "give its address outside of the mesh", _at(name, "endpoint"))


def _check_via(name: str, peers: Mapping[str, MeshPeer]) -> None:
    passed = [name]
    while via := peers[passed[-1]].via:
        if via not in peers:
            detail = f"cannot reach peer {passed[-1]} via {via[:80]!a}: there is no such peer"
            raise invalid(detail, "name a peer of this mesh", _at(passed[-1], "via"))
        if via in passed:
            way = " via ".join((*passed, via))
            raise invalid(
                f"cannot reach peer {name}: {way} is a loop", "let one of them have no via", _at(name, "via")
            )
        passed.append(via)


def _check_distinct(peers: Mapping[str, MeshPeer]) -> None:
    owners: dict[str, str] = {}
    for name, peer in peers.items():
        for index, key in enumerate(peer.public_keys):
            if key in owners:
                detail = f"cannot tell peers {owners[key]} and {name} apart: both have the public key {key}"
                remedy = "give each its own; 'zn network show' on its node shows it"
                raise invalid(detail, remedy, _at(name, "public_keys", str(index)))
            owners[key] = name


def _check_parts(span: Span, hosts: Mapping[str, str]) -> None:
    """Each peer has addresses of the mesh, and none that another has."""
    for family, own_text in zip(_FAMILIES, (span.ipv4, span.ipv6), strict=True):
        whole_text, own = getattr(span.spec, family), parse_subnet(own_text)
        parts: dict[str, Subnet] = {}
        for name, peer in span.spec.peers.items():
            if text := getattr(peer, family):
                parts[name] = _part(name, family, text, whole_text)
                _check_own(name, family, parts[name], own, hosts)
        for one, other in _overlaps(parts):
            detail = f"cannot send to peer {other}: its {parts[other]} overlaps {parts[one]} of peer {one}"
            raise invalid(detail, "give each a part of its own", _at(other, family))
    for name, peer in span.spec.peers.items():
        if not (peer.ipv4 or peer.ipv6):
            detail = f"cannot send to peer {name}: it has no address of the mesh"
            raise invalid(detail, "give it ipv4 or ipv6", _at(name))


def _overlaps(parts: Mapping[str, Subnet]) -> Iterator[tuple[str, str]]:
    """Pairs of neighbours that overlap: in the order of their first addresses, any overlap has such a pair."""
    ordered = sorted(parts, key=lambda name: (parts[name].first, parts[name].length))
    for one, other in pairwise(ordered):
        if parts[one].overlaps(parts[other]):
            yield one, other


def _part(name: str, family: str, text: str, whole: str | None) -> Subnet:
    pointer = _at(name, family)
    part = _subnet(text, family, pointer)
    if whole is None:
        detail = f"cannot send to peer {name} at {part}: the mesh has no {family} subnet"
        raise invalid(detail, f"give mesh.{family}, or leave it out", pointer)
    if not parse_subnet(whole).holds(part):
        raise invalid(
            f"cannot send to peer {name} at {part}: it is not within the mesh {whole}",
            "give it a part of the mesh",
            pointer,
        )
    return part


def _check_own(name: str, family: str, part: Subnet, own: Subnet, hosts: Mapping[str, str]) -> None:
    """Of the node's own part a peer may have a single address that nobody else has."""
    if not part.overlaps(own):
        return
    pointer = _at(name, family)
    if part.size > 1:
        detail = f"cannot send to peer {name} at {part}: it overlaps this node's own {own}"
        raise invalid(detail, "give it another part of the mesh, or a single address", pointer)
    address, host = part.address(0), part.first - own.first
    if host in (0, 1) or (family == "ipv4" and host == own.size - 1):
        detail = (
            f"cannot give {address} to peer {name}: it is the subnet's first, the node's own or its last one"
        )
        raise invalid(detail, "give it another address", pointer)
    if address in hosts:
        detail = f"cannot give {address} to peer {name}: container {hosts[address]} has it"
        raise conflict(detail, "give it an address that is free", pointer)


def port_refusal(name: str, port: int, owner: str) -> RefusedError:
    """The refusal of a port that something has (409)."""
    detail = f"cannot let the mesh of network {name} listen on UDP port {port}: {owner} has it"
    return conflict(detail, "choose another port, or leave it to the node", "/mesh/port")
