"""Carries out the plan's actions; the only module here that changes the kernel's links."""

import errno

from core0.linux import netlink, netlink_links
from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp, number_of
from core0.linux.netlink import Netlink, Request
from core0.linux.wireguard import PeerChange, WireGuard
from core0.mesh.model import (
    Action,
    AddRoute,
    CreateLink,
    DeleteRoute,
    Greet,
    Secret,
    SetKey,
    SetMtu,
    SetPeer,
    SetPort,
)

# Any at all: a peer that gets one for the first time is sent to at once.
_AWAKE = 25
# What the kernel took along with the link that had it is gone as wanted.
_GONE = (errno.EADDRNOTAVAIL, errno.ESRCH)


def apply(action: Action, rtnetlink: Netlink, wireguard: WireGuard, secret: Secret | None) -> None:
    """Carry out one action.

    Args:
        action: of the plan.
        rtnetlink: the kernel's links.
        wireguard: their keys and peers.
        secret: the private key of the link's mesh, for `SetKey`.

    Raises:
        OSError: with what was tried.
    """
    match action:
        case CreateLink(name, index, mtu, alias):
            rtnetlink.apply(
                [netlink_links.add_wireguard(name, index, mtu), netlink_links.set_alias(index, alias)]
            )
        case DeleteLink(name):
            rtnetlink.apply([netlink.delete_link(name)])
        case SetKey() | SetPort() | SetPeer() | Greet():
            _set_up_wireguard(action, wireguard, number_of(action.link, action), secret)
        case DeleteAddress() | DeleteRoute():
            try:
                rtnetlink.apply([_request(action, number_of(action.link, action))])
            except OSError as error:
                if error.errno not in _GONE:
                    raise
        case _:
            rtnetlink.apply([_request(action, number_of(action.link, action))])


def _set_up_wireguard(
    action: SetKey | SetPort | SetPeer | Greet, wireguard: WireGuard, index: int, secret: Secret | None
) -> None:
    match action:
        case SetKey():
            assert secret  # noqa: S101 — the manager has one for each link that it wants
            wireguard.set_device(index, private_key=secret.value)
        case SetPort(_, port):
            wireguard.set_device(index, port=port)
        case SetPeer(_, _, change):
            wireguard.set_peers(index, [change])
        case Greet(_, _, key, keepalive):
            # the kernel sends at once when a keepalive begins (netlink.c, set_peer)
            turns = (0, _AWAKE, keepalive)
            wireguard.set_peers(index, [PeerChange(key, keepalive=seconds) for seconds in turns])


def _request(action: Action, index: int) -> Request:
    match action:
        case SetMtu(_, mtu):
            return netlink.set_mtu(index, mtu)
        case AddAddress(_, address):
            return netlink.add_address(index, address, properties=netlink.UNIQUE if ":" in address else 0)
        case DeleteAddress(_, address):
            return netlink.delete_address(index, address)
        case AddRoute(_, to):
            return netlink.add_route(to, index)
        case DeleteRoute(_, to):
            return netlink_links.delete_route(to, index)
        case SetUp():
            return netlink.set_up(index)
    raise TypeError(action)
