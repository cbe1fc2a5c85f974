"""Which names a container may know, and which not: the containers of its own network. Pure.

Who asks is known by the address, which the packet filter has made sure of. All of `internal` is the node's own: it is
asked for nowhere else, and neither are the names of addresses of any of its networks.
"""

import socket

import msgspec

from core0.names.codec import (
    AAAA,
    ANY,
    AXFR,
    IXFR,
    NOERROR,
    NXDOMAIN,
    PTR,
    REFUSED,
    A,
    Labels,
    Question,
    Record,
    written,
)
from core0.wire.names import DOMAIN, Host, Told, Zone
from core0.wire.network import packed

_DOMAIN = DOMAIN.encode()


class Asker(msgspec.Struct, frozen=True):
    """Whoever asks: a container of a network, or another node's resolver, which is not to be asked back."""

    zone: Zone
    is_container: bool


class Found(msgspec.Struct, frozen=True):
    """What is known of a name.

    Attributes:
        code: NOERROR, NXDOMAIN or REFUSED.
        records: of the type that was asked for.
        zone: the domain that says there is nothing.
        elsewhere: whether containers of the network on other nodes may have the name.
    """

    code: int
    records: tuple[Record, ...] = ()
    zone: str = ""
    elsewhere: bool = False


class Zones:
    """The networks and their containers, as the node daemon told last."""

    def __init__(self) -> None:
        self._zones: dict[str, Zone] = {}
        self._subnets: list[tuple[int, int, int]] = []
        self._hosts: dict[tuple[str, bytes], Host] = {}
        self._by_address: dict[bytes, Host] = {}
        self._others: dict[str, str] = {}

    def hear(self, told: Told) -> None:
        """Take what changed."""
        if told.zones is not None:
            self._zones = {zone.network: zone for zone in told.zones}
            self._subnets = [_range(text) for zone in told.zones for text in (zone.ipv4, zone.ipv6)]
            self._others = {address: zone.network for zone in told.zones for address in zone.others}
        for address in told.went:
            self._forget(address)
        for host in told.came:
            self._hosts[host.network, host.name.encode()] = host
            for address in (host.ipv4, host.ipv6):
                self._by_address[packed(address) or b""] = host

    def _forget(self, address: str) -> None:
        host = self._by_address.pop(packed(address) or b"", None)
        if host is None:
            return
        self._by_address.pop(packed(host.ipv6) or b"", None)
        key = (host.network, host.name.encode())
        if self._hosts.get(key) is host:  # a new container of that name may have come first
            del self._hosts[key]

    def asker(self, source: str) -> Asker | None:
        """Who has an IPv4 address; None for strangers."""
        host = self._by_address.get(packed(source) or b"")
        network = host.network if host else self._others.get(source, "")
        zone = self._zones.get(network)
        return Asker(zone, host is not None) if zone else None

    def find(self, asker: Asker, question: Question) -> Found | None:
        """What is known of a name; None if it is one of the outside."""
        if question.labels[-1:] == (_DOMAIN,):
            return self._in_domain(asker.zone, question)
        address = _reversed(question.labels)
        if address is None or not self._is_inside(address):
            return None
        host = self._by_address.get(address)
        if host is None:
            return Found(NXDOMAIN, elsewhere=True)
        if host.network != asker.zone.network:
            return Found(NXDOMAIN)
        name = written(f"{host.name}.{host.network}.{DOMAIN}")
        return Found(NOERROR, ((PTR, name),) if question.kind in (PTR, ANY) else ())

    def _in_domain(self, zone: Zone, question: Question) -> Found:
        if question.kind in (AXFR, IXFR):
            return Found(REFUSED)
        within = question.labels[-2:] == (zone.network.encode(), _DOMAIN)
        if question.labels == (_DOMAIN,) or (within and len(question.labels) == 2):
            return Found(NOERROR, zone=DOMAIN)
        if not within or len(question.labels) != 3:
            return Found(NXDOMAIN, zone=DOMAIN)
        host = self._hosts.get((zone.network, question.labels[0]))
        if host is None:
            return Found(NXDOMAIN, zone=DOMAIN, elsewhere=True)
        return Found(NOERROR, _addresses(host, question.kind), DOMAIN)

    def _is_inside(self, address: bytes) -> bool:
        """Whether any of the networks has an address: what is the node's own is asked for nowhere else."""
        number = int.from_bytes(address)
        return any(size == len(address) and first <= number < end for size, first, end in self._subnets)


def _addresses(host: Host, kind: int) -> tuple[Record, ...]:
    both = ((A, host.ipv4), (AAAA, host.ipv6))
    return tuple((own, packed(text) or b"") for own, text in both if kind in (own, ANY))


def _range(subnet: str) -> tuple[int, int, int]:
    """A subnet as bytes of an address, its first number, and the one behind its last."""
    text, _, length = subnet.partition("/")
    first = packed(text) or b""
    number = int.from_bytes(first)
    return len(first), number, number + (1 << (8 * len(first) - int(length)))


def _reversed(labels: Labels) -> bytes | None:
    """The address whose name is asked for (RFC 1035 section 3.5, RFC 3596 section 2.5); None if that is not asked."""
    own, last = labels[-3::-1], labels[-2:]
    try:
        if last == (b"in-addr", b"arpa") and len(own) == 4:
            return socket.inet_pton(socket.AF_INET, b".".join(own).decode())
        if last == (b"ip6", b"arpa") and len(own) == 32 and all(len(label) == 1 for label in own):
            return bytes.fromhex(b"".join(own).decode())
    except (OSError, ValueError):  # a label that is no number
        return None
    return None
