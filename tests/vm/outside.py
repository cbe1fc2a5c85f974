"""Hosts outside of a node: one on its LAN, which is the router to one in the Internet. They answer, ask and scan.

Both live in this process, behind one card of a segment; each has an IPv4 and an IPv6 address. They answer echoes,
give datagrams back, and accept the start of every TCP connection.

Sources: RFC 826 (ARP), 792 and 4443 (ICMP), 4861 (neighbour discovery), 768 (UDP), 9293 (TCP).
"""

import asyncio
import itertools
import socket
import struct
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Self

from ci.qemu.spec import SegmentNic
from core0.links.dhcp import checksum

_ARP, _IP, _IP6 = 0x0806, 0x0800, 0x86DD
TCP, UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_FIN_SYN_RST_ACK, _SYN, _SYN_ACK, _RST = 0x17, 0x02, 0x12, 0x04
_OWN = b"\x52\x54\x00\xff\xff\x02"
_LARGEST_FRAME = 65550
# Questions that are on their way at once, as a Unix socket holds few frames, and seconds until they are asked again.
_WINDOW, _AGAIN = 8, 0.5
_HERE = 40_000


class Outside:
    """The hosts.

    Args:
        nic: their card on the segment.
        node: the hardware address of the node's card there.
        lan: the IPv4 and IPv6 address of the host on the LAN.
        internet: those of the other one.
    """

    def __init__(self, nic: SegmentNic, node: str, lan: tuple[str, str], internet: tuple[str, str]) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(nic.local))
        self._remote = str(nic.remote)
        self._node = bytes.fromhex(node.replace(":", ""))
        self._lan = tuple(map(_packed, lan))
        self._own = {*self._lan, *map(_packed, internet)}
        # (protocol, address, port) that answered, with what: a port that is open, or closed, or an echo
        self.answers: dict[tuple[str, bytes, int], bool] = {}
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    # asking

    async def open_ports(self, source: str, target: str, ports: Collection[int], deadline: float) -> set[int]:
        """Which TCP ports accept connections; each is asked until it answers. TimeoutError after real seconds."""
        to, pending, asked = _packed(target), iter(ports), set[int]()
        async with asyncio.timeout(deadline):
            while True:
                asked = {port for port in asked if ("tcp", to, port) not in self.answers}
                fresh = set(itertools.islice(pending, _WINDOW - len(asked)))
                asked |= fresh
                if not asked:
                    return {port for port in ports if self.answers["tcp", to, port]}
                for port in fresh or asked:
                    self.ask("tcp", source, target, port)
                await self._wait("tcp", to, asked)

    async def _wait(self, how: str, to: bytes, ports: Iterable[int]) -> None:
        """Wait until one has answered, or it is time to ask again."""
        try:
            async with asyncio.timeout(_AGAIN):
                while not any((how, to, port) in self.answers for port in ports):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    async def echo(self, source: str, target: str, deadline: float) -> None:
        """Wait until the node answers an echo: what was sent before has arrived. TimeoutError after real seconds."""
        self.answers.pop(("icmp", _packed(target), 0), None)
        async with asyncio.timeout(deadline):
            while ("icmp", _packed(target), 0) not in self.answers:
                self.ask("icmp", source, target)
                await self._wait("icmp", _packed(target), [0])

    def answered(self, how: str, target: str, port: int = 0) -> bool:
        """Whether an address answered so far; by TCP a refusal is an answer, too."""
        return (how, _packed(target), port) in self.answers

    def ask(self, how: str, source: str, target: str, port: int = 0) -> None:
        """Send the first packet of a talk: by tcp, udp or icmp."""
        ends = _packed(source), _packed(target)
        if how == "tcp":
            head = struct.pack("!HHIIBBHHH", _HERE, port, port, 0, 0x50, _SYN, 65535, 0, 0)
            self._send_ip(*ends, TCP, head, 16)
        elif how == "udp":
            self._send_ip(*ends, UDP, struct.pack("!HHHH", _HERE, port, 12, 0) + b"ask!", 6)
        elif len(ends[0]) == 4:
            self._send_ip(*ends, _ICMP, struct.pack("!BBHHH", 8, 0, 0, 7, 1), 2)
        else:
            self._send_ip(*ends, _ICMP6, struct.pack("!BBHHH", 128, 0, 0, 7, 1), 2)

    # answering

    def _read(self) -> None:
        while True:
            try:
                frame = self._socket.recv(_LARGEST_FRAME)
            except BlockingIOError:
                return
            kind, body = int.from_bytes(frame[12:14]), frame[14:]
            if kind == _ARP:
                self._take_arp(body)
            elif kind == _IP:
                length = 4 * (body[0] & 15)
                whole = int.from_bytes(body[2:4])
                self._take(body[12:16], body[16:20], body[9], body[length:whole])
            elif kind == _IP6:
                whole = 40 + int.from_bytes(body[4:6])
                self._take(body[8:24], body[24:40], body[6], body[40:whole])

    def _take_arp(self, body: bytes) -> None:
        if body[6:8] == b"\0\1" and body[24:28] == self._lan[0]:
            fields = (1, _IP, 6, 4, 2, _OWN, self._lan[0], body[8:14], body[14:18])
            self._send(_ARP, struct.pack("!HHBBH6s4s6s4s", *fields))

    def _take(self, source: bytes, target: bytes, protocol: int, body: bytes) -> None:
        """A packet for one of the hosts, or a question for the neighbour's hardware address."""
        if protocol == _ICMP6 and body[0] == 135 and body[8:24] == self._lan[1]:
            advertised = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + body[8:24] + b"\2\1" + _OWN
            self._send_ip(self._lan[1], source, _ICMP6, advertised, 2, hops=255)
        elif target not in self._own:
            return
        elif protocol == TCP:
            self._take_tcp(source, target, body)
        elif protocol == UDP:
            here, there = body[2:4], body[:2]
            self._note("udp", source, int.from_bytes(there))
            if int.from_bytes(here) != _HERE:
                self._send_ip(target, source, UDP, here + there + body[4:6] + b"\0\0" + body[8:], 6)
        elif (protocol, body[0]) in ((_ICMP, 8), (_ICMP6, 128)):
            reply = bytes([0 if protocol == _ICMP else 129, 0, 0, 0]) + body[4:]
            self._send_ip(target, source, protocol, reply, 2)
        elif (protocol, body[0]) in ((_ICMP, 0), (_ICMP6, 129)):
            self._note("icmp", source, 0)

    def _take_tcp(self, source: bytes, target: bytes, body: bytes) -> None:
        there, here, number, _, _, flags = struct.unpack_from("!HHIIBB", body)
        if here == _HERE and flags & (_SYN | _RST):
            self._note("tcp", source, there, open_=flags & _FIN_SYN_RST_ACK == _SYN_ACK)
            if flags & _SYN:
                end = struct.pack("!HHIIBBHHH", here, there, there + 1, 0, 0x50, _RST, 0, 0, 0)
                self._send_ip(target, source, TCP, end, 16)
        elif flags & _FIN_SYN_RST_ACK == _SYN:
            answer = struct.pack(
                "!HHIIBBHHH", here, there, 1, number + 1 & 0xFFFFFFFF, 0x50, _SYN_ACK, 65535, 0, 0
            )
            self._send_ip(target, source, TCP, answer, 16)

    def _note(self, how: str, source: bytes, port: int, *, open_: bool = True) -> None:
        self.answers[how, source, port] = open_
        self._news.set()

    def _send_ip(
        self, source: bytes, target: bytes, protocol: int, body: bytes, sum_at: int, hops: int = 64
    ) -> None:
        """Send a packet whose body has its checksum, of zero so far, at an offset."""
        pseudo = source + target + struct.pack("!II", len(body), protocol)
        covered = body if protocol == _ICMP else pseudo + body
        check = checksum(covered + bytes(len(covered) % 2))
        body = body[:sum_at] + struct.pack("!H", check) + body[sum_at + 2 :]
        if len(source) == 16:
            head = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops)
            self._send(_IP6, head + source + target + body)
            return
        fields = (0x45, 0, 20 + len(body), 9, 0, hops, protocol)
        check = checksum(struct.pack("!BBHHHBBH4s4s", *fields, 0, source, target))
        self._send(_IP, struct.pack("!BBHHHBBH4s4s", *fields, check, source, target) + body)

    def _send(self, kind: int, body: bytes) -> None:
        frame = self._node + _OWN + struct.pack("!H", kind) + body
        try:
            self._socket.sendto(frame.ljust(60, b"\0"), self._remote)
        except BlockingIOError:  # an Ethernet that is full loses frames
            return


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
