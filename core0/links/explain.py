"""One plain sentence for each link: what it is used for, or why not and what to do. Pure."""

from collections.abc import Sequence

from core0.links.hardware import Controller, Hardware
from core0.links.model import Conversation, Lease
from core0.linux.netlink import Link as Device
from core0.wire.links import Dhcp, Link, LinkState

# Every link has one of its own accord; it leads to no other network (RFC 4291, 2.5.6).
_LINK_LOCAL = "fe80:"
_LOOK_AT_SERVER = "see that a DHCP server serves its network and has addresses left"


def describe_device(
    device: Device, addresses: Sequence[str], hardware: Hardware, talk: Conversation | None, now: float
) -> Link:
    """What a network device is to this node.

    Args:
        device: as the kernel has it.
        addresses: its own, each as `address/prefix length`.
        hardware: what stands behind it.
        talk: with DHCP servers.
        now: the moment, of the monotonic clock.
    """
    state, why = _explain(device, addresses, talk, now)
    return Link(
        name=device.name,
        state=state,
        why=why,
        mac=device.address,
        pci=hardware.pci or None,
        pci_id=hardware.pci_id or None,
        driver=hardware.driver or None,
        firmware=hardware.firmware,
        mtu=device.mtu,
        speed_mbps=hardware.speed_mbps if device.carrier else None,
        carrier=device.carrier,
        addresses=tuple(addresses),
        dhcp=_dhcp(talk, device.carrier, now),
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


def _explain(
    device: Device, addresses: Sequence[str], talk: Conversation | None, now: float
) -> tuple[LinkState, str]:
    if not device.is_up:
        return (
            "down",
            "it is down: the kernel did not set it up; 'zn node events' tells why, or try another card",
        )
    if not device.carrier:
        kept = f"; until then it keeps {_listed(addresses)}" if _reaching(addresses) else ""
        return "no-carrier", f"it has no carrier: plug in its cable, or look at the other end's port{kept}"
    if _reaching(addresses):
        return "up", _explain_up(addresses, talk)
    return "waiting", _explain_waiting(talk, now)


def _explain_up(addresses: Sequence[str], talk: Conversation | None) -> str:
    has = f"it has {_listed(addresses)}"
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
