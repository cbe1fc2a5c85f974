"""Carries out the network plan's actions; the only module here that changes the kernel's links."""

from core0.links.model import Action, AddAddress, DeleteAddress, SetUp
from core0.linux import netlink
from core0.linux.netlink import Netlink, Request


def apply(action: Action, rtnetlink: Netlink) -> None:
    """Carry out one action. Raises OSError with what was tried."""
    rtnetlink.apply(_requests(action))


def _requests(action: Action) -> list[Request]:
    match action:
        case SetUp(link):
            return [netlink.set_up(link.index)]
        case DeleteAddress(link, address):
            return [netlink.delete_address(link.index, address)]
        case AddAddress(link, lease):
            requests = [netlink.add_address(link.index, lease.address)]
            if lease.gateway:
                # Several links may have a gateway: the first link's wins, the others stand by.
                metric = 100 + link.index
                requests.append(netlink.add_route("0.0.0.0/0", link.index, lease.gateway, metric=metric))
            return requests
