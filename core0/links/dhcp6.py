"""DHCP for IPv6: messages, and the client's exchange. Whether to ask at all says the router (RFC 4861 section 4.2).

Sources: RFC 8415 (protocol and options), RFC 3646 (name servers).
"""

import asyncio
import os
import socket
import struct
import time

import msgspec

from core0.links.dhcp import NoAnswerError, RefusedError, ask
from core0.links.model import Lease6

SOLICIT, ADVERTISE, REQUEST, RENEW, REPLY, INFORMATION_REQUEST = 1, 2, 3, 5, 7, 11

_CLIENT, _SERVER, _IA_NA, _IAADDR, _WANTED, _ELAPSED, _STATUS, _NAMESERVERS = 1, 2, 3, 5, 6, 8, 13, 23
_SNTP, _NTP, _NTP_ADDRESS = 31, 56, 1
_REFRESH = 32
_OPTION = struct.Struct("!HH")
_IA = struct.Struct("!III")
_ADDRESS = struct.Struct("!16sII")
_DUID_LL, _ETHERNET = 3, 1
_SERVERS, _SERVER_PORT, _CLIENT_PORT = "ff02::1:2", 547, 546
_LONGEST_DUID = 130

# How long other configuration holds if the server does not say (RFC 8415 section 21.23), and at least.
_REFRESH_SECONDS, _LEAST_REFRESH = 86400, 600


class Message(msgspec.Struct, frozen=True):
    """A message between client and server; of an option that comes several times, the first."""

    kind: int
    transaction: bytes
    options: dict[int, bytes] = {}


def encode(message: Message) -> bytes:
    """A client's message as a UDP payload."""
    packed = (_OPTION.pack(kind, len(value)) + value for kind, value in message.options.items())
    return bytes([message.kind]) + message.transaction + b"".join(packed)


def decode(data: bytes) -> Message | None:
    """A UDP payload as a message; None for whatever is not one."""
    options = _decode_options(data[4:])
    if len(data) < 4 or options is None:
        return None
    return Message(data[0], data[1:4], options)


def _decode_options(data: bytes) -> dict[int, bytes] | None:
    options: dict[int, bytes] = {}
    while data:
        if len(data) < _OPTION.size:
            return None
        kind, length = _OPTION.unpack_from(data)
        end = _OPTION.size + length
        if len(data) < end:
            return None
        options.setdefault(kind, data[_OPTION.size : end])
        data = data[end:]
    return options


def lease_of(message: Message) -> Lease6 | None:
    """What a server's message gives; None if it names no server, or nothing of it can be used."""
    server = message.options.get(_SERVER, b"")
    nameservers = _addresses(message.options.get(_NAMESERVERS, b""))
    timeservers = _timeservers(message.options)
    if not 3 <= len(server) <= _LONGEST_DUID:
        return None
    address, renew, seconds = _address_of(message.options.get(_IA_NA, b""))
    if address is None:
        seconds = _refresh_of(message.options.get(_REFRESH, b""))
        told = nameservers or timeservers
        return Lease6(None, nameservers, server.hex(), seconds, seconds, timeservers) if told else None
    return Lease6(f"{address}/128", nameservers, server.hex(), renew, seconds, timeservers)


