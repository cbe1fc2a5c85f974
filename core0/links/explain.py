"""One plain sentence for each link: what it is used for, or why not and what to do. Pure."""

from collections.abc import Sequence

import msgspec

from core0.links.hardware import Controller, Hardware
from core0.links.model import Conversation, Lease
from core0.linux.netlink import Link as Device
from core0.wire.links import Dhcp, Lacp, Link, LinkKind, LinkState

# Every link has one of its own accord; it leads to no other network (RFC 4291, 2.5.6).
_LINK_LOCAL = "fe80:"
_LOOK_AT_SWITCH = "configure the switch's ports as one LACP group"
_LOOK_AT_SERVER = "see that a DHCP server serves its network and has addresses left"


class Role(msgspec.Struct, frozen=True):
    """What a link is among the others, and what it shall be.

    Attributes:
        parent: of a VLAN the link that it is on, or "".
        master: the bond or the bridge that it is a member of, or "".
        members: of a bond or a bridge.
        asks: whether it asks for an IPv4 address by DHCP.
        up: whether it shall be up.
        lacp: of a bond of mode 802.3ad, what it agreed on with the other end.
        left_out: whether it is a member of such a bond, but not of the group that serves.
    """

    parent: str = ""
    master: str = ""
    members: tuple[str, ...] = ()
    asks: bool = True
    up: bool = True
    lacp: Lacp | None = None
    left_out: bool = False


_ALONE = Role()


def describe_device(
    device: Device,
    addresses: Sequence[str],
    hardware: Hardware,
    talk: Conversation | None,
    now: float,
    role: Role = _ALONE,
) -> Link:
    """What a network device is to this node.

    Args:
        device: as the kernel has it.
        addresses: its own, each as `address/prefix length`.
        hardware: what stands behind it.
        talk: with DHCP servers.
        now: the moment, of the monotonic clock.
        role: what it is among the others.
    """
    state, why = _explain(device, addresses, talk, now, role)
    return Link(
        name=device.name,
        state=state,
        why=f"{_explain_kind(device, role)}{why}{_explain_lacp(device, role)}",
        mac=device.permanent or device.address,
        pci=hardware.pci or None,
        pci_id=hardware.pci_id or None,
        driver=hardware.driver or None,
        firmware=hardware.firmware,
        mtu=device.mtu,
        speed_mbps=hardware.speed_mbps if device.carrier else None,
        carrier=device.carrier,
        kind=msgspec.convert(device.kind or "card", LinkKind),
        vlan=device.vlan or None,
        parent=role.parent or None,
        members=role.members,
        master=role.master or None,
        other_names=device.other_names,
        addresses=tuple(addresses),
        dhcp=_dhcp(talk, device.carrier, now) if role.asks else None,
        lacp=role.lacp,
    )


def describe_controller(controller: Controller) -> Link:
    """What a network controller without a network device lacks."""
    state, why = _explain_controller(controller)
    return Link(
        name=controller.pci,
        state=state,
        why=why,
        pci=controller.pci,
        pci_id=controller.pci_id,
        driver=controller.driver or None,
    )


def _explain_controller(controller: Controller) -> tuple[LinkState, str]:
    said = f"not used: network controller {controller.pci_id}"
    if controller.driver:
        cause = f"{said} has a driver, {controller.driver}, which made no link"
        return (
            "no-link",
            f"{cause}: its firmware may not be in this image; the kernel's lines on the console tell more",
        )
    if controller.modules:
        tried = " or ".join(controller.modules)
        remedy = "the kernel's lines on the console tell more; try another slot or another card"
        return "no-link", f"{said} has a driver in this image, {tried}, which did not take it; {remedy}"
    remedy = "plug another card, or boot an image that has one"
    return "no-driver", f"{said} has no driver in this image; {remedy}"


def _explain_kind(device: Device, role: Role) -> str:
    """What was made, in front of what is to be said of it."""
    if device.kind == "vlan":
        return f"VLAN {device.vlan} of {role.parent}: "
    of = f" of {', '.join(role.members)}" if role.members else ""
    return f"{device.kind}{of}: " if device.kind else ""


