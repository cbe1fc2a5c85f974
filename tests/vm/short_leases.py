"""A DHCP server whose leases are short: dnsmasq's last two minutes at least (RFC 2131)."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core0.links.dhcp import ACK, DISCOVER, OFFER, REQUEST
from tests.vm.router import LINK, Router

# Operation, hardware type and length, hops, transaction; seconds, flags, client's address; its own, to be; the rest.
_HEAD = struct.Struct("!BBBBI8x4s8s16s192x4s")
_COOKIE = b"\x63\x82\x53\x63"
# Where the client's transaction, hardware address and kind of message are: it names the kind first.
_TRANSACTION, _HARDWARE, _KIND = slice(4, 8), slice(28, 44), 242


class _Server(asyncio.DatagramProtocol):
    def __init__(self, server: str, address: str, seconds: int) -> None:
        self._own, self._address = socket.inet_aton(server), socket.inet_aton(address)
        self._seconds = seconds

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        kind = {DISCOVER: OFFER, REQUEST: ACK}.get(data[_KIND])
        if kind is None:
            return
        transaction = int.from_bytes(data[_TRANSACTION])
        head = _HEAD.pack(2, 1, 6, 0, transaction, self._address, self._own, data[_HARDWARE], _COOKIE)
        options = {
            53: bytes([kind]),
            54: self._own,
            1: b"\xff\xff\xff\0",
            51: struct.pack("!I", self._seconds),
        }
        packed = b"".join(bytes([number, len(value)]) + value for number, value in options.items())
        self._transport.sendto(head + packed + b"\xff", ("255.255.255.255", 68))


@asynccontextmanager
async def leasing(way: Router, server: str, address: str, seconds: int) -> AsyncIterator[None]:
    """Give whoever asks on a router's segment one address, for so many seconds, as long as this lasts."""
    with way.inside():
        wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LINK.encode())
    wire.bind(("", 67))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Server(server, address, seconds), sock=wire)
    try:
        yield
    finally:
        transport.close()