def _address_of(association: bytes) -> tuple[str | None, int, int]:
    """The address in an identity association, seconds until it is to be renewed, and until it ends."""
    options = _decode_options(association[_IA.size :]) if len(association) >= _IA.size else None
    held = (options or {}).get(_IAADDR, b"")
    if len(held) < _ADDRESS.size:
        return None, 0, 0
    packed, preferred, valid = _ADDRESS.unpack_from(held)
    if not valid or preferred > valid or not _is_unicast(packed):
        return None, 0, 0
    _, renew, _ = _IA.unpack_from(association)
    # 0 leaves it to the client: half of the time that it is preferred (RFC 8415 section 14.2)
    renew = min(renew or preferred // 2 or valid // 2, valid)
    return socket.inet_ntop(socket.AF_INET6, packed), renew, valid


def _is_unicast(packed: bytes) -> bool:
    """Whether a host may have it beyond its link: neither `::`, `::1`, nor fe80::/10, nor a group's."""
    link_local = packed[0] == 0xFE and packed[1] & 0xC0 == 0x80
    return packed[:15] != bytes(15) and packed[0] != 0xFF and not link_local


def _refresh_of(option: bytes) -> int:
    return max(int.from_bytes(option), _LEAST_REFRESH) if len(option) == 4 else _REFRESH_SECONDS


def _timeservers(options: dict[int, bytes]) -> tuple[str, ...]:
    """Those given as addresses, in the option of NTP (RFC 5908) or in the older one of SNTP (RFC 4075)."""
    named = _decode_options(options.get(_NTP, b"")) or {}
    return _addresses(named.get(_NTP_ADDRESS, b"")[:16]) or _addresses(options.get(_SNTP, b""))


def _addresses(data: bytes) -> tuple[str, ...]:
    whole = range(0, len(data) - len(data) % 16, 16)
    return tuple(socket.inet_ntop(socket.AF_INET6, data[at : at + 16]) for at in whole)


def _refusal(message: Message) -> str:
    """What a server says of why it gives nothing, in its own words; empty if it does not say."""
    association = _decode_options(message.options.get(_IA_NA, b"")[_IA.size :]) or {}
    status = association.get(_STATUS) or message.options.get(_STATUS) or b""
    return ascii(status[2:].decode(errors="replace"))[1:-1] if status[:2] not in (b"", b"\0\0") else ""


class Client:
    """The exchange on one link, while its socket is open. The node is who its link's hardware address says it is."""

    def __init__(self, link: str, hardware: bytes) -> None:
        self._link, self._index = link, socket.if_nametoindex(link)
        self._duid = struct.pack("!HH", _DUID_LL, _ETHERNET) + hardware
        self._association = _IA.pack(int.from_bytes(hardware[-4:]), 0, 0)
        self._socket = socket.socket(
            socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            self._socket.bind(("::", _CLIENT_PORT))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def acquire(self, attempts: int = 4) -> Lease6:
        """Ask for an address and take the first server's.

        Raises:
            NoAnswerError: nobody answers.
            RefusedError: nobody gives one.
        """
        offer = await self._exchange(SOLICIT, {_IA_NA: self._association}, ADVERTISE, attempts)
        return await self._ask(REQUEST, self._usable(offer), attempts)

    async def renew(self, lease: Lease6, attempts: int = 4) -> Lease6:
        """Have a lease for longer. Raises NoAnswerError: nobody answers; RefusedError: the server does not want."""
        return await self._ask(RENEW, lease, attempts)

    async def inform(self, attempts: int = 4) -> Lease6:
        """Ask for what goes with addresses that others give. Raises NoAnswerError: nobody tells."""
        return self._usable(await self._exchange(INFORMATION_REQUEST, {}, REPLY, attempts))

    async def _ask(self, kind: int, lease: Lease6, attempts: int) -> Lease6:
        """Ask the server of a lease for just that."""
        if lease.address is None:
            raise RefusedError("the DHCPv6 server has no address for this node")
        packed = socket.inet_pton(socket.AF_INET6, lease.address.partition("/")[0])
        address = _ADDRESS.pack(packed, 0, 0)
        association = self._association + _OPTION.pack(_IAADDR, len(address)) + address
        options = {_SERVER: bytes.fromhex(lease.server), _IA_NA: association}
        granted = self._usable(await self._exchange(kind, options, REPLY, attempts))
        if granted.address is None:
            raise RefusedError(f"the DHCPv6 server refused {lease.address}")
        return granted

    def _usable(self, answer: Message) -> Lease6:
        lease = lease_of(answer)
        if lease is None:
            said = _refusal(answer)
            raise RefusedError(f"the DHCPv6 server gave nothing{f': {said}' if said else ''}")
        return lease

    async def _exchange(self, kind: int, options: dict[int, bytes], answer: int, attempts: int) -> Message:
        transaction, begun = os.urandom(3), time.monotonic()

        def send() -> None:
            self._send(kind, transaction, options, time.monotonic() - begun)

        answered = await ask(send, lambda: self._receive(transaction, answer), attempts)
        if answered is None:
            raise NoAnswerError(f"no DHCPv6 server answered on {self._link}")
        return answered

    def _send(self, kind: int, transaction: bytes, options: dict[int, bytes], elapsed: float) -> None:
        own = {
            _CLIENT: self._duid,
            _ELAPSED: struct.pack("!H", min(int(elapsed * 100), 0xFFFF)),
            _WANTED: struct.pack("!HHHH", _NAMESERVERS, _REFRESH, _SNTP, _NTP),
        }
        payload = encode(Message(kind, transaction, {**own, **options}))
        try:
            self._socket.sendto(payload, (_SERVERS, _SERVER_PORT, 0, self._index))
        except OSError:  # the link has no address to send from yet, or lost it: the next attempt may find one
            return

    async def _receive(self, transaction: bytes, kind: int) -> Message:
        loop = asyncio.get_running_loop()
        while True:
            message = decode(await loop.sock_recv(self._socket, 4096))
            expected = (kind, transaction, self._duid)
            if message and (message.kind, message.transaction, message.options.get(_CLIENT)) == expected:
                return message
