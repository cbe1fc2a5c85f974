"""The mesh between nodes in the node's API: networks of containers that span nodes by WireGuard."""

import base64
from typing import Annotated, Literal

import msgspec

from core0.wire.types import ContainerName, Port

# Where a node looks for a free UDP port first.
FIRST_PORT = 51820
KEY_BYTES = 32
# What WireGuard adds to a packet at most: IPv6 40, UDP 8, its header 16, its tag 16.
OVERHEAD = 80

PeerName = ContainerName
# Texts that are checked by the node itself, so that a refusal has the peer's name in its pointer.
_Text = Annotated[str, msgspec.Meta(max_length=300)]
PublicKey = Annotated[str, msgspec.Meta(max_length=64)]
PeerState = Literal["up", "idle", "waiting", "unresolved"]


class MeshPeer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another node of the mesh, or a single machine.

    Attributes:
        public_keys: its WireGuard public key in base64; two while it gets another one.
        ipv4: its subnet within the mesh, or its address as `10.60.1.9/32`.
        ipv6: likewise.
        endpoint: where it is reached, as `host:port`; none of one that comes by itself.
        keepalive: seconds between packets that keep its, or this node's, way through a NAT open.
        via: the peer through which it is reached instead.
    """

    public_keys: Annotated[tuple[PublicKey, ...], msgspec.Meta(max_length=8)]
    ipv4: _Text | None = None
    ipv6: _Text | None = None
    endpoint: _Text | None = None
    keepalive: int | None = None
    via: _Text | None = None


class MeshSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a network spans nodes: its own subnets are this node's part of the whole.

    Attributes:
        ipv4: the whole mesh, as `10.60.0.0/16`; None if IPv4 does not span nodes.
        ipv6: likewise.
        port: the UDP port of this node; None takes the first free one from 51820 on.
        mtu: bytes of the largest packet within; 1420 fits into 1500 also over IPv6.
        peers: the others, by names of the operator's.
    """

    ipv4: _Text | None = None
    ipv6: _Text | None = None
    port: Port | None = None
    mtu: Annotated[int, msgspec.Meta(ge=1280, le=65535 - OVERHEAD)] = 1500 - OVERHEAD
    peers: Annotated[dict[PeerName, MeshPeer], msgspec.Meta(max_length=4096)] = {}


class SeenPeer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A peer as the kernel sees it.

    Attributes:
        name: its name.
        state: `up` with a handshake in the last three minutes, `idle` with an older one, `waiting` for the first,
            `unresolved` if its host's name is.
        why: one plain sentence.
        public_key: the one of its keys that is in use.
        endpoint: where its packets come from, or go to.
        handshake_seconds: since the last handshake.
        received_bytes: from it, all its keys together.
        sent_bytes: to it.
    """

    name: str
    state: PeerState
    why: str
    public_key: str
    endpoint: str | None = None
    handshake_seconds: float | None = None
    received_bytes: int = 0
    sent_bytes: int = 0


class Mesh(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This node's part of a mesh.

    Attributes:
        state: whether its link is as it shall be.
        why: one plain sentence.
        public_key: this node's, for its peers.
        next_public_key: the one that is prepared for a change, if any.
        port: the UDP port that its peers send to.
        link: its link's name on the node.
        peers: all of them.
    """

    state: Literal["ready", "pending", "failed"]
    why: str
    public_key: str
    next_public_key: str | None
    port: int
    link: str
    peers: tuple[SeenPeer, ...] = ()


def parse_key(text: str) -> bytes:
    """The 32 bytes of a WireGuard key in base64. Raises ValueError with why it is none."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("it is not base64") from None
    if len(key) != KEY_BYTES or base64.b64encode(key).decode() != text:
        raise ValueError(f"it has {len(key)} bytes, not {KEY_BYTES}, as 44 characters of base64")
    if not any(key):
        raise ValueError("it is all zeros")
    return key
