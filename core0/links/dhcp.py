"""DHCP for IPv4: messages, and the client's exchange over a packet socket.

A packet socket, because a link without an address neither sends nor receives ordinary UDP.
Sources: RFC 2131 (protocol), RFC 2132 (options), RFC 1071 (checksum), packet(7).
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from core0.links.model import Lease

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK = 1, 2, 3, 4, 5, 6

_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_COOKIE = b"\x63\x82\x53\x63"
_BROADCAST = b"\xff" * 6
_ETH_P_IP, _UDP_PROTOCOL = 0x0800, 17
_SERVER_PORT, _CLIENT_PORT = 67, 68
_MASK, _ROUTER, _NAMESERVERS, _MTU, _TIMESERVERS = 1, 3, 6, 26, 42
_REQUESTED, _SECONDS, _KIND, _SERVER, _WANTED = 50, 51, 53, 54, 55
_END, _PAD = 255, 0

# Seconds to wait for an answer, doubling (RFC 2131 section 4.1 counts from 4; a first try on a quick link need not).
# RFC 8415 section 7.6 begins with 1, too.
FIRST_WAIT, LONGEST_WAIT = 1.0, 16.0

_Answer = TypeVar("_Answer")


class NoAnswerError(Exception):
    """No server answered, or it refused: the message says which."""


class RefusedError(NoAnswerError):
    """A server answered, but gave nothing that can be used."""


class DeclinedError(RefusedError):
    """The node declined what a server gave, because another machine has the address."""


class Message(msgspec.Struct, frozen=True):
    """A DHCP message, as far as a client cares."""

    kind: int
    transaction: int
    hardware: bytes
    address: str = "0.0.0.0"  # noqa: S104 — 'none yet', not a listening address
    options: dict[int, bytes] = {}


def _naming(lease: Lease) -> dict[int, bytes]:
    """The options that say which lease of which server is meant."""
    address = socket.inet_aton(lease.address.partition("/")[0])
    return {_REQUESTED: address, _SERVER: socket.inet_aton(lease.server)}


def encode(message: Message) -> bytes:
    """A client's message as a UDP payload; asks for a broadcast answer."""
    options = {
        _KIND: bytes([message.kind]),
        _WANTED: bytes([_MASK, _ROUTER, _NAMESERVERS, _MTU, _TIMESERVERS, _SECONDS]),
    }
    zero = bytes(4)
    fixed = _FIXED.pack(
        1,
        1,
        6,
        0,
        message.transaction,
        0,
        0x8000,
        zero,
        zero,
        zero,
        zero,
        message.hardware,
        b"",
        b"",
        _COOKIE,
    )
    packed = b"".join(
        bytes([number, len(value)]) + value for number, value in {**options, **message.options}.items()
    )
    return (fixed + packed + bytes([_END])).ljust(300, b"\0")


def decode(data: bytes) -> Message | None:
    """A server's UDP payload as a message; None for whatever is not one."""
    if len(data) < _FIXED.size:
        return None
    operation, _, length, _, transaction, _, _, _, yours, _, _, hardware, _, _, cookie = _FIXED.unpack_from(
        data
    )
    options = _decode_options(data[_FIXED.size :])
    if operation != 2 or cookie != _COOKIE or len(options.get(_KIND, b"")) != 1:
        return None
    address = socket.inet_ntoa(yours)
    return Message(options[_KIND][0], transaction, hardware[: min(length, 16)], address, options)


