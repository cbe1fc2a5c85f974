"""What routers advertise beside addresses and routes, which the kernel takes by itself: name servers, and flags.

Sources: RFC 4861 (router advertisements), RFC 8106 (name servers in them), include/uapi/linux/rtnetlink.h
(`nduseroptmsg`), include/uapi/linux/if_link.h (`IFLA_INET6_FLAGS`), include/net/if_inet6.h (the flags).
"""

import socket
import struct
from collections.abc import Iterator

import msgspec

from core0.linux.netlink import CHANGED, Notifications, messages

_NEWNDUSEROPT = 68
# Groups of rtnetlink(7), by bit: links' IPv6 properties (12), options of neighbour discovery (20).
_IPV6_IFINFO, _ND_USEROPT = 1 << 11, 1 << 19
_USEROPT = struct.Struct("=BBHiBBHI")
_RDNSS = 25
_RDNSS_HEAD = struct.Struct("!BBHI")
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT = 133, 134
_ALL_ROUTERS = "ff02::2"
_UNITS = 8


class NameServers(msgspec.Struct, frozen=True):
    """Name servers that a router advertised on a link, and for how many seconds they may be used (0: no more)."""

    index: int
    addresses: tuple[str, ...]
    seconds: int


class Heard(msgspec.Struct, frozen=True):
    """What was told of routers: on which links, and the name servers among it."""

    links: frozenset[int]
    servers: tuple[NameServers, ...] = ()


class Advertisements(Notifications):
    """Tells what routers advertise on the links of this network namespace, and when a link's flags changed."""

    _GROUPS = _ND_USEROPT | _IPV6_IFINFO

    def pending(self) -> Heard:
        """What has come since; link 0 is among it if some was lost. That comes again with the next advertisement."""
        came = [*self._datagrams()]
        links = {index for data in came for index in _links(data)}
        return Heard(frozenset(links), tuple(found for data in came for found in parse(data)))


def solicit(index: int) -> None:
    """Ask the routers of a link to advertise now (RFC 4861 section 6.3.7). Raises OSError if nothing can be sent."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6) as out:
        out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        out.sendto(bytes([_ROUTER_SOLICITATION]) + bytes(7), (_ALL_ROUTERS, 0, 0, index))


def _links(data: bytes) -> Iterator[int]:
    """The links that a datagram is about."""
    if not data:
        yield 0
    for _, kind, body in messages(data):
        yield _USEROPT.unpack_from(body)[3] if kind == _NEWNDUSEROPT else CHANGED.unpack_from(body)[0]


def parse(data: bytes) -> Iterator[NameServers]:
    """The name servers in a datagram of rtnetlink messages."""
    for _, kind, body in messages(data):
        if kind == _NEWNDUSEROPT:
            yield from _parse_options(body)


def _parse_options(body: bytes) -> Iterator[NameServers]:
    if len(body) < _USEROPT.size:
        return
    family, _, length, index, kind, _, _, _ = _USEROPT.unpack_from(body)
    if family != socket.AF_INET6 or kind != _ROUTER_ADVERTISEMENT:
        return
    options = body[_USEROPT.size : _USEROPT.size + length]
    while len(options) >= _UNITS and options[1]:
        size = options[1] * _UNITS
        if options[0] == _RDNSS and size <= len(options):
            yield _parse_name_servers(index, options[:size])
        options = options[size:]


def _parse_name_servers(index: int, option: bytes) -> NameServers:
    *_, seconds = _RDNSS_HEAD.unpack_from(option)
    packed = option[_RDNSS_HEAD.size :]
    whole = range(0, len(packed) - len(packed) % 16, 16)
    addresses = tuple(socket.inet_ntop(socket.AF_INET6, packed[at : at + 16]) for at in whole)
    return NameServers(index, addresses, seconds)
