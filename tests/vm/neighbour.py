"""A host on a segment, as its neighbours see one: it asks for addresses (ARP) and sends echoes (ICMP).

Sources: RFC 826 (ARP), RFC 792 (ICMP), IEEE 802.1Q (tags).
"""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

from ci.qemu.spec import SegmentNic
from core0.links.dhcp import checksum

_ARP, _IP, _TAG = 0x0806, 0x0800, 0x8100
_ICMP, _ECHO, _REPLY = 1, 8, 0
_OWN = b"\x52\x54\x00\xff\xff\x01"
_LARGEST_FRAME = 65550
# Seconds between two questions: Ethernet loses frames.
_AGAIN = 1.0


class Neighbour:
    """A host with one address, in the place of a machine's card.

    Args:
        nic: its card on the segment.
        address: its IPv4 address.
        vlan: the tag of its frames, 0 for none; those of others it does not take.
    """

    def __init__(self, nic: SegmentNic, address: str, vlan: int = 0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(nic.local))
        self._remote = str(nic.remote)
        self._address = socket.inet_aton(address)
        self._vlan = vlan

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def find(self, address: str, deadline: float) -> str:
        """The hardware address of whoever has an address; TimeoutError after `deadline` real seconds."""
        wanted = socket.inet_aton(address)
        question = struct.pack("!HHBBH6s4s6s4s", 1, _IP, 6, 4, 1, _OWN, self._address, bytes(6), wanted)
        async with asyncio.timeout(deadline):
            while True:
                self._send(b"\xff" * 6, _ARP, question)
                async for kind, body in self._received():
                    if kind == _ARP and body[6:8] == b"\0\2" and body[14:18] == wanted:
                        return body[8:14].hex(":")

    async def echo(self, address: str, size: int, deadline: float) -> list[int]:
        """Send an echo of so many bytes; the lengths of the packets that come back together with it."""
        target = bytes.fromhex((await self.find(address, deadline)).replace(":", ""))
        async with asyncio.timeout(deadline):
            while True:
                for piece in self._pieces(socket.inet_aton(address), bytes(size)):
                    self._send(target, _IP, piece)
                lengths: list[int] = []
                async for kind, body in self._received():
                    if kind == _ARP:
                        self._answer(body)
                    elif kind == _IP and body[9] == _ICMP:
                        lengths.append(int.from_bytes(body[2:4]))
                        if sum(length - 20 for length in lengths) >= size + 8:
                            return lengths

    def _pieces(self, target: bytes, data: bytes) -> list[bytes]:
        """An echo request in IP packets of 1,500 bytes at most."""
        head = struct.pack("!BBHHH", _ECHO, 0, 0, 7, 1)
        head = struct.pack("!BBHHH", _ECHO, 0, checksum(head + data), 7, 1)
        whole, pieces = head + data, []
        for at in range(0, len(whole), 1480):
            part = whole[at : at + 1480]
            offset = at // 8 | (0x2000 if at + 1480 < len(whole) else 0)
            fields = (0x45, 0, 20 + len(part), 9, offset, 64, _ICMP)
            ends = (self._address, target)
            check = checksum(struct.pack("!BBHHHBBH4s4s", *fields, 0, *ends))
            pieces.append(struct.pack("!BBHHHBBH4s4s", *fields, check, *ends) + part)
        return pieces

    def _answer(self, question: bytes) -> None:
        """Tell who asks for this host where it is."""
        if question[6:8] == b"\0\1" and question[24:28] == self._address:
            whom = question[8:14]
            fields = (1, _IP, 6, 4, 2, _OWN, self._address, whom, question[14:18])
            self._send(whom, _ARP, struct.pack("!HHBBH6s4s6s4s", *fields))

    def _send(self, target: bytes, kind: int, body: bytes) -> None:
        tag = struct.pack("!HH", _TAG, self._vlan) if self._vlan else b""
        frame = target + _OWN + tag + struct.pack("!H", kind) + body
        self._socket.sendto(frame.ljust(60, b"\0"), self._remote)

    async def _received(self):  # type: ignore[no-untyped-def]
        """What comes within a moment, with or without this host's tag as it has one."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_AGAIN):
                while True:
                    frame = await loop.sock_recv(self._socket, _LARGEST_FRAME)
                    kind, at = int.from_bytes(frame[12:14]), 14
                    vlan = 0
                    if kind == _TAG:
                        vlan, kind, at = (
                            int.from_bytes(frame[14:16]) & 0xFFF,
                            int.from_bytes(frame[16:18]),
                            18,
                        )
                    if vlan == self._vlan and frame[:6] in (_OWN, b"\xff" * 6):
                        yield kind, frame[at:]
        except TimeoutError:
            return