def _explain(
    device: Device, addresses: Sequence[str], talk: Conversation | None, now: float, role: Role
) -> tuple[LinkState, str]:
    if not device.is_up:
        return "down", _explain_down(device, role)
    if not device.carrier:
        return "no-carrier", _explain_dark(device, role, addresses)
    if role.master:
        return "up", _explain_member(role)
    if _reaching(addresses):
        return "up", _explain_up(addresses, talk if role.asks else None)
    if not role.asks:
        return "up", "it has no address: its config gives it none, and lets it ask for none by DHCP"
    return "waiting", _explain_waiting(talk, now)


def _explain_member(role: Role) -> str:
    if role.left_out:
        said = (
            f"it is a member of {role.master}, but does not serve: it is not in the LACP group of the others"
        )
        return f"{said}; {_LOOK_AT_SWITCH}"
    return f"it is a member of {role.master}, which has the addresses"


def _explain_lacp(device: Device, role: Role) -> str:
    """What a bond lacks of an agreement: it serves by one card meanwhile."""
    if not role.lacp or role.lacp.partner or not (device.is_up and device.carrier):
        return ""
    alone = f", so that {', '.join(role.lacp.members)} serves alone" if role.lacp.members else ""
    return f"; no LACP partner answers on {', '.join(role.members)}{alone}; {_LOOK_AT_SWITCH}"


def _explain_down(device: Device, role: Role) -> str:
    if not role.up:
        return f"it is down, as the config says of it{f' or of {role.parent}' if role.parent else ''}"
    said = "it is down: the kernel did not set it up; 'zn node events' tells why"
    return said if device.kind else f"{said}, or try another card"


def _explain_dark(device: Device, role: Role, addresses: Sequence[str]) -> str:
    """Why there is no carrier: of what was made, because of what it is made of."""
    if device.kind == "bridge" and not role.members:
        return f"{_explain_up(addresses, None)}; without members it reaches this node alone"
    kept = f"; until then it keeps {_listed(addresses)}" if _reaching(addresses) else ""
    return f"{_explain_cause(device, role)}{kept}"


def _explain_cause(device: Device, role: Role) -> str:
    if device.kind == "vlan":
        return f"it has no carrier: see to {role.parent}"
    if role.members:
        return "it has no carrier: none of its members has one"
    if device.kind == "bond":
        return "it has no members: none of their cards is there; 'zn node events' tells which wait"
    member = f"; it is a member of {role.master}" if role.master else ""
    return f"it has no carrier: plug in its cable, or look at the other end's port{member}"


def _explain_up(addresses: Sequence[str], talk: Conversation | None) -> str:
    has = f"it has {_listed(addresses) or 'no address'}"
    if not talk:
        return has
    if talk.lease:
        return _explain_leased(talk.lease, addresses, talk.state == "renewing")
    return f"{has}, but none by DHCP: {talk.cause}" if talk.cause else f"{has}, and asks for one by DHCP"


def _explain_leased(lease: Lease, addresses: Sequence[str], renewing: bool) -> str:
    others = _listed([address for address in addresses if address != lease.address])
    besides = f", and {others}" if others else ""
    end = "; the lease is being renewed" if renewing else ""
    return f"it has {lease.address} by DHCP from {lease.server}{besides}{end}"


def _explain_waiting(talk: Conversation | None, now: float) -> str:
    if not talk or talk.state in ("asking", "bound", "renewing"):
        return "it has a carrier and asks for an address by DHCP; wait a few seconds"
    again = "the node asks again now"
    if talk.next_try is not None:
        again = f"the node asks again in {max(0.0, talk.next_try - now):.0f} s"
    return f"it has no address: {talk.cause}; {_LOOK_AT_SERVER}; {again}"


def _reaching(addresses: Sequence[str]) -> list[str]:
    return [address for address in addresses if not address.startswith(_LINK_LOCAL)]


def _listed(addresses: Sequence[str]) -> str:
    return ", ".join(_reaching(addresses))


def _dhcp(talk: Conversation | None, carrier: bool, now: float) -> Dhcp | None:
    if not talk or (not carrier and not talk.lease):
        return None if carrier else Dhcp("no-carrier")
    return Dhcp(
        state=talk.state,
        for_seconds=_rounded(now - talk.since),
        address=talk.lease.address if talk.lease else None,
        server=talk.lease.server if talk.lease else None,
        ends_in_seconds=None if talk.until is None else _rounded(talk.until - now),
        next_try_in_seconds=None if talk.next_try is None else _rounded(talk.next_try - now),
        cause=talk.cause,
    )


def _rounded(seconds: float) -> float:
    return round(max(0.0, seconds), 1)
