"""What is told of a mesh and its peers: states, and one plain sentence each. Pure."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from core0.linux.wireguard import Endpoint, Peer
from core0.mesh.endpoint import is_address, parse_endpoint
from core0.mesh.model import Action, Kept, SeenLink, SetPeer, Span
from core0.mesh.plan import active_key
from core0.mesh.wanted import reached_by
from core0.wire.mesh import Mesh, MeshPeer, PeerState, SeenPeer, parse_key

# After so many seconds a session is of no use any more (REJECT_AFTER_TIME): a peer that is sent to has a newer one.
_SESSION = 180.0
# So many peers are told by name when they change at once.
_NAMED = 8


def tell(done: Sequence[Action]) -> Iterator[tuple[str, str]]:
    """What was done, as events: the link, and a sentence. Of many peers there is one: a console is slow."""
    peers = Counter(action.link for action in done if isinstance(action, SetPeer))
    for action in done:
        if not isinstance(action, SetPeer) or peers[action.link] <= _NAMED:
            said = str(action)
            yield action.link, f"{said[0].upper()}{said[1:]}"
    for link, count in peers.items():
        if count > _NAMED:
            yield link, f"Let {link} know {count} peers anew"


def show(
    kept: Kept, span: Span, seen: SeenLink | None, failure: str, unresolved: Mapping[str, str], now: float
) -> Mesh:
    """This node's part of a mesh as the API tells it.

    Args:
        kept: its keys and port.
        span: what is wished for.
        seen: its link, if it is there.
        failure: why the link is not as it shall be, or "".
        unresolved: the names of endpoints that could not be resolved, and why.
        now: seconds since 1970.
    """
    peers = seen.device.peers if seen else {}
    shown = tuple(_show_peer(name, span, peers, unresolved, now) for name in sorted(span.spec.peers))
    if failure:
        state, why = "failed", f"{failure}; it is tried again"
    elif seen is None:
        state, why = "pending", "its link is being made"
    else:
        up = sum(peer.state == "up" for peer in shown)
        state, why = "ready", f"{up} of {len(shown)} peers shook hands in the last three minutes"
    return Mesh(
        state,  # type: ignore[arg-type]  # a text of these three
        why,
        kept.key.public,
        kept.next_key.public if kept.next_key else None,
        kept.port,
        kept.link,
        shown,
    )


def _show_peer(
    name: str, span: Span, peers: Mapping[bytes, Peer], unresolved: Mapping[str, str], now: float
) -> SeenPeer:
    through = reached_by(name, span.spec.peers)
    wish = span.spec.peers[through]
    keys = tuple(map(parse_key, wish.public_keys))
    active = active_key(keys, peers)
    peer = peers.get(active)
    age = max(0.0, now - peer.handshake) if peer and peer.handshake else None
    state, why = _state(wish, peer, age, unresolved)
    if through != name:
        return SeenPeer(name, state, f"reached via {through}: {why}", span.spec.peers[name].public_keys[0])
    return SeenPeer(
        name,
        state,
        why,
        base64.b64encode(active).decode(),
        _in_words(peer.endpoint) if peer and peer.endpoint else wish.endpoint,
        age,
        sum(peers[key].received for key in keys if key in peers),
        sum(peers[key].sent for key in keys if key in peers),
    )


def _state(
    wish: MeshPeer, peer: Peer | None, age: float | None, unresolved: Mapping[str, str]
) -> tuple[PeerState, str]:
    if age is not None and age <= _SESSION:
        return "up", f"its last handshake was {age:.0f} s ago"
    host = parse_endpoint(wish.endpoint)[0] if wish.endpoint else ""
    if host in unresolved:
        return "unresolved", f"cannot find its host {host}: {unresolved[host]}; it is tried again"
    if age is not None:
        said = f"its last handshake was {age:.0f} s ago: either nothing was sent since, or it does not answer"
        return "idle", said
    if peer and peer.endpoint:
        said = f"nothing came from {_in_words(peer.endpoint)} yet: nothing was sent, or it does not answer"
        return "waiting", f"{said}; see that it knows this node's public key, and that UDP gets there"
    if host and not is_address(host):
        return "waiting", f"its host {host} is being looked for"
    return "waiting", "it has no endpoint here, so it must come by itself, and has not yet"


def _in_words(endpoint: Endpoint) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
