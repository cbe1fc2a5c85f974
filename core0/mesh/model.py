"""What the mesh manager decides about: links of WireGuard's, their peers, and the actions between them."""

import base64
from collections.abc import Mapping

import msgspec

from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp
from core0.linux.wireguard import Device, Endpoint, PeerChange
from core0.wire.mesh import MeshSpec
from core0.wire.network import MESH_LINK_PREFIX, MESH_LINKS

# What is noted on each link of ours, so that none of another's is ever deleted.
_MARK = "zeronode mesh"


class Secret(msgspec.Struct, frozen=True):
    """A private key (X25519, RFC 7748), which no message and no traceback shows."""

    value: bytes

    def __repr__(self) -> str:
        return "Secret(…)"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key pair in the node's state, both halves in base64; what is printed of it is the public half."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"Key({self.public})"

    @property
    def secret(self) -> Secret:
        """The private half, for the kernel."""
        return Secret(base64.b64decode(self.private))


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """This node's part of a mesh in the node's state.

    Attributes:
        number: names its link.
        port: the UDP port.
        key: in use.
        next_key: prepared for a change.
    """

    number: int
    port: int
    key: Key
    next_key: Key | None = None

    @property
    def link(self) -> str:
        """Its link's name."""
        return f"{MESH_LINK_PREFIX}{self.number}"

    @property
    def index(self) -> int:
        """Its link's number in the kernel."""
        return MESH_LINKS + self.number


class Span(msgspec.Struct, frozen=True):
    """A network that spans nodes: what is wished for, and its subnets, which are this node's part."""

    spec: MeshSpec
    ipv4: str
    ipv6: str


class WantedPeer(msgspec.Struct, frozen=True):
    """A peer as it shall be: its keys, where it is if that is known, seconds of keepalive (0: none), its subnets."""

    keys: tuple[bytes, ...]
    endpoint: Endpoint | None
    keepalive: int
    subnets: frozenset[str]


class WantedLink(msgspec.Struct, frozen=True):
    """A link as it shall be.

    Attributes:
        name: its name.
        index: its number.
        network: the network that it is for.
        mtu: bytes.
        port: the UDP port.
        key: its own public key.
        addresses: of the node within the mesh, `address/length`.
        routes: what is reached by it.
        peers: by their names.
    """

    name: str
    index: int
    network: str
    mtu: int
    port: int
    key: bytes
    addresses: frozenset[str]
    routes: frozenset[str]
    peers: Mapping[str, WantedPeer]

    @property
    def alias(self) -> str:
        """What is noted on it."""
        return f"{_MARK} {self.network}"


class SeenLink(msgspec.Struct, frozen=True):
    """A link of WireGuard's as it is."""

    name: str
    index: int
    alias: str
    mtu: int
    is_up: bool
    addresses: frozenset[str]
    routes: frozenset[str]
    device: Device

    @property
    def ours(self) -> bool:
        """Whether this node made it."""
        return self.name.startswith(MESH_LINK_PREFIX) and self.alias.startswith(_MARK)


class CreateLink(msgspec.Struct, frozen=True):
    """Make the link of a mesh, down."""

    link: str
    index: int
    mtu: int
    alias: str

    def __str__(self) -> str:
        return f"create link {self.link}"


class SetMtu(msgspec.Struct, frozen=True):
    """Set its MTU."""

    link: str
    mtu: int

    def __str__(self) -> str:
        return f"set the MTU of {self.link} to {self.mtu}"


class SetKey(msgspec.Struct, frozen=True):
    """Give it its key: sessions begin anew, and what was encrypted before is still understood for three minutes."""

    link: str
    network: str
    key: bytes

    def __str__(self) -> str:
        return f"let {self.link} have the public key {base64.b64encode(self.key).decode()}"


class SetPort(msgspec.Struct, frozen=True):
    """Have it listen on a UDP port."""

    link: str
    port: int

    def __str__(self) -> str:
        return f"let {self.link} listen on UDP port {self.port}"


class SetPeer(msgspec.Struct, frozen=True):
    """Change what it knows of a peer, or that there is one."""

    link: str
    peer: str
    change: PeerChange

    def __str__(self) -> str:
        verb = "forget" if self.change.removed else "know"
        return f"let {self.link} {verb} {self.peer} by {base64.b64encode(self.change.key).decode()}"


class Greet(msgspec.Struct, frozen=True):
    """Shake hands with a peer now: it shall know this node's new key before it has something to send."""

    link: str
    peer: str
    key: bytes
    keepalive: int

    def __str__(self) -> str:
        return f"shake hands with {self.peer} on {self.link}"


class AddRoute(msgspec.Struct, frozen=True):
    """Reach a mesh by its link."""

    link: str
    to: str

    def __str__(self) -> str:
        return f"add route to {self.to} out of {self.link}"


class DeleteRoute(msgspec.Struct, frozen=True):
    """Reach something by it no more."""

    link: str
    to: str

    def __str__(self) -> str:
        return f"delete route to {self.to} out of {self.link}"


Action = (
    DeleteLink
    | CreateLink
    | SetMtu
    | SetKey
    | SetPort
    | SetPeer
    | Greet
    | AddAddress
    | DeleteAddress
    | AddRoute
    | DeleteRoute
    | SetUp
)
