"""Links, addresses and routes by rtnetlink, in batches on one socket.

Boot and container attachment wait for this module, so it encodes the few messages they need itself: importing
pyroute2 takes longer than a node's whole network set-up (docs/decisions/0003-own-rtnetlink.md).

Sources: netlink(7), rtnetlink(7), include/uapi/linux/if_link.h and veth.h.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _NEWRULE, _GETRULE, _NEWLINKPROP = 28, 32, 34, 108
_ERROR, _DONE = 2, 3
_REQUEST, _MULTI, _ACK, _DUMP, _CREATE, _EXCL, _REPLACE = 1, 2, 4, 0x300, 0x400, 0x200, 0x100
_APPEND = 0x800
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
# Where messages about links and about addresses have the link's number.
# What a message on a link or an address begins with: its number.
CHANGED = struct.Struct("=4xi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_NESTED = 0x8000

NEW_LINK = _NEWLINK
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_CARRIER = 1, 3, 4, 18, 28, 33
_IFLA_LINK, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_IFALIAS, _IFLA_PERM_ADDRESS = 5, 10, 12, 20, 54
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA, _VETH_PEER = 1, 2, 4, 5, 1
_VLAN_ID, _BOND_MODE, _BOND_MIIMON, _BOND_PRIMARY, _BOND_AD_INFO = 1, 1, 3, 11, 23
_AD_AGGREGATOR, _AD_PARTNER_MAC, _SLAVE_PERM_ADDRESS, _SLAVE_AGGREGATOR = 1, 5, 4, 6
_IFLA_GSO_MAX_SIZE, _IFLA_GSO_IPV4_MAX_SIZE = 41, 63
_IFLA_MAX_MTU, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 51, 52, 53
_INET6_FLAGS = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_PROTO = 1, 2, 6, 11
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_IFLA_AF_SPEC, _IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 26, 8, b"\1"
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST, _RTNH_F_ONLINK = 254, 4, 253, 1, 4
# What a router says of a link (include/net/if_inet6.h): addresses, or other things, are to be had by DHCPv6.
ROUTER_OTHER, ROUTER_MANAGED = 0x80, 0x40
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 1, 8, 0x40
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 1, 0x10, 0x100
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40
# Of if_bonding.h the modes that configs know.
BOND_MODES = {1: "active-backup", 4: "802.3ad"}
# How the node marks what a config had it make: the alias of a link, and the protocol of an address (IFA_PROTO), of
# which the kernel uses the first three itself (include/uapi/linux/if_addr.h).
MARK, CONFIGURED = "zeronode", 90
# The routing tables that are for single links' addresses: 24 bits under a number of the node's own. A rule that leads
# there carries CONFIGURED as its protocol (FRA_PROTOCOL, include/uapi/linux/fib_rules.h).
OWN_TABLES = range(0x5A000000, 0x5B000000)
_FRA_SRC, _FRA_TABLE, _FRA_PROTOCOL = 2, 15, 21
# An address that nobody else can have is used at once (IFA_F_NODAD; include/uapi/linux/if_addr.h).
UNIQUE = 2


class Link(msgspec.Struct, frozen=True):
    """A network link as the kernel reports it.

    Attributes:
        index: its number.
        name: its name.
        address: its hardware address in hexadecimal pairs.
        mtu: bytes.
        flags: IFF_UP and others.
        carrier: whether it has a peer.
        kind: what it was made as; "" for hardware.
        master: the number of the bond or bridge that it is a member of, or 0.
        parent: of a VLAN the number of the link that it is on, of a veth that of its peer, or 0.
        alias: what is noted on it.
        permanent: its own hardware address, which it keeps as a member of a bond, if it has one.
        vlan: of a VLAN its tag.
        bond: of a bond its mode, milliseconds between looks at carriers, and the number of its primary member.
        other_names: more names by which it is found.
        lacp: of a bond that speaks LACP the number of the aggregator in use, and the hardware address of the partner
            in it: of zeros if there is none.
        aggregator: of a member of such a bond the number of the one that it is in, or 0.
        largest_mtu: what its driver takes, or 0.
    """

    index: int
    name: str
    address: str
    mtu: int
    flags: int
    carrier: bool
    kind: str = ""
    master: int = 0
    parent: int = 0
    alias: str = ""
    permanent: str = ""
    vlan: int = 0
    bond: tuple[int, int, int] | None = None
    other_names: tuple[str, ...] = ()
    lacp: tuple[int, str] | None = None
    aggregator: int = 0
    largest_mtu: int = 0

    @property
    def is_up(self) -> bool:
        """Whether the link is set up by the administrator."""
        return bool(self.flags & IFF_UP)

    @property
    def is_loopback(self) -> bool:
        """Whether this is the loopback."""
        return bool(self.flags & IFF_LOOPBACK)


class Address(msgspec.Struct, frozen=True):
    """An address of a link, as `address/prefix length`.

    Attributes:
        index: the link's.
        interface: the address.
        tentative: whether the kernel still looks for another machine that has it (RFC 4862 section 5.4).
        duplicate: whether it found one.
        protocol: who made it (IFA_PROTO), 0 if nobody says.
    """

    index: int
    interface: str
    tentative: bool = False
    duplicate: bool = False
    protocol: int = 0


class Route(msgspec.Struct, frozen=True):
    """A static route out of one link, of the main table (0) or one of the node's own.

    `gateway` is "" for a network on the link.
    """

    index: int
    destination: str
    gateway: str
    metric: int
    table: int = 0


class Request(msgspec.Struct, frozen=True):
    """One message ready to be sent, and what it is for (it starts the error message).

    The kernel says of each what came of it, but for those that are not to be answered: of them only what failed.
    """

    kind: int
    flags: int
    body: bytes
    doing: str
    is_answered: bool = True


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    padding = -len(value) % 4
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(padding)


def nested(kind: int, value: bytes) -> bytes:
    """An attribute that is made of attributes."""
    return attribute(kind | _NESTED, value)


def text(kind: int, value: str) -> bytes:
    """An attribute that is a text with its end."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def link_body(index: int, flags: int = 0, change: int = 0) -> bytes:
    """What a message about a link starts with: its number, its flags, and which of them are meant."""
    return _IFINFO.pack(0, 0, index, flags, change)


