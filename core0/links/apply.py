"""Carries out the plan's actions; the only module here that changes the kernel's links."""

import contextlib
import errno
import os
from collections.abc import Iterable

from core0.links.model import (
    Action,
    AddRoute,
    AddRule,
    Create,
    DeleteRoute,
    DeleteRule,
    SetBond,
    SetDown,
    SetIpv6,
    SetMaster,
    SetMtu,
    WantedLink,
)
from core0.linux import files, netlink
from core0.linux.link_actions import AddAddress, DeleteAddress, DeleteLink, SetUp, number_of
from core0.linux.netlink import Netlink, Request

_DARK = "/proc/sys/net/{}/conf/{}/ignore_routes_with_linkdown"
_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"
# What the kernel took along with something else, an address with an earlier one of its network, is gone as wanted.
_GONE = {DeleteAddress: (errno.EADDRNOTAVAIL,), DeleteRoute: (errno.ESRCH,), DeleteRule: (errno.ENOENT,)}
_MODULES = {"vlan": "8021q", "bond": "bonding", "bridge": "bridge"}


def apply(action: Action, rtnetlink: Netlink) -> None:
    """Carry out one action. Raises OSError with what was tried."""
    match action:
        case SetUp(link):
            _pass_over_without_carrier(link)
        case SetIpv6(link, on):
            _write_ipv6(link, on, action)
        case Create(_, wanted):
            load({wanted.kind})
            rtnetlink.apply([_creation(wanted)])
        case _:
            pass
    try:
        if isinstance(action, AddRule | DeleteRule):
            rtnetlink.apply([_rule_request(action)])
        else:
            rtnetlink.apply(_requests(action, number_of(action.link, action)))
    except OSError as error:
        if error.errno not in _GONE.get(type(action), ()):
            raise


def _rule_request(action: AddRule | DeleteRule) -> Request:
    from core0.linux import netlink_links as links

    version, source, table = action.rule.version, action.rule.source, action.rule.table
    return links.rule_request(version, source, table, delete=isinstance(action, DeleteRule))


def _requests(action: Action, index: int) -> list[Request]:
    match action:
        case SetUp():
            return [netlink.set_up(index)]
        case DeleteAddress(_, address):
            return [netlink.delete_address(index, address)]
        case AddAddress(_, address):
            return [netlink.add_address(index, address, netlink.CONFIGURED if ":" in address else 0)]
        case AddRoute(_, route):
            return [
                netlink.add_route(route.to, index, route.via or None, metric=route.metric, table=route.table)
            ]
        case SetIpv6():
            return []
        case _:
            return _rare_requests(action, index)


def _rare_requests(action: Action, index: int) -> list[Request]:
    """Those of configs, which no boot waits for."""
    from core0.linux import netlink_links as links

    match action:
        case Create():
            return [links.set_alias(index, netlink.MARK)]
        case DeleteLink(name):
            return [netlink.delete_link(name)]
        case SetDown():
            return [links.set_down(index)]
        case SetMaster(_, master, is_bond):
            lower = [links.set_down(index)] if is_bond else []
            return [*lower, links.set_master(index, number_of(master, action) if master else 0)]
        case SetBond(_, bond):
            primary = number_of(bond.primary, action) if bond.primary else 0
            return [links.set_bond(index, bond.miimon, primary if bond.mode == "active-backup" else None)]
        case SetMtu(_, mtu, is_card, original):
            note = f"{netlink.MARK} mtu={original}" if original is not None else ""
            return [netlink.set_mtu(index, mtu), *([links.set_alias(index, note)] if is_card else [])]
        case DeleteRoute(_, route):
            return [
                links.delete_route(route.to, index, route.via or None, metric=route.metric, table=route.table)
            ]
    raise TypeError(action)


def _creation(wanted: WantedLink) -> Request:
    from core0.linux import netlink_links as links

    if wanted.kind == "vlan":
        return links.add_vlan(wanted.name, number_of(wanted.parent, Create(wanted.name, wanted)), wanted.vlan)
    if wanted.bond:
        return links.add_bond(wanted.name, wanted.bond.mode, wanted.bond.miimon)
    return links.add_bridge(wanted.name)


def _pass_over_without_carrier(link: str) -> None:
    """Let routes out of a link be none while it has no carrier: another card may be on the same network.

    Not set for all: the kernel notices the carrier of a container's new link only after a while.
    """
    for family in ("ipv4", "ipv6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6, an MTU too small for it
            files.write(_DARK.format(family, link), "1")


def _write_ipv6(link: str, on: bool, action: Action) -> None:
    try:
        files.write(_IPV6.format(link), "0" if on else "1")
    except OSError as error:
        if not on and error.errno == errno.ENOENT:  # its MTU is too small for IPv6, or the kernel has none
            return
        raise OSError(error.errno, f"cannot {action}: {os.strerror(error.errno or 0)}") from None


_loaded: set[str] = set()


def missing(kinds: Iterable[str]) -> frozenset[str]:
    """The kinds of links whose drivers this daemon did not load yet; "" is a card."""
    return frozenset(kinds) - _loaded - {""}


def load(kinds: Iterable[str]) -> None:
    """Have the kernel know kinds of links: the drivers are in the image's storage part, which no boot waits for.

    That is read from the image's memory, unpacked and checked: call it from a thread first.

    Raises:
        OSError: the image has no driver for one, or the kernel does not take it.
    """
    if wanted := missing(kinds):
        from core0.linux.tools import load_modules

        load_modules(tuple(_MODULES[kind] for kind in wanted))
        _loaded.update(wanted)
