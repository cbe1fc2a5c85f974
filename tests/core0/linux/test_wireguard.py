"""Our encoding of WireGuard's messages against pyroute2 as an independent reader and writer; no kernel is asked.

The booted nodes of tests/vm/test_mesh.py have the kernel's own.
"""

import base64

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic.wireguard import wgmsg

from core0.linux import wireguard
from core0.linux.wireguard import Device, Peer, PeerChange, parse_device

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
SUBNETS = st.frozensets(
    st.builds(lambda low, high: f"10.{low}.{high}.0/24", st.integers(0, 255), st.integers(0, 255))
    | st.builds(lambda low: f"fd60:0:0:{low + 1:x}::/64", st.integers(0, 0xFFFE)),
    max_size=20,
)
ENDPOINTS = st.none() | st.sampled_from(
    [("192.0.2.1", 51820), ("2001:db8::1", 1), ("255.255.255.255", 65535)]
)


def as_peer(change: PeerChange) -> Peer:
    return Peer(change.key, change.endpoint, change.keepalive or 0, change.allowed or frozenset())


def described(*changes: PeerChange) -> list[bytes]:
    """The messages that a kernel would describe such peers with: the attributes are the same both ways."""
    return [
        wireguard.nested(8, wireguard.nested(0, peer))
        for change in changes
        for peer in wireguard._encode(change)
    ]


@given(ENDPOINTS, st.integers(0, 65535), SUBNETS)
def test_what_is_told_of_a_peer_reads_back_the_same(endpoint, keepalive, allowed) -> None:
    change = PeerChange(KEY, endpoint, keepalive, allowed)
    assert parse_device(described(change)).peers == {KEY: as_peer(change)}


def test_a_peer_with_more_subnets_than_a_message_takes_goes_on_in_the_next() -> None:
    allowed = frozenset(f"10.{number >> 8}.{number & 255}.0/24" for number in range(2500))
    change = PeerChange(KEY, ("192.0.2.1", 7), 25, allowed)
    messages = described(change, PeerChange(OTHER, allowed=frozenset({"10.200.0.0/24"})))
    assert len(messages) == 4
    assert max(map(len, messages)) < 1 << 16
    found = parse_device(messages)
    assert found.peers[KEY] == as_peer(change)
    assert found.peers[OTHER].allowed == {"10.200.0.0/24"}


def test_pyroute2_understands_what_is_told_of_a_peer() -> None:
    change = PeerChange(KEY, ("192.0.2.1", 51820), 25, frozenset({"10.60.2.0/24", "fd60:0:0:2::/64"}))
    (peer,) = wireguard._encode(change)
    body = (
        wireguard._GENERIC.pack(1, 1)
        + wireguard.number(1, 7)
        + wireguard.nested(8, wireguard.nested(0, peer))
    )
    message = wgmsg((16 + len(body)).to_bytes(4, "little") + bytes(12) + body)
    message.decode()
    assert message.get_attr("WGDEVICE_A_IFINDEX") == 7
    (read,) = message.get_attr("WGDEVICE_A_PEERS")
    assert read.get_attr("WGPEER_A_PUBLIC_KEY") == base64.b64encode(KEY)
    assert read.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") == 25
    endpoint = read.get_attr("WGPEER_A_ENDPOINT")
    assert (endpoint["addr"], endpoint["port"]) == ("192.0.2.1", 51820)
    assert {one["addr"] for one in read.get_attr("WGPEER_A_ALLOWEDIPS")} == set(change.allowed or ())


def test_a_link_without_peers_is_one() -> None:
    assert parse_device([b""]) == Device(None, 0, {})