def link_kind(kind: str, data: bytes) -> bytes:
    """What a link is made as, with that kind's own attributes."""
    nested = attribute(_INFO_DATA | _NESTED, data) if data else b""
    return attribute(_IFLA_LINKINFO | _NESTED, text(_INFO_KIND, kind) + nested)


def set_up(index: int) -> Request:
    """Set a link up."""
    body = _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
    return Request(_NEWLINK, 0, body, f"cannot set link {index} up")


def set_name(index: int, name: str) -> Request:
    """Call a link, which is down, by another name."""
    body = link_body(index) + text(_IFLA_IFNAME, name)
    return Request(_NEWLINK, 0, body, f"cannot call link {index} {name}")


def add_other_name(index: int, name: str) -> Request:
    """Let a link be found by one more name."""
    body = link_body(index) + attribute(_IFLA_PROP_LIST | _NESTED, text(_IFLA_ALT_IFNAME, name))
    return Request(_NEWLINKPROP, _CREATE | _EXCL | _APPEND, body, f"cannot call link {index} also {name}")


def set_mtu(index: int, mtu: int) -> Request:
    """Set a link's MTU in bytes."""
    body = _IFINFO.pack(0, 0, index, 0, 0) + number(_IFLA_MTU, mtu)
    return Request(_NEWLINK, 0, body, f"cannot set the MTU of link {index} to {mtu}")


class End(msgspec.Struct, frozen=True):
    """One end of a pair of links. The kernel chooses what is not given.

    Attributes:
        name: its name.
        hardware: its hardware address in hexadecimal pairs.
        index: its index.
    """

    name: str
    hardware: str = ""
    index: int = 0


