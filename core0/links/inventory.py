"""Every link of the node with all that is known of it: reads the kernel and sysfs, never changes them."""

import time
from collections.abc import Iterable, Mapping, Sequence

from core0.links.explain import Role, describe_controller, describe_device
from core0.links.hardware import Hardware, read_controllers, read_devices
from core0.links.model import Conversation
from core0.links.wanted import Wanted
from core0.linux.modules import ROOT, Modules
from core0.linux.netlink import MARK, Address, Netlink
from core0.linux.netlink import Link as Device
from core0.wire import paths
from core0.wire.links import Lacp, Link


def take_inventory(
    indexes: Iterable[int], talks: Mapping[int, Conversation], wanted: Wanted
) -> tuple[Link, ...]:
    """The node's links as its operator sees them.

    Asking a card may take as long as its driver likes: call it from a thread.

    Args:
        indexes: the numbers of the node's own links.
        talks: with DHCP servers, by the link's index.
        wanted: the links as they shall be.
    """
    return (*_devices(indexes, talks, wanted), *find_unused())


def find_unused() -> tuple[Link, ...]:
    """The network controllers that have no network device."""
    known = Modules.of_running_kernel(ROOT, paths.STORAGE + ROOT)
    return tuple(describe_controller(controller) for controller in read_controllers(known.matching))


def _devices(indexes: Iterable[int], talks: Mapping[int, Conversation], wanted: Wanted) -> Iterable[Link]:
    hardware = read_devices()
    with Netlink() as rtnetlink:
        devices = [device for index in indexes if (device := rtnetlink.link(index))]
        addresses = rtnetlink.addresses()
    now = time.monotonic()
    roles = find_roles(devices, wanted)
    for device in devices:
        if not device.is_loopback and (not device.kind or device.alias == MARK):
            own = _of_link(addresses, device.index)
            behind = hardware.get(device.name, Hardware())
            yield describe_device(device, own, behind, talks.get(device.index), now, roles[device.index])


def find_roles(devices: Sequence[Device], wanted: Wanted) -> dict[int, Role]:
    """What each device is among the others, by its index; of one that came a moment ago the config says nothing."""
    names = {device.index: device.name for device in devices}
    members: dict[int, list[Device]] = {}
    for device in devices:
        members.setdefault(device.master, []).append(device)
    agreed = {device.index: _agreed(device, members.get(device.index, ())) for device in devices}
    shall = {link.name: link for link in wanted.links}
    return {
        device.index: Role(
            parent=names.get(device.parent, "") if device.kind == "vlan" else "",
            master=names.get(device.master, ""),
            members=tuple(member.name for member in members.get(device.index, ())),
            asks=device.name in wanted.dhcp or device.name not in shall,
            up=device.name not in shall or shall[device.name].is_up,
            lacp=agreed[device.index],
            left_out=_is_left_out(device, agreed.get(device.master)),
        )
        for device in devices
    }


def _agreed(bond: Device, members: Iterable[Device]) -> Lacp | None:
    """What a bond agreed on by LACP."""
    if bond.lacp is None:
        return None
    aggregator, partner = bond.lacp
    serving = tuple(one.name for one in members if one.carrier and one.aggregator == aggregator)
    return Lacp(partner if partner.strip("0:") else None, serving)


def _is_left_out(device: Device, agreed: Lacp | None) -> bool:
    """Whether a link is not in the group of the bond that it is a member of."""
    return agreed is not None and device.name not in agreed.members


def _of_link(addresses: Iterable[Address], index: int) -> tuple[str, ...]:
    """Its addresses: IPv4 first, then by text."""
    own = (address.interface for address in addresses if address.index == index)
    return tuple(sorted(own, key=lambda text: (":" in text, text)))
