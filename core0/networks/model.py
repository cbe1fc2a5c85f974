"""What the network manager decides about, and what it keeps."""

import msgspec

from core0.networks.subnets import Subnet, parse_subnet
from core0.wire.names import Zone
from core0.wire.network import CONTAINER_LINK_PREFIX
from core0.wire.networks import Egress, EgressRule, NetworkSpec


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network in the node's state: what was asked for, and the subnets that it has, chosen or given."""

    spec: NetworkSpec
    ipv4: str
    ipv6: str

    @property
    def subnets(self) -> tuple[Subnet, Subnet]:
        """Both, as numbers."""
        return parse_subnet(self.ipv4), parse_subnet(self.ipv6)


class Policy(msgspec.Struct, frozen=True):
    """A network as the packet filter knows it."""

    name: str
    ipv4: str
    ipv6: str
    egress: Egress
    allow: tuple[EgressRule, ...]


class Attachment(msgspec.Struct, frozen=True):
    """A container's end of its link: the only addresses that may come from there.

    Attributes:
        link: the link's name on the node.
        hardware: its hardware address in the container.
        ipv4: its address.
        ipv6: the other one.
    """

    link: str
    hardware: str
    ipv4: str
    ipv6: str


def policy_of(name: str, kept: Kept) -> Policy:
    """What the packet filter does with a network."""
    return Policy(name, kept.ipv4, kept.ipv6, kept.spec.egress, kept.spec.egress_allow)


def zone_of(name: str, kept: Kept, others: tuple[str, ...]) -> Zone:
    """What containers of a network may ask for; where nothing outside may be reached, nothing of it is told."""
    outside = kept.spec.egress != "none" and bool(kept.spec.egress_allow)
    return Zone(name, kept.ipv4, kept.ipv6, outside, others)


def link_of(number: int) -> str:
    """The name of a container's link."""
    return f"{CONTAINER_LINK_PREFIX}{number}"


def hardware_of(number: int) -> str:
    """The hardware address of a container's end of its link: locally administered, from its number."""
    return f"02:5a:4e:01:{number >> 8:02x}:{number & 255:02x}"
