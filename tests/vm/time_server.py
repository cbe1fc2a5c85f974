"""A time server for machines: it answers with this host's time (RFC 5905, section 7.3)."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

_PORT = 123
_PACKET = struct.Struct("!BBbbII4sQQQQ")
_VERSION_4, _SERVER, _CLIENT = 4 << 3, 4, 3
# Seconds from 1900, where NTP's time begins, to 1970.
_ERA = 2208988800


class _Server(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if len(data) >= _PACKET.size and data[0] & 7 == _CLIENT:
            asked = _PACKET.unpack(data[: _PACKET.size])[-1]
            now = _stamp()
            head = (_VERSION_4 | _SERVER, 1, 6, -20, 0, 0, b"TEST")
            self._transport.sendto(_PACKET.pack(*head, now, asked, now, _stamp()), addr)


def _stamp() -> int:
    """The time as NTP writes it: 32 bits of seconds, 32 of their fraction."""
    return round((time.time() + _ERA) * (1 << 32)) & ((1 << 64) - 1)


@asynccontextmanager
async def time_server() -> AsyncIterator[str]:
    """Serve on this host's loopback; gives the address that leads there from a machine."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(_Server, local_addr=("127.0.0.1", _PORT))
    try:
        yield "10.0.2.2"
    finally:
        transport.close()
