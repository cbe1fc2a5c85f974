"""What the network manager decides about, and what it keeps."""

import msgspec

from core0.wire.mesh import MeshSpec
from core0.wire.names import Zone
from core0.wire.network import CONTAINER_LINK_PREFIX, CONTAINER_LINKS, MESH_LINK_PREFIX, MESH_LINKS
from core0.wire.networks import Egress, EgressRule, NetworkSpec
from core0.wire.subnets import Subnet, parse_part, parse_subnet

_LARGE_SEGMENT = 256 << 10


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network in the node's state: what was asked for, and the subnets that it has, chosen or given."""

    spec: NetworkSpec
    ipv4: str
    ipv6: str

    @property
    def subnets(self) -> tuple[Subnet, Subnet]:
        """Both, as numbers."""
        return parse_subnet(self.ipv4), parse_subnet(self.ipv6)

    @property
    def reach(self) -> tuple[Subnet, Subnet]:
        """What the network has, here and on other nodes: the whole mesh of a family that spans nodes."""
        mesh = self.spec.mesh or MeshSpec()
        return parse_subnet(mesh.ipv4 or self.ipv4), parse_subnet(mesh.ipv6 or self.ipv6)

    @property
    def link_mtu(self) -> int:
        """What links of containers have: as much as goes through a mesh."""
        return min(self.spec.mtu, self.spec.mesh.mtu) if self.spec.mesh else self.spec.mtu

    @property
    def link_segment(self) -> int:
        """Bytes that TCP sends as one packet over links of containers: many more where none goes to a card.

        A card takes 64 KiB, and has single packets made of anything larger by the kernel; 0 leaves it at that.
        """
        return _LARGE_SEGMENT if self.spec.egress == "none" and not self.spec.mesh else 0

    @property
    def lent(self) -> frozenset[int]:
        """Numbers that single machines of the mesh have, so no container does."""
        peers = self.spec.mesh.peers.values() if self.spec.mesh else ()
        parts = [parse_part(text) for peer in peers for text in (peer.ipv4, peer.ipv6) if text]
        return frozenset(
            part.first - own.first for part in parts for own in self.subnets if own.overlaps(part)
        )


class MeshPolicy(msgspec.Struct, frozen=True):
    """A mesh as the packet filter knows it.

    Attributes:
        link: its link's name, "" if there is none.
        mtu: of that link, bytes.
        ipv4: the whole of the family, if it spans nodes.
        ipv6: of the other one.
        parts: the subnets of the peers.
    """

    link: str
    mtu: int
    ipv4: str | None
    ipv6: str | None
    parts: tuple[str, ...]

    @property
    def index(self) -> int:
        """Its link's number in the kernel."""
        return MESH_LINKS + int(self.link.removeprefix(MESH_LINK_PREFIX))


class Policy(msgspec.Struct, frozen=True):
    """A network as the packet filter knows it."""

    name: str
    ipv4: str
    ipv6: str
    egress: Egress
    allow: tuple[EgressRule, ...]
    mesh: MeshPolicy | None = None


class Attachment(msgspec.Struct, frozen=True):
    """A container's link, and the only addresses that may come from there.

    Attributes:
        number: the container's.
        network: its network.
        ipv4: its address.
        ipv6: the other one.
        mtu: of the link, bytes; 0 if the link is gone.
    """

    number: int
    network: str
    ipv4: str
    ipv6: str
    mtu: int

    @property
    def link(self) -> str:
        """The link's name on the node."""
        return link_of(self.number)

    @property
    def index(self) -> int:
        """The number of the link's end on the node."""
        return CONTAINER_LINKS + self.number

    @property
    def hardware(self) -> str:
        """The hardware address of the container's end: locally administered, from its number."""
        return f"02:5a:4e:01:{self.number >> 8:02x}:{self.number & 255:02x}"


def policy_of(name: str, kept: Kept, mesh_link: str = "") -> Policy:
    """What the packet filter does with a network, and with the link of its mesh."""
    spec = kept.spec
    mesh = _mesh_policy(spec.mesh, mesh_link) if spec.mesh else None
    return Policy(name, kept.ipv4, kept.ipv6, spec.egress, spec.egress_allow, mesh)


def _mesh_policy(spec: MeshSpec, link: str) -> MeshPolicy:
    parts = (text for peer in spec.peers.values() for text in (peer.ipv4, peer.ipv6) if text)
    return MeshPolicy(link, spec.mtu, spec.ipv4, spec.ipv6, tuple(map(str, map(parse_part, parts))))


def zone_of(name: str, kept: Kept, others: tuple[str, ...]) -> Zone:
    """What containers of a network may ask for; where nothing outside may be reached, nothing of it is told."""
    outside = kept.spec.egress != "none" and bool(kept.spec.egress_allow)
    ipv4, ipv6 = map(str, kept.reach)
    return Zone(name, ipv4, ipv6, outside, others)


def link_of(number: int) -> str:
    """The name of a container's link."""
    return f"{CONTAINER_LINK_PREFIX}{number}"
