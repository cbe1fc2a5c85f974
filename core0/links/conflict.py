"""Whether another machine on the link has an IPv4 address, too: by ARP, as RFC 5227 has it.

The node asks while it uses the address already: a boot waits for no silence. The kernel asks the same of IPv6 itself.
"""

import asyncio
import socket
import struct
from collections.abc import Collection, Iterator

import msgspec

from core0.linux.netlink import Netlink

_ETH_P_ARP, _ETH_P_IP, _ETHERNET = 0x0806, 0x0800, 1
_REQUEST, _REPLY = 1, 2
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_BROADCAST = b"\xff" * 6
_NOBODY = bytes(6)
_NO_ADDRESS = bytes(4)
# How often to ask, and seconds to listen after each (RFC 5227 section 1.1: PROBE_NUM, PROBE_MIN).
_PROBES, _PAUSE = 3, 1.0


class Packet(msgspec.Struct, frozen=True):
    """An ARP packet for IPv4 on Ethernet (RFC 826): whose address the sender says it has, and whose it asks for."""

    operation: int
    sender: bytes
    sender_address: bytes
    target_address: bytes


def encode_probe(hardware: bytes, address: bytes) -> bytes:
    """A question for an address that does not say whose it is, so that nobody's memory of it changes."""
    head = (_ETHERNET, _ETH_P_IP, len(hardware), len(address), _REQUEST)
    return _ARP.pack(*head, hardware, _NO_ADDRESS, _NOBODY, address)


def decode(data: bytes) -> Packet | None:
    """An ARP packet; None for whatever is not one of IPv4 on Ethernet."""
    if len(data) < _ARP.size:
        return None
    *kind, operation, sender, sender_address, _, target_address = _ARP.unpack_from(data)
    if kind != [_ETHERNET, _ETH_P_IP, 6, 4] or operation not in (_REQUEST, _REPLY):
        return None
    return Packet(operation, sender, sender_address, target_address)


def is_claim(packet: Packet, own: Collection[bytes], address: bytes) -> bool:
    """Whether somebody else says that the address is theirs, or is about to take it (RFC 5227 section 2.1.1).

    Args:
        packet: what was heard.
        own: the hardware addresses of this machine. Where several of its cards are on one segment, the kernel answers
            a question for any of its addresses by each of them (arp_ignore in ip-sysctl.rst).
        address: which it is about.
    """
    if packet.sender in own:
        return False
    probes = packet.sender_address == _NO_ADDRESS and packet.target_address == address
    return packet.sender_address == address or (packet.operation == _REQUEST and probes)


async def find_other(link: str, address: str, probes: int = _PROBES, pause: float = _PAUSE) -> str | None:
    """Look for another machine that has an address.

    Args:
        link: where to look, by name.
        address: without its prefix length.
        probes: how often to ask.
        pause: seconds to listen after each.

    Returns:
        The other one's hardware address, in hexadecimal pairs; None if nobody else has it.

    Raises:
        OSError: the link is gone, or down.
    """
    packed = socket.inet_aton(address)
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ARP)) as wire:
        wire.bind((link, _ETH_P_ARP))
        hardware: bytes = wire.getsockname()[4]
        own = {hardware, *_own_hardware()}
        for _ in range(probes):
            wire.sendto(encode_probe(hardware, packed), (link, _ETH_P_ARP, 0, _ETHERNET, _BROADCAST))
            try:
                async with asyncio.timeout(pause):
                    return (await _hear_claim(wire, own, packed)).hex(":")
            except TimeoutError:
                continue
    return None


def _own_hardware() -> Iterator[bytes]:
    with Netlink() as rtnetlink:
        for link in rtnetlink.links():
            yield bytes.fromhex(link.address.replace(":", ""))


async def _hear_claim(wire: socket.socket, own: Collection[bytes], address: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        packet = decode(await loop.sock_recv(wire, 2048))
        if packet and is_claim(packet, own, address):
            return packet.sender
