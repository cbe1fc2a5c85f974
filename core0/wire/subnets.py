"""Subnets as numbers: parsing, overlap, and the addresses in them. Pure.

Python's ipaddress would do, but importing it takes an emulated node longer than the first container's whole link.
"""

import socket
from functools import lru_cache

import msgspec

from core0.wire.network import packed

_BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}
# What no container can have: this host, loopback, link-local, multicast and reserved (RFC 6890).
_UNUSABLE = (
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/3",
    "::/8",
    "fe80::/10",
    "ff00::/8",
)


class Subnet(msgspec.Struct, frozen=True):
    """Addresses that share their first `length` bits; `first` is the lowest of them as a number."""

    family: int
    first: int
    length: int

    def __str__(self) -> str:
        return f"{self.address(0)}/{self.length}"

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return 1 << (self.bits - self.length)

    @property
    def bits(self) -> int:
        """The length of an address: 32 or 128."""
        return _BITS[socket.AddressFamily(self.family)]

    def address(self, host: int) -> str:
        """The address with this number in it."""
        packed = (self.first + host).to_bytes(self.bits // 8)
        return socket.inet_ntop(self.family, packed)

    def overlaps(self, other: "Subnet") -> bool:
        """Whether they have an address in common."""
        return (
            self.family == other.family
            and self.first < other.first + other.size
            and other.first < self.first + self.size
        )

    def holds(self, other: "Subnet") -> bool:
        """Whether all addresses of the other are among its own."""
        return self.overlaps(other) and self.length <= other.length


# Each new network is held against all others: without it a thousand of them take ten times as long.
@lru_cache(maxsize=8192)
def parse_interface(text: str) -> tuple[Subnet, int]:
    """The subnet of `address/prefix length`, and the address's number in it.

    Raises:
        ValueError: with why it is none.
    """
    address, slash, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    number = packed(address)
    if number is None:
        raise ValueError(f"{address[:64]!a} is no address")
    bits = _BITS[family]
    if not slash or not length.isdecimal() or not length.isascii() or int(length) > bits:
        raise ValueError(f"its prefix length must be a number from 0 to {bits}")
    host = int.from_bytes(number) & ((1 << (bits - int(length))) - 1)
    return Subnet(family, int.from_bytes(number) - host, int(length)), host


def parse_subnet(text: str) -> Subnet:
    """The subnet of `first address/prefix length`. Raises ValueError with why it is none."""
    subnet, host = parse_interface(text)
    if host:
        raise ValueError(f"it has bits behind its prefix: {subnet} would be the subnet")
    return subnet


def parse_part(text: str) -> Subnet:
    """The same of a subnet, or of one address without its length. Raises ValueError with why it is none."""
    return parse_subnet(text if "/" in text else f"{text}/{128 if ':' in text else 32}")


def unusable(subnet: Subnet) -> str | None:
    """The range, not for containers, that a subnet touches; None if it touches none."""
    return next((text for text in _UNUSABLE if parse_subnet(text).overlaps(subnet)), None)
