"""Plans of meshes: they lead to what is wanted from anything, once, and flows follow a peer's newest handshake."""

import base64
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core0.linux.wireguard import Device, Peer
from core0.mesh.model import Greet, Kept, Key, SeenLink, SetPeer, WantedLink, WantedPeer
from core0.mesh.plan import active_key, plan
from core0.wire.network import MESH_LINKS
from tests.core0.mesh.kernel import applied

KEYS = [bytes([number]) * 32 for number in range(1, 9)]
SUBNETS = [f"10.60.{number}.0/24" for number in range(6)] + ["fd60:0:0:1::/64"]
ENDPOINTS = [("192.0.2.1", 51820), ("2001:db8::1", 51820), ("192.0.2.2", 9)]


@st.composite
def wanted_links(draw: st.DrawFn) -> tuple[WantedLink, ...]:
    links = []
    for number in draw(st.lists(st.integers(1, 3), unique=True, max_size=2)):
        keys = draw(st.lists(st.sampled_from(KEYS[:-1]), unique=True, max_size=6))
        subnets = draw(st.permutations(SUBNETS))
        peers = {}
        for at in range(0, len(keys), 2):
            endpoint = draw(st.none() | st.sampled_from(ENDPOINTS))
            own = frozenset(subnets[at : at + 2])
            keepalive = draw(st.sampled_from([0, 25]))
            peers[f"peer{at}"] = WantedPeer(tuple(keys[at : at + 2]), endpoint, keepalive, own)
        links.append(
            WantedLink(
                f"zm{number}",
                MESH_LINKS + number,
                draw(st.sampled_from(["web", "db"])),
                draw(st.sampled_from([1420, 1380])),
                draw(st.integers(51820, 51822)),
                KEYS[-1],
                draw(st.frozensets(st.sampled_from(["10.60.0.1/32", "fd60::1/128"]))),
                draw(st.frozensets(st.sampled_from(["10.60.0.0/16", "fd60::/48"]))),
                peers,
            )
        )
    return tuple(links)


@st.composite
def seen_links(draw: st.DrawFn) -> tuple[SeenLink, ...]:
    """What earlier wishes left, with handshakes and roaming since; and links of others."""
    seen = applied(plan(draw(wanted_links()), ()), ())
    moved = []
    for link in seen:
        peers = {
            key: replace(
                peer,
                handshake=draw(st.sampled_from([0.0, 5.0, 9.0])),
                endpoint=draw(st.none() | st.sampled_from(ENDPOINTS)),
            )
            for key, peer in link.device.peers.items()
        }
        moved.append(replace(link, device=replace(link.device, peers=peers), is_up=draw(st.booleans())))
    other = SeenLink(
        "zm9", 77, "somebody's", 1400, True, frozenset(), frozenset({"10.9.0.0/16"}), Device(None, 1, {})
    )
    return (*moved, other)


@given(wanted_links(), seen_links(), st.booleans())
def test_planning_again_after_applying_gives_nothing(
    wanted: tuple[WantedLink, ...], seen: tuple[SeenLink, ...], are_moved: bool
) -> None:
    moved = KEYS if are_moved else ()
    after = applied(plan(wanted, seen, moved), seen)
    assert plan(wanted, after, moved) == ()
    assert next(link for link in after if link.name == "zm9") == seen[-1], "another's link is never touched"