def _decode_options(data: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    while data and data[0] != _END:
        if data[0] == _PAD:
            data = data[1:]
            continue
        if len(data) < 2 or len(data) < 2 + data[1]:
            break
        options[data[0]] = options.get(data[0], b"") + data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return options


def lease_of(message: Message) -> Lease | None:
    """The lease in an offer or acknowledgement; None if it has no usable address."""
    options = message.options
    mask, seconds = options.get(_MASK, b"\xff" * 4), options.get(_SECONDS, b"")
    server = options.get(_SERVER, b"")
    if len(mask) != 4 or len(server) != 4 or message.address == "0.0.0.0":  # noqa: S104
        return None
    length = _prefix_length(mask)
    if length is None:
        return None
    routers, mtu = _addresses(options.get(_ROUTER, b"")), options.get(_MTU, b"")
    return Lease(
        address=f"{message.address}/{length}",
        gateway=routers[0] if routers else None,
        nameservers=tuple(_addresses(options.get(_NAMESERVERS, b""))),
        server=socket.inet_ntoa(server),
        seconds=struct.unpack("!I", seconds)[0] if len(seconds) == 4 else 3600,
        timeservers=tuple(_addresses(options.get(_TIMESERVERS, b""))),
        mtu=int.from_bytes(mtu) if len(mtu) == 2 else None,
    )


def _prefix_length(mask: bytes) -> int | None:
    """How many ones a mask starts with; None if there are more behind a zero."""
    text = f"{int.from_bytes(mask):032b}"
    ones = text.rstrip("0")
    return None if "0" in ones else len(ones)


def _addresses(data: bytes) -> list[str]:
    return [socket.inet_ntoa(data[at : at + 4]) for at in range(0, len(data) - len(data) % 4, 4)]


def wrap(payload: bytes) -> bytes:
    """A client's broadcast UDP datagram with its IP header; a UDP checksum of 0 means none (RFC 768)."""
    udp = _UDP.pack(_CLIENT_PORT, _SERVER_PORT, _UDP.size + len(payload), 0) + payload
    length = _IP.size + len(udp)
    head = (0x45, 0, length, 0, 0, 64, _UDP_PROTOCOL)
    ends = (bytes(4), b"\xff" * 4)
    return _IP.pack(*head, checksum(_IP.pack(*head, 0, *ends)), *ends) + udp


def unwrap(packet: bytes) -> bytes | None:
    """The UDP payload of an IPv4 packet to a DHCP client; None for any other packet."""
    if len(packet) < _IP.size or packet[0] >> 4 != 4 or packet[9] != _UDP_PROTOCOL:
        return None
    start = (packet[0] & 15) * 4
    if len(packet) < start + _UDP.size:
        return None
    source, target, length, _ = _UDP.unpack_from(packet, start)
    if (source, target) != (_SERVER_PORT, _CLIENT_PORT):
        return None
    return packet[start + _UDP.size : start + length]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


async def ask(
    send: Callable[[], None], receive: Callable[[], Awaitable[_Answer]], attempts: int
) -> _Answer | None:
    """Send, wait for the answer, and send again after waits that double; None if no attempt had one."""
    wait = FIRST_WAIT
    for _ in range(attempts):
        send()
        try:
            async with asyncio.timeout(wait):
                return await receive()
        except TimeoutError:
            wait = min(wait * 2, LONGEST_WAIT)
    return None


class Client:
    """The exchange on one link, while its packet socket is open."""

    def __init__(self, link: str) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IP))
        self._socket.bind((link, _ETH_P_IP))
        self._link = link
        self._hardware = self._socket.getsockname()[4]

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def acquire(self, attempts: int = 4) -> Lease:
        """Discover, choose the first offer, request it.

        Raises:
            NoAnswerError: after all attempts.
        """
        offer = await self._exchange(DISCOVER, {}, (OFFER,), attempts)
        chosen = lease_of(offer)
        if not chosen:
            raise RefusedError("the DHCP server's offer has no usable address")
        return await self._request(chosen, _naming(chosen), attempts)

    async def renew(self, lease: Lease, attempts: int = 4) -> Lease:
        """Request a held lease of whoever serves here: its server is not named, it may be another network by now.

        That is the request of a client that starts again (INIT-REBOOT, RFC 2131 section 4.3.2), which is good for a
        renewal, too, and which a server of another network refuses.

        Raises:
            NoAnswerError: no server answers.
            RefusedError: one refuses.
        """
        return await self._request(lease, {_REQUESTED: _naming(lease)[_REQUESTED]}, attempts)

    async def _request(self, lease: Lease, naming: dict[int, bytes], attempts: int) -> Lease:
        answer = await self._exchange(REQUEST, naming, (ACK, NAK), attempts)
        granted = lease_of(answer)
        if answer.kind == NAK or not granted:
            said = _addresses(answer.options.get(_SERVER, b""))
            raise RefusedError(f"the DHCP server {said[0] if said else lease.server} refused {lease.address}")
        return granted

    def decline(self, lease: Lease) -> None:
        """Tell the server that another machine has the address (RFC 2131 section 4.4.1); it does not answer."""
        packet = wrap(encode(self._message(DECLINE, _naming(lease))))
        self._socket.sendto(packet, (self._link, _ETH_P_IP, 0, 1, _BROADCAST))

    def _message(self, kind: int, options: dict[int, bytes]) -> Message:
        return Message(kind, int.from_bytes(os.urandom(4), "big"), self._hardware, options=options)

    async def _exchange(
        self, kind: int, options: dict[int, bytes], answers: tuple[int, ...], attempts: int
    ) -> Message:
        message = self._message(kind, options)
        packet = wrap(encode(message))

        def send() -> None:
            self._socket.sendto(packet, (self._link, _ETH_P_IP, 0, 1, _BROADCAST))

        answer = await ask(send, lambda: self._receive(message.transaction, answers), attempts)
        if answer is None:
            raise NoAnswerError(f"no DHCP server answered on {self._link}")
        return answer

    async def _receive(self, transaction: int, kinds: tuple[int, ...]) -> Message:
        loop = asyncio.get_running_loop()
        while True:
            payload = unwrap(await loop.sock_recv(self._socket, 4096))
            message = decode(payload) if payload else None
            if not message or message.transaction != transaction or message.hardware != self._hardware:
                continue
            if message.kind in kinds:
                return message
