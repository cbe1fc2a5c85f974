"""Networks of containers in the node's API: the same types for server, client and command line."""

from typing import Annotated, Literal

import msgspec

from core0.wire.mesh import Mesh, MeshSpec
from core0.wire.types import ContainerName, NetworkName, Port, Traffic

# There is always one of this name; containers that name no network are in it.
DEFAULT = "default"
# Where everything is that is neither the node's, nor on its own links, nor private (RFC 1918, RFC 4193).
INTERNET = "internet"

Cidr = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
# IPv6 needs 1280 bytes (RFC 8200, section 5), and every network has it.
Mtu = Annotated[int, msgspec.Meta(ge=1280, le=65535)]
Egress = Literal["nat", "routed", "none"]
NetworkState = Literal["ready", "conflict"]


class EgressRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What containers may reach outside of their network.

    Attributes:
        to: `internet`, or addresses as `address/prefix length`, also of the operator's own network.
        protocol: any if None.
        port: of TCP or UDP; any if None.
    """

    to: Cidr
    protocol: Literal["tcp", "udp", "icmp"] | None = None
    port: Port | None = None


class NetworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a network shall be.

    Attributes:
        ipv4: its subnet, as `10.9.0.0/24`; None lets the node choose one.
        ipv6: its subnet; None takes one of the node's unique local prefix (RFC 4193).
        egress: how its containers reach the outside: behind the node's address, with their own, or not at all.
        egress_allow: what of the outside; the node itself is never part of it.
        mtu: bytes of the largest packet, for links made from then on; not more than the mesh has.
        mesh: how it spans nodes, if it does: its subnets are this node's part then.
    """

    ipv4: Cidr | None = None
    ipv6: Cidr | None = None
    egress: Egress = "nat"
    egress_allow: Annotated[tuple[EgressRule, ...], msgspec.Meta(max_length=64)] = (EgressRule(INTERNET),)
    mtu: Mtu = 1500
    mesh: MeshSpec | None = None


class NetworkMember(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A container of a network, its addresses there, and what went over its link; not in a list of networks."""

    container: ContainerName
    ipv4: str
    ipv6: str
    traffic: Traffic | None = None


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network as it is.

    Attributes:
        name: its name.
        state: whether what it shall be and what the node's links have go together.
        why: one plain sentence.
        ipv4: its subnet.
        ipv6: its subnet.
        spec: what it shall be.
        containers: that are wanted in it, by name.
        mesh: its link to other nodes, if it has one.
    """

    name: NetworkName
    state: NetworkState
    why: str
    ipv4: str
    ipv6: str
    spec: NetworkSpec
    containers: tuple[NetworkMember, ...] = ()
    mesh: Mesh | None = None


class Networks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All networks, by name."""

    networks: tuple[Network, ...]
