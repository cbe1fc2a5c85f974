"""What is told of peers: a state and one sentence each, from what the kernel knows."""

import base64

import pytest
from msgspec.structs import replace

from core0.linux.wireguard import Device, Peer
from core0.mesh.explain import show, tell
from core0.mesh.model import Kept, Key, SeenLink, Span
from core0.mesh.plan import plan
from core0.mesh.wanted import want
from core0.wire.mesh import MeshPeer, MeshSpec, SeenPeer

KEYS = [bytes([number]) * 32 for number in range(1, 40)]
TEXTS = [base64.b64encode(key).decode() for key in KEYS]
NOW = 1_800_000_000.0
KEPT = Kept(1, 51820, Key(TEXTS[30], TEXTS[31]))


def peers_of(spec: MeshSpec, *peers: Peer, unresolved: str = "", failure: str = "") -> dict[str, SeenPeer]:
    """The peers as they are shown."""
    device = Device(KEYS[31], 51820, {peer.key: peer for peer in peers})
    nothing: frozenset[str] = frozenset()
    link = SeenLink("zm1", 1, "zeronode mesh span", 1420, True, nothing, nothing, device)
    causes = {"hub.example": unresolved} if unresolved else {}
    span = Span(spec, "10.60.1.0/24", "fd60:0:0:1::/64")
    return {peer.name: peer for peer in show(KEPT, span, link, failure, causes, NOW).peers}


PEER = MeshPeer((TEXTS[0],), "10.60.2.0/24", endpoint="hub.example:51820")


@pytest.mark.parametrize(
    ("peer", "state", "said"),
    [
        pytest.param(Peer(KEYS[0], handshake=NOW - 12), "up", "12 s ago", id="up"),
        pytest.param(
            Peer(KEYS[0], handshake=NOW - 400), "idle", "400 s ago: either nothing was sent", id="idle"
        ),
        pytest.param(Peer(KEYS[0], handshake=NOW + 9), "up", "0 s ago", id="the clock went back"),
        pytest.param(
            Peer(KEYS[0], ("192.0.2.1", 7)), "waiting", "nothing came from 192.0.2.1:7", id="no answer"
        ),
        pytest.param(Peer(KEYS[0]), "waiting", "its host hub.example is being looked for", id="looked for"),
    ],
)
def test_a_peers_state_comes_from_its_last_handshake(peer: Peer, state: str, said: str) -> None:
    shown = peers_of(MeshSpec("10.60.0.0/16", peers={"hub": PEER}), peer)["hub"]
    assert (shown.state, said in shown.why) == (state, True), shown.why


def test_a_peer_whose_host_is_not_known_says_why_and_one_without_endpoint_that_it_must_come() -> None:
    spec = MeshSpec(
        "10.60.0.0/16", peers={"hub": PEER, "far": replace(PEER, public_keys=(TEXTS[1],), endpoint=None)}
    )
    shown = peers_of(spec, Peer(KEYS[0]), Peer(KEYS[1]), unresolved="192.0.2.53 knows no such name")
    assert shown["hub"].state == "unresolved"
    assert (
        shown["hub"].why
        == "cannot find its host hub.example: 192.0.2.53 knows no such name; it is tried again"
    )
    assert shown["far"].why == "it has no endpoint here, so it must come by itself, and has not yet"


def test_a_peer_with_two_keys_shows_the_one_in_use_and_the_traffic_of_both() -> None:
    spec = MeshSpec("10.60.0.0/16", peers={"hub": replace(PEER, public_keys=(TEXTS[0], TEXTS[1]))})
    old, new = (
        Peer(KEYS[0], None, 0, frozenset(), NOW - 90, 10, 20),
        Peer(KEYS[1], None, 0, frozenset(), NOW - 1, 3, 4),
    )
    shown = peers_of(spec, old, new)["hub"]
    assert (shown.public_key, shown.received_bytes, shown.sent_bytes) == (TEXTS[1], 13, 24)


def test_a_thousand_peers_are_not_a_thousand_lines_of_the_console() -> None:
    peers = {f"p{number}": MeshPeer((TEXTS[number],), f"10.60.{number + 2}.0/24") for number in range(20)}
    span = Span(MeshSpec("10.60.0.0/16", peers=peers), "10.60.1.0/24", "fd60:0:0:1::/64")
    told = list(tell(plan([want("span", KEPT, span, lambda _: None)], [])))
    assert ("zm1", "Let zm1 know 20 peers anew") in told
    assert len(told) < 10


def test_an_endpoint_that_a_name_server_puts_within_the_mesh_is_not_used() -> None:
    span = Span(MeshSpec("10.60.0.0/16", peers={"hub": PEER}), "10.60.1.0/24", "fd60:0:0:1::/64")
    assert want("span", KEPT, span, lambda _: ("10.60.2.1", 51820)).peers["hub"].endpoint is None
    assert want("span", KEPT, span, lambda _: ("192.0.2.1", 51820)).peers["hub"].endpoint == (
        "192.0.2.1",
        51820,
    )