def add_veth(end: End, peer: End, peer_namespace: int, *, mtu: int = 1500, segment: int = 0) -> Request:
    """Make a pair of linked devices: `end`, up, here; `peer` in the network namespace of a descriptor.

    Args:
        end: the one here.
        peer: the other one.
        peer_namespace: the descriptor.
        mtu: of both, bytes.
        segment: bytes that TCP may send as one packet, above 65,536 (BIG TCP); 0 for the kernel's own choice.
    """
    both = number(_IFLA_MTU, mtu)
    if segment:
        both += number(_IFLA_GSO_MAX_SIZE, segment) + number(_IFLA_GSO_IPV4_MAX_SIZE, segment)
    other = _IFINFO.pack(0, 0, peer.index, 0, 0) + _end(peer) + both + number(_IFLA_NET_NS_FD, peer_namespace)
    info = link_kind("veth", attribute(_VETH_PEER | _NESTED, other))
    body = _IFINFO.pack(0, 0, end.index, IFF_UP, IFF_UP) + _end(end) + both + info
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"cannot create link {end.name}")


def _end(end: End) -> bytes:
    hardware = attribute(_IFLA_ADDRESS, hardware_bytes(end.hardware)) if end.hardware else b""
    return text(_IFLA_IFNAME, end.name) + hardware


def hardware_bytes(pairs: str) -> bytes:
    """A hardware address in hexadecimal pairs as bytes."""
    return bytes.fromhex(pairs.replace(":", ""))


