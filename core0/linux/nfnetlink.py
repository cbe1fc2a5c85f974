"""Elements of the packet filter's sets by netlink, and the links that its chains look at, in transactions.

libnftables reads chains and links before it changes or tells an element: a thousandth container would wait for a
thousand of them. What comes and goes with containers is therefore sent and asked by hand; all else of the filter is
nftables.py's.

Values are as nft(8) has them in sets: each part of a concatenation is padded to four bytes, addresses are in network
order, numbers of links and marks in the host's.

Sources: include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h; nfnetlink.c for transactions.
"""

import errno
import socket
import struct
from collections.abc import Iterator, Sequence

import msgspec

from core0.linux.netlink import (
    Netlink,
    Request,
    attribute,
    attributes,
    each_attribute,
    hardware_bytes,
    nested,
    text,
)

_NETFILTER = 12
_BEGIN, _END, _NFTABLES = 0x10, 0x11, 10
_NEWCHAIN, _NEWELEMENT, _GETELEMENT, _DELELEMENT = (_NFTABLES << 8 | kind for kind in (3, 12, 13, 14))
_CREATE, _DUMP = 0x400, 0x300
_GENERIC = struct.Struct(">BBH")
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK = 1, 3, 4
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICES, _DEVICE_NAME = 1, 2, 4, 1
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_ELEMENT_KEY, _ELEMENT_DATA, _DATA_VALUE = 1, 2, 1
_ELEMENT_EXPRESSION, _EXPRESSION_DATA, _COUNTER_PACKETS = 7, 2, 2
_INGRESS = 0
FAMILIES = {"inet": 1, "netdev": 5}


class Element(msgspec.Struct, frozen=True):
    """An element of a set, or of a map.

    Attributes:
        family: of the table: `inet` or `netdev`.
        table: its name.
        into: the set's name.
        key: the value.
        data: what a map has for it.
    """

    family: str
    table: str
    into: str
    key: bytes
    data: bytes = b""


def link_name(name: str) -> bytes:
    """The name of a link as a value (ifname)."""
    return name.encode().ljust(16, b"\0")


def link_number(index: int) -> bytes:
    """The number of a link as a value (iface_index), or a mark."""
    return struct.pack("=I", index)


def hardware(pairs: str) -> bytes:
    """A hardware address as a value (ether_addr)."""
    return hardware_bytes(pairs).ljust(8, b"\0")


def address(text: str) -> bytes:
    """An IPv4 or IPv6 address as a value."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def add_element(element: Element) -> Request:
    """Have an element; one that is there already is fine."""
    return _element(_NEWELEMENT, _CREATE, element, "add an element to")


def delete_element(element: Element) -> Request:
    """Have it no more."""
    return _element(_DELELEMENT, 0, element, "delete an element of")


def _element(kind: int, flags: int, element: Element, verb: str) -> Request:
    value = nested(_ELEMENT_KEY, attribute(_DATA_VALUE, element.key))
    if element.data and kind == _NEWELEMENT:
        value += nested(_ELEMENT_DATA, attribute(_DATA_VALUE, element.data))
    body = (
        _GENERIC.pack(FAMILIES[element.family], 0, 0)
        + text(_LIST_TABLE, element.table)
        + text(_LIST_SET, element.into)
        + nested(_LIST_ELEMENTS, nested(_LIST_ELEMENT, value))
    )
    return Request(kind, flags, body, f"cannot {verb} set {element.into} of the packet filter")


def _counters(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Value and packets of each element in an answer."""
    listed = attributes(body[_GENERIC.size :]).get(_LIST_ELEMENTS, b"")
    for _, one in each_attribute(listed):
        element = attributes(one)
        expression = attributes(element[_ELEMENT_EXPRESSION])
        packets = attributes(expression[_EXPRESSION_DATA])[_COUNTER_PACKETS]
        yield attributes(element[_ELEMENT_KEY])[_DATA_VALUE], int.from_bytes(packets)


def watch_link(table: str, chain: str, link: str, priority: int = 0) -> Request:
    """Have a chain of family netdev look at what comes in by one more link; the kernel forgets it with the link."""
    hook = (
        attribute(_HOOK_NUMBER, struct.pack(">I", _INGRESS))
        + attribute(_HOOK_PRIORITY, struct.pack(">i", priority))
        + nested(_HOOK_DEVICES, text(_DEVICE_NAME, link))
    )
    body = _GENERIC.pack(FAMILIES["netdev"], 0, 0) + text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, chain)
    doing = f"cannot have the packet filter look at link {link}"
    return Request(_NEWCHAIN, _CREATE, body + nested(_CHAIN_HOOK, hook), doing)


class Nfnetlink(Netlink):
    """A socket to the packet filter of this thread's network namespace."""

    def __init__(self) -> None:
        super().__init__(_NETFILTER)

    def commit(self, requests: Sequence[Request]) -> None:
        """Carry out all requests, or none. Raises OSError of the first that failed."""
        edge = _GENERIC.pack(0, 0, _NFTABLES)
        doing = "cannot change the packet filter"
        begin, end = (Request(kind, 0, edge, doing, is_answered=False) for kind in (_BEGIN, _END))
        self.apply([begin, *requests, end])

    def count(self, element: Element) -> int:
        """How many packets an element of a set with counters was found for; 0 if it is not in the set."""
        try:
            body = self.get(_element(_GETELEMENT, 0, element, "read an element of"))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return 0
        return sum(packets for _, packets in _counters(body))

    def counts(self, family: str, table: str, into: str) -> dict[bytes, int]:
        """The same of all elements of a set, by their values. Raises OSError."""
        body = _GENERIC.pack(FAMILIES[family], 0, 0) + text(_LIST_TABLE, table) + text(_LIST_SET, into)
        request = Request(_GETELEMENT, _DUMP, body, f"cannot read set {into} of the packet filter")
        return {value: packets for _, found in self.dump(request) for value, packets in _counters(found)}