@given(wanted_links(), seen_links())
def test_what_is_there_after_a_plan_is_what_was_wanted(
    wanted: tuple[WantedLink, ...], seen: tuple[SeenLink, ...]
) -> None:
    after = {link.name: link for link in applied(plan(wanted, seen, KEYS), seen) if link.name != "zm9"}
    assert set(after) == {link.name for link in wanted}
    for link in wanted:
        found = after[link.name]
        assert (found.mtu, found.alias, found.is_up) == (link.mtu, link.alias, True)
        assert (found.addresses, found.routes) == (link.addresses, link.routes)
        assert (found.device.key, found.device.port) == (link.key, link.port)
        assert set(found.device.peers) == {key for peer in link.peers.values() for key in peer.keys}
        for peer in link.peers.values():
            held = [found.device.peers[key] for key in peer.keys]
            assert sorted(map(len, (one.allowed for one in held))) == sorted(
                [len(peer.subnets)] + [0] * (len(held) - 1)
            )
            assert frozenset().union(*(one.allowed for one in held)) == peer.subnets
            assert all(one.endpoint == peer.endpoint for one in held if peer.endpoint)


def link_with(peer: WantedPeer, key: bytes = KEYS[-1]) -> WantedLink:
    nothing: frozenset[str] = frozenset()
    return WantedLink("zm1", MESH_LINKS + 1, "web", 1420, 51820, key, nothing, nothing, {"other": peer})


def shaken(seen: Sequence[SeenLink], **handshakes: float) -> tuple[SeenLink, ...]:
    """The only link, with handshakes of the first keys."""
    (link,) = seen
    peers = dict(link.device.peers)
    for name, moment in handshakes.items():
        key = KEYS[int(name.removeprefix("key"))]
        peers[key] = replace(peers.get(key, Peer(key)), handshake=moment)
    return (replace(link, device=replace(link.device, peers=peers)),)


def test_flows_follow_the_key_of_the_newest_handshake() -> None:
    peer = WantedPeer(tuple(KEYS[:2]), None, 0, frozenset(SUBNETS[:1]))
    wanted = (link_with(peer),)
    seen = applied(plan(wanted, ()), ())
    assert active_key(peer.keys, seen[0].device.peers) == KEYS[0]
    assert plan(wanted, shaken(seen, key0=5.0)) == ()
    (to_new, from_old) = plan(wanted, shaken(seen, key0=5.0, key1=6.0))
    assert isinstance(to_new, SetPeer)
    assert isinstance(from_old, SetPeer)
    assert (to_new.change.key, to_new.change.allowed) == (KEYS[1], peer.subnets), "the new one has them first"
    assert from_old.change.key == KEYS[0]


def test_a_link_that_gets_another_key_shakes_hands_at_once_and_a_new_link_need_not() -> None:
    peer = WantedPeer(tuple(KEYS[:1]), ENDPOINTS[0], 0, frozenset(SUBNETS[:1]))
    first = plan((link_with(peer),), ())
    assert not [action for action in first if isinstance(action, Greet)]
    again = plan((link_with(peer, KEYS[5]),), applied(first, ()))
    assert [type(action).__name__ for action in again] == ["SetKey", "Greet"]


@pytest.mark.parametrize("moved", [False, True], ids=["it stays where it went", "it is looked for again"])
def test_a_peer_that_roams_is_sent_back_only_when_it_moved(moved: bool) -> None:
    peer = WantedPeer(tuple(KEYS[:1]), ENDPOINTS[0], 0, frozenset(SUBNETS[:1]))
    (link,) = applied(plan((link_with(peer),), ()), ())
    roamed = {KEYS[0]: replace(link.device.peers[KEYS[0]], endpoint=ENDPOINTS[2])}
    seen = (replace(link, device=replace(link.device, peers=roamed)),)
    actions = plan((link_with(peer),), seen, KEYS if moved else ())
    assert [action.change.endpoint for action in actions if isinstance(action, SetPeer)] == (
        [ENDPOINTS[0]] if moved else []
    )


def test_a_private_key_is_in_no_text_of_what_holds_it() -> None:
    private = base64.b64encode(KEYS[2]).decode()
    kept = Kept(1, 51820, Key(private, base64.b64encode(KEYS[1]).decode()))
    assert private not in f"{kept} {kept!r} {kept.key.secret!r}"
    assert msgspec.json.decode(msgspec.json.encode(kept), type=Kept) == kept