def forbid_link_local(index: int) -> Request:
    """Have the kernel make no IPv6 address up for a link, which is not in use yet."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)
    body = _IFINFO.pack(0, 0, index, 0, 0)
    body += attribute(_IFLA_AF_SPEC | _NESTED, attribute(socket.AF_INET6 | _NESTED, mode))
    return Request(_NEWLINK, 0, body, f"cannot forbid IPv6 addresses made up for link {index}")


def delete_link(name: str) -> Request:
    """Delete a link by name."""
    return Request(
        _DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name), f"cannot delete link {name}"
    )


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _prefix(text: str) -> tuple[socket.AddressFamily, bytes, int]:
    """Family, packed address and length of `address/prefix length`. The kernel judges whether they fit."""
    address, _, length = text.partition("/")
    family = _family(address)
    return family, socket.inet_pton(family, address), int(length)


def _address(kind: int, flags: int, index: int, interface: str, doing: str, properties: int = 0) -> Request:
    family, packed, length = _prefix(interface)
    body = _IFADDR.pack(family, length, properties, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return Request(kind, flags, body, f"{doing} {interface} of link {index}")


def add_address(
    index: int, interface: str, protocol: int = 0, *, seconds: int = 0, properties: int = 0
) -> Request:
    """Give a link an address, written `address/prefix length`; one that it has already is fine.

    Args:
        index: the link's.
        interface: the address.
        protocol: what to note of who made it (IFA_PROTO); 0 for nothing.
        seconds: after how many the kernel takes it away; 0 for never.
        properties: flags of the address: `UNIQUE`.
    """
    request = _address(_NEWADDR, _CREATE | _REPLACE, index, interface, "cannot add address", properties)
    more = attribute(_IFA_PROTO, bytes([protocol])) if protocol else b""
    if seconds:
        more += attribute(_IFA_CACHEINFO, struct.pack("=IIII", seconds, seconds, 0, 0))
    return msgspec.structs.replace(request, body=request.body + more) if more else request


def delete_address(index: int, interface: str) -> Request:
    """Take an address from a link."""
    return _address(_DELADDR, 0, index, interface, "cannot delete address")


def add_route(
    destination: str, index: int, gateway: str | None = None, *, metric: int = 0, table: int = 0
) -> Request:
    """Route a network out of a link, directly or by a gateway (taken to be on that link)."""
    return route_request(destination, index, gateway, metric=metric, table=table, delete=False)


def route_request(
    destination: str, index: int, gateway: str | None, *, metric: int, table: int = 0, delete: bool
) -> Request:
    """Add or take a static route, of the main table (0) or another."""
    family, network, length = _prefix(destination)
    scope = 0 if gateway else _RT_SCOPE_LINK
    flags = _RTNH_F_ONLINK if gateway else 0
    main = 0 if table else _RT_TABLE_MAIN
    body = _ROUTE.pack(family, length, 0, 0, main, _RTPROT_STATIC, scope, _RTN_UNICAST, flags)
    body += attribute(_RTA_DST, network) + number(_RTA_OIF, index)
    if table:
        body += number(_RTA_TABLE, table)
    if gateway:
        body += attribute(_RTA_GATEWAY, socket.inet_pton(_family(gateway), gateway))
    if metric:
        body += number(_RTA_PRIORITY, metric)
    kind, options, verb = (_DELROUTE, 0, "delete") if delete else (_NEWROUTE, _CREATE | _REPLACE, "add")
    way = f" by {gateway}" if gateway else ""
    return Request(kind, options, body, f"cannot {verb} route to {destination}{way} on link {index}")


def add_neighbour(index: int, address: str, hardware: str) -> Request:
    """Tell for good which hardware address an address of a link has: nobody is asked."""
    family = _family(address)
    body = _NDMSG.pack(family, index, _NUD_PERMANENT, 0, 0)
    body += attribute(_NDA_DST, socket.inet_pton(family, address)) + attribute(
        _NDA_LLADDR, hardware_bytes(hardware)
    )
    return Request(_NEWNEIGH, _CREATE | _REPLACE, body, f"cannot add neighbour {address} of link {index}")


class Netlink:
    """A synchronous netlink socket in the network namespace of the thread that makes it, rtnetlink's by default."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(5)
        self._sequence = 0

    def __enter__(self) -> "Netlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def apply(self, requests: Iterable[Request]) -> None:
        """Send all requests in one datagram; the kernel carries them out in order.

        Raises:
            OSError: of the first request that failed, in its words. The later ones were tried as well.
        """
        sent = {self._next(): request for request in requests}
        if not sent:
            return
        self._socket.send(b"".join(self._encode(number, request) for number, request in sent.items()))
        failed = []
        left = {number for number, request in sent.items() if request.is_answered}
        while left:
            for number, kind, body in self._receive():
                if kind == _ERROR and number in sent:
                    left.discard(number)
                    failed += _failure(body, sent[number])
                    if failed and not sent[number].is_answered:
                        raise failed[0]
        if failed:
            raise failed[0]

    def links(self) -> list[Link]:
        """Every link of this network namespace."""
        request = Request(_GETLINK, _DUMP, _IFINFO.pack(0, 0, 0, 0, 0), "cannot list links")
        return [_parse_link(body) for kind, body in self.dump(request) if kind == _NEWLINK]

    def link(self, index: int) -> Link | None:
        """One link by its number; None if there is none."""
        doing = f"cannot look at link {index}"
        try:
            return _parse_link(self.get(Request(_GETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0), doing)))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return None

    def addresses(self) -> list[Address]:
        """Every address of this network namespace."""
        request = Request(_GETADDR, _DUMP, _IFADDR.pack(0, 0, 0, 0, 0), "cannot list addresses")
        return [_parse_address(body) for kind, body in self.dump(request) if kind == _NEWADDR]

    def router_flags(self) -> dict[int, int]:
        """What routers say of each link that speaks IPv6, by its index: `ROUTER_MANAGED`, `ROUTER_OTHER`."""
        family = bytes([socket.AF_INET6])
        request = Request(_GETLINK, _DUMP, family + _IFINFO.pack(0, 0, 0, 0, 0)[1:], "cannot list links")
        return dict(_parse_router_flags(body) for kind, body in self.dump(request) if kind == _NEWLINK)

    def routes(self) -> list[Route]:
        """The static routes of the main table and of the node's own, each out of one link."""
        request = Request(_GETROUTE, _DUMP, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "cannot list routes")
        found = [_parse_route(body) for kind, body in self.dump(request) if kind == _NEWROUTE]
        return [route for route in found if route]

    def rules(self) -> list[tuple[int, str, int]]:
        """The rules that the node made: IP version, source or "", and one of its own tables or 0."""
        request = Request(_GETRULE, _DUMP, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "cannot list rules")
        found = [_parse_rule(body) for kind, body in self.dump(request) if kind == _NEWRULE]
        return [rule for rule in found if rule]

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _encode(self, number: int, request: Request) -> bytes:
        flags = _REQUEST | request.flags | (0 if request.flags & _DUMP == _DUMP else _ACK)
        return _HEADER.pack(_HEADER.size + len(request.body), request.kind, flags, number, 0) + request.body

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        yield from messages(self._socket.recv(1 << 18))

    def get(self, request: Request) -> bytes:
        """The kernel's answer to a request, if it is one message. Raises OSError in the request's words."""
        number, found = self._next(), b""
        self._socket.send(self._encode(number, request))
        while True:
            for answered, kind, body in self._receive():
                if answered != number:
                    continue
                if kind == _ERROR:
                    for failure in _failure(body, request):
                        raise failure
                    return found
                found = body

    def dump(self, request: Request) -> Iterator[tuple[int, bytes]]:
        """The kernel's answers to a request, each with its kind. Raises OSError in the request's words."""
        number = self._next()
        self._socket.send(self._encode(number, request))
        while True:
            for answered, kind, body in self._receive():
                if answered != number:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise _failure(body, request)[0]
                yield kind, body


