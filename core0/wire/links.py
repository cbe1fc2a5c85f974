"""The node's own links, as its API tells them. Durations are in seconds, from the moment of the answer."""

from typing import Annotated, Literal

import msgspec

# A network device's name, or the bus address of a network controller that has no network device.
LinkName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:@-]{1,32}$(?!\n)")]

LinkState = Literal["up", "waiting", "no-carrier", "down", "no-link", "no-driver"]

LinkKind = Literal["card", "vlan", "bond", "bridge"]

DhcpState = Literal["asking", "bound", "renewing", "unanswered", "refused", "failed", "no-carrier"]


class Dhcp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a link's talk with DHCP servers stands.

    Attributes:
        state: `asking` for the first time, `bound` to a lease, `renewing` it; or how the last try ended: nobody
            answered, the server refused, the kernel did not take what it gave; or there is no carrier to ask on.
        for_seconds: how long it has been so.
        address: that is leased, as `address/prefix length`.
        server: who leased it.
        ends_in_seconds: when the lease ends; unknown of one that an earlier node daemon got.
        next_try_in_seconds: when the node asks or renews next; none while it does.
        cause: why the last try ended.
    """

    state: DhcpState
    for_seconds: float | None = None
    address: str | None = None
    server: str | None = None
    ends_in_seconds: float | None = None
    next_try_in_seconds: float | None = None
    cause: str = ""


class Lacp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bond of mode 802.3ad agreed on with whoever is at the other end (IEEE 802.1AX).

    Attributes:
        partner: the other end's hardware address; none if nobody answers.
        members: those that serve, as one group; without a partner it is one alone.
    """

    partner: str | None = None
    members: tuple[str, ...] = ()


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network device of the node, or a network controller that could be one.

    Attributes:
        name: of the network device; the bus address of a controller without one.
        other_names: more names by which it is found: the kernel's own.
        state: `up` with all that it shall have, `waiting` for an address, without a carrier, `down`; or what a
            controller lacks: a network device, or a driver.
        why: one plain sentence on the state, with the remedy.
        mac: its hardware address in hexadecimal pairs.
        pci: its bus address, if it is on PCI.
        pci_id: `vendor:device`, four hexadecimal digits each.
        driver: the driver that has it.
        firmware: the version that its driver tells.
        mtu: the largest packet in bytes.
        speed_mbps: of its carrier, in Mbit/s, if the driver tells it.
        carrier: whether it has one.
        kind: `card`, or what the config had made: `vlan`, `bond`, `bridge`.
        vlan: of a VLAN its number.
        parent: of a VLAN the link that it is on.
        members: of a bond or a bridge the links that are its own.
        master: the bond or the bridge that it is a member of.
        addresses: IPv4 and IPv6, as `address/prefix length`.
        dhcp: how its talk with DHCP servers stands.
        lacp: of a bond of mode 802.3ad, what it agreed on with the other end.
    """

    name: LinkName
    state: LinkState
    why: str
    mac: str = ""
    pci: str | None = None
    pci_id: str | None = None
    driver: str | None = None
    firmware: str = ""
    mtu: int | None = None
    speed_mbps: int | None = None
    carrier: bool = False
    kind: LinkKind = "card"
    vlan: int | None = None
    parent: str | None = None
    members: tuple[str, ...] = ()
    master: str | None = None
    other_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    dhcp: Dhcp | None = None
    lacp: Lacp | None = None


class Links(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All links: network devices in the kernel's order, then controllers without one by their places."""

    links: tuple[Link, ...]


class LinkQuery(msgspec.Struct, frozen=True):
    """Which link (see `core0.wire.control`)."""

    name: LinkName
