"""The node's links in its config: the same types for the node, the API, the command line and TOML.

A link that no config names goes on as without one: it is set up, and asks for an address by DHCP.
"""

from typing import Annotated, Literal

import msgspec

# What a link is called. The kernel's limit is 15 bytes (IFNAMSIZ); a created link has this name in the kernel, too.
LinkName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_.-]{0,14}$(?!\n)")]
Mac = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$(?!\n)")]
# A PCI address as the kernel writes it: domain, bus, device, function.
PciAddress = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$(?!\n)")]
DriverName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,55}$(?!\n)")]
# Judged by the node's check, which names the field and the remedy.
IpText = Annotated[str, msgspec.Meta(max_length=64)]
Members = Annotated[tuple[LinkName, ...], msgspec.Meta(max_length=16)]

MOST_LINKS = 64
# Of a link that carries IPv4 only (RFC 791), and of one that carries IPv6, too (RFC 8200, section 5).
LEAST_MTU, LEAST_MTU_IPV6, LARGEST_MTU = 576, 1280, 65535
LARGEST_VLAN = 4094


class LinkSelector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which network card: the one that fits all that is given.

    Attributes:
        mac: its own hardware address, which it keeps as a member of a bond, too.
        driver: the name of its driver, as `virtio_net`.
        path: its PCI address, as `0000:00:03.0`.
    """

    mac: Mac | None = None
    driver: DriverName | None = None
    path: PciAddress | None = None


class VlanConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A VLAN (IEEE 802.1Q): the frames of another link that have its tag.

    Attributes:
        link: what the config calls that link.
        id: its number, 1 to 4094.
    """

    link: LinkName
    id: int


class BondConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several cards that are one link.

    Attributes:
        members: what the config calls the cards.
        mode: one serves and the others stand by, or all serve together with a switch that speaks LACP.
        primary: of `active-backup`, the member that serves whenever it can.
        miimon: milliseconds between looks at the members' carriers.
    """

    members: Members
    mode: Literal["active-backup", "802.3ad"] = "active-backup"
    primary: LinkName | None = None
    miimon: int = 100


class BridgeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A switch in software.

    Attributes:
        members: what the config calls its ports; none is a switch of the node alone.
    """

    members: Members = ()


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route out of a link.

    Attributes:
        to: the network, as `0.0.0.0/0` or `fd00:1::/48`.
        via: the gateway; None for a network that is on the link itself.
        metric: of two routes to one network the lower one counts.
        onlink: take the gateway to be on the link though no address of the link says so.
    """

    to: IpText
    via: IpText | None = None
    metric: Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)] | None = None
    onlink: bool = False


class LinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a link shall be: a card (`select`), or one that is made: exactly one of the first four.

    Attributes:
        select: a card of the machine.
        vlan: a VLAN on another link.
        bond: several cards as one.
        bridge: a switch in software.
        dhcp4: whether it asks for an IPv4 address; None does where no IPv4 address is given, and never on a member.
        ipv6: by the routers' advertisements, or none at all.
        addresses: `address/prefix length`, IPv4 and IPv6.
        routes: routes out of it.
        nameservers: whom to ask for names, before those of the leases.
        mtu: bytes; None is the card's own, of a VLAN its link's, of a bridge the least of its members'.
        up: False keeps it down, and without addresses.
    """

    select: LinkSelector | None = None
    vlan: VlanConfig | None = None
    bond: BondConfig | None = None
    bridge: BridgeConfig | None = None
    dhcp4: bool | None = None
    ipv6: Literal["auto", "off"] = "auto"
    addresses: Annotated[tuple[IpText, ...], msgspec.Meta(max_length=64)] = ()
    routes: Annotated[tuple[RouteConfig, ...], msgspec.Meta(max_length=256)] = ()
    nameservers: Annotated[tuple[IpText, ...], msgspec.Meta(max_length=16)] = ()
    mtu: int | None = None
    up: bool = True

    @property
    def kind(self) -> Literal["", "vlan", "bond", "bridge"]:
        """What it is made as; "" is a card."""
        return "vlan" if self.vlan else "bond" if self.bond else "bridge" if self.bridge else ""

    @property
    def members(self) -> tuple[str, ...]:
        """The links that are its own: of a bond or a bridge."""
        joined = self.bond or self.bridge
        return joined.members if joined else ()

    @property
    def below(self) -> tuple[str, ...]:
        """The links that it lies on: a VLAN's link, a bond's or bridge's members."""
        return (self.vlan.link,) if self.vlan else self.members

    @property
    def asks_dhcp4(self) -> bool:
        """Whether it asks for an IPv4 address, unless it is a member of another."""
        return self.up and (all(":" in text for text in self.addresses) if self.dhcp4 is None else self.dhcp4)


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The config's `[network]`.

    Attributes:
        links: the node's links, by the names that the config gives them.
    """

    links: dict[LinkName, LinkConfig] = {}