class Notifications:
    """What the kernel tells of this network namespace by itself; each kind of it is of other groups (netlink(7))."""

    _GROUPS = 0

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, self._GROUPS))

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _datagrams(self) -> Iterator[bytes]:
        """Those that have come; an empty one where an overrun (ENOBUFS) lost some."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, sender = self._receive_one()
                if sender == 0:  # the kernel, and no process
                    yield data

    def _receive_one(self) -> tuple[bytes, int]:
        try:
            data, (sender, _) = self._socket.recvfrom(1 << 18)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return b"", 0
        return data, sender


class LinkChanges(Notifications):
    """Says which links of this network namespace, or their IPv6 addresses, changed; who hears it looks at all."""

    _GROUPS = _RTMGRP_LINK | _RTMGRP_IPV6_IFADDR

    def links(self) -> set[int]:
        """The numbers of the links since the last call; 0 is among them if notifications were lost."""
        found: set[int] = set()
        for data in self._datagrams():
            found |= {CHANGED.unpack_from(body)[0] for _, _, body in messages(data)} if data else {0}
        return found


class AddressChanges(LinkChanges):
    """Says of which links addresses came or went."""

    _GROUPS = _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Each message of a datagram: its sequence number, kind and body. One that is none ends them."""
    while len(data) >= _HEADER.size:
        length, kind, _, number, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield number, kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _failure(body: bytes, request: Request) -> list[OSError]:
    number: int = -struct.unpack_from("=i", body)[0]
    return [OSError(number, f"{request.doing}: {os.strerror(number)}")] if number else []


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message, by their kind."""
    return dict(each_attribute(data))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute, in order: a list has all of one kind."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body[_IFINFO.size :])
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    member = _parse_bond_member(info)
    return Link(
        index=index,
        name=found[_IFLA_IFNAME].rstrip(b"\0").decode(),
        address=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=struct.unpack("=I", found.get(_IFLA_MTU, bytes(4)))[0],
        flags=flags,
        carrier=found.get(_IFLA_CARRIER, b"\0") != b"\0",
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        master=_word(found.get(_IFLA_MASTER)),
        parent=_word(found.get(_IFLA_LINK)),
        alias=found.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
        permanent=(member.get(_SLAVE_PERM_ADDRESS) or found.get(_IFLA_PERM_ADDRESS, b"")).hex(":"),
        aggregator=_word(member.get(_SLAVE_AGGREGATOR)),
        other_names=tuple(
            value.rstrip(b"\0").decode()
            for kind, value in each_attribute(found.get(_IFLA_PROP_LIST, b""))
            if kind == _IFLA_ALT_IFNAME
        ),
        largest_mtu=_word(found.get(_IFLA_MAX_MTU)),
        **_parse_kind(info),
    )


def _parse_router_flags(body: bytes) -> tuple[int, int]:
    _, _, index, _, _ = _IFINFO.unpack_from(body)
    own = attributes(attributes(body[_IFINFO.size :]).get(_IFLA_PROTINFO, b""))
    return index, _word(own.get(_INET6_FLAGS)) & (ROUTER_MANAGED | ROUTER_OTHER)


def _word(data: bytes | None) -> int:
    """A number of 32 bits, or of 16, or of 8; 0 if there is none."""
    return int.from_bytes(data or b"", sys.byteorder)


def _parse_bond_member(info: dict[int, bytes]) -> dict[int, bytes]:
    """What a bond knows of a member: its own hardware address, too, as the bond lends it another."""
    if info.get(_INFO_SLAVE_KIND, b"").rstrip(b"\0") != b"bond":
        return {}
    return attributes(info.get(_INFO_SLAVE_DATA, b""))


def _parse_kind(info: dict[int, bytes]) -> dict[str, Any]:
    """What only a link of this kind has."""
    kind, data = info.get(_INFO_KIND, b"").rstrip(b"\0"), info.get(_INFO_DATA, b"")
    if kind == b"vlan":
        return {"vlan": _word(attributes(data).get(_VLAN_ID))}
    if kind == b"bond":
        bond = attributes(data)
        way = tuple(_word(bond.get(field)) for field in (_BOND_MODE, _BOND_MIIMON, _BOND_PRIMARY))
        agreed = attributes(bond.get(_BOND_AD_INFO, b""))
        partner = agreed.get(_AD_PARTNER_MAC, b"").hex(":")
        return {"bond": way, "lacp": (_word(agreed.get(_AD_AGGREGATOR)), partner) if agreed else None}
    return {}


def _parse_address(body: bytes) -> Address:
    family, length, flags, _, index = _IFADDR.unpack_from(body)
    found = attributes(body[_IFADDR.size :])
    packed = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    interface = f"{socket.inet_ntop(family, packed)}/{length}"
    duplicate = bool(flags & _IFA_F_DADFAILED)
    tentative = bool(flags & _IFA_F_TENTATIVE) and not duplicate
    return Address(index, interface, tentative, duplicate, _word(found.get(_IFA_PROTO)))


def _parse_route(body: bytes) -> Route | None:
    """A route, if it is a static one of the main table, or of one of the node's, out of one link."""
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    found = attributes(body[_ROUTE.size :])
    table = _word(found.get(_RTA_TABLE)) or table
    is_known = table == _RT_TABLE_MAIN or table in OWN_TABLES
    if not is_known or (protocol, kind) != (_RTPROT_STATIC, _RTN_UNICAST):
        return None
    if family not in (socket.AF_INET, socket.AF_INET6) or _RTA_OIF not in found:
        return None
    whole = bytes(4 if family == socket.AF_INET else 16)
    destination = f"{socket.inet_ntop(family, found.get(_RTA_DST, whole))}/{length}"
    gateway = socket.inet_ntop(family, found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else ""
    own = table if table in OWN_TABLES else 0
    return Route(_word(found[_RTA_OIF]), destination, gateway, _word(found.get(_RTA_PRIORITY)), own)


def _parse_rule(body: bytes) -> tuple[int, str, int] | None:
    """A rule, if the node made it."""
    family = body[0]
    found = attributes(body[_ROUTE.size :])
    if _word(found.get(_FRA_PROTOCOL)) != CONFIGURED or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    table = _word(found.get(_FRA_TABLE))
    source = socket.inet_ntop(family, found[_FRA_SRC]) if _FRA_SRC in found else ""
    return 4 if family == socket.AF_INET else 6, source, table if table in OWN_TABLES else 0
