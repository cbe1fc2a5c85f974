"""WireGuard's links by generic netlink: keys, ports, peers and what the kernel knows of them.

A message carries one peer, and a thousand of its subnets at most: attributes are short of 64 KiB, and no answer may
overrun the socket. Sources: include/uapi/linux/wireguard.h, genetlink.h; wg(8), netlink.c of drivers/net/wireguard.
"""

import itertools
import socket
import struct
import sys
from collections.abc import Iterable, Iterator

import msgspec

from core0.linux.netlink import Netlink, Request, attribute, each_attribute, nested, number

_NETLINK_GENERIC = 16
_CONTROL, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_DUMP = 0x300
_GET_DEVICE, _SET_DEVICE, _VERSION = 0, 1, 1
_GENERIC = struct.Struct("=BBxx")
_IFINDEX, _PRIVATE_KEY, _PUBLIC_KEY, _LISTEN_PORT, _PEERS = 1, 3, 4, 6, 8
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 3, 4, 5
_PEER_HANDSHAKE, _PEER_RECEIVED, _PEER_SENT, _PEER_ALLOWED = 6, 7, 8, 9
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3
_REMOVE, _REPLACE_ALLOWED, _ONLY_UPDATE = 1, 2, 4
_SOCKADDR4, _SOCKADDR6 = struct.Struct("=H2s4s8x"), struct.Struct("=H2sI16sI")
_TIMESPEC = struct.Struct("=qq")
_SUBNETS_OF_MESSAGE = 1000
# Each message is acknowledged, and the acknowledgements wait in the socket until the last one is sent.
_MESSAGES = 64

# Host and port as the kernel has them.
Endpoint = tuple[str, int]


class Peer(msgspec.Struct, frozen=True):
    """A peer of a link.

    Attributes:
        key: its public key.
        endpoint: where it is.
        keepalive: seconds, 0 for none.
        allowed: the subnets whose addresses it may have.
        handshake: when the last one was, in seconds since 1970; 0 if there was none.
        received: bytes.
        sent: bytes.
    """

    key: bytes
    endpoint: Endpoint | None = None
    keepalive: int = 0
    allowed: frozenset[str] = frozenset()
    handshake: float = 0.0
    received: int = 0
    sent: int = 0


class Device(msgspec.Struct, frozen=True):
    """A link: its own public key (None without a private one), its UDP port, its peers by their keys."""

    key: bytes | None
    port: int
    peers: dict[bytes, Peer]


class PeerChange(msgspec.Struct, frozen=True):
    """What shall be different of a peer; None leaves it. One that is not there yet is made, unless it is removed."""

    key: bytes
    endpoint: Endpoint | None = None
    keepalive: int | None = None
    allowed: frozenset[str] | None = None
    removed: bool = False


class WireGuard:
    """The kernel's WireGuard, in the network namespace of the thread that makes this; its module must be there."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_GENERIC)
        try:
            self._family = self._find_family()
        except OSError:
            self._netlink.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def _find_family(self) -> int:
        doing = "cannot list the families of generic netlink"
        request = Request(_CONTROL, _DUMP, _GENERIC.pack(_GETFAMILY, 1), doing)
        for _, body in self._netlink.dump(request):
            found = dict(each_attribute(body[_GENERIC.size :]))
            if found.get(_FAMILY_NAME) == b"wireguard\0":
                return int(struct.unpack("=H", found[_FAMILY_ID])[0])
        raise OSError("cannot use WireGuard: the kernel does not know it; its module is not loaded")

    def set_device(self, index: int, *, private_key: bytes | None = None, port: int | None = None) -> None:
        """Give a link its key or UDP port. A peer whose key is the link's own is removed. Raises OSError."""
        body = b"" if private_key is None else attribute(_PRIVATE_KEY, private_key)
        body += b"" if port is None else attribute(_LISTEN_PORT, struct.pack("=H", port))
        self._netlink.apply([self._change(index, body, f"cannot set up WireGuard of link {index}")])

    def set_peers(self, index: int, changes: Iterable[PeerChange]) -> None:
        """Change peers of a link. Raises OSError of the first that failed; the others were tried as well."""
        requests = (
            self._change(index, nested(_PEERS, nested(0, peer)), f"cannot set a peer of link {index}")
            for change in changes
            for peer in _encode(change)
        )
        while batch := list(itertools.islice(requests, _MESSAGES)):
            self._netlink.apply(batch)

    def device(self, index: int) -> Device:
        """A link as the kernel has it. Raises OSError: there is none of that number, or it is another kind."""
        body = _GENERIC.pack(_GET_DEVICE, _VERSION) + number(_IFINDEX, index)
        request = Request(self._family, _DUMP, body, f"cannot look at WireGuard of link {index}")
        answers = self._netlink.dump(request)
        return parse_device(message[_GENERIC.size :] for _, message in answers)

    def _change(self, index: int, body: bytes, doing: str) -> Request:
        head = _GENERIC.pack(_SET_DEVICE, _VERSION) + number(_IFINDEX, index)
        return Request(self._family, 0, head + body, doing)


def _encode(change: PeerChange) -> Iterator[bytes]:
    """A peer's attributes, in as many messages as its subnets need: all but the first only add some."""
    key = attribute(_PEER_KEY, change.key)
    if change.removed:
        yield key + number(_PEER_FLAGS, _REMOVE)
        return
    first = number(_PEER_FLAGS, 0 if change.allowed is None else _REPLACE_ALLOWED)
    if change.endpoint:
        first += attribute(_PEER_ENDPOINT, _encode_endpoint(change.endpoint))
    if change.keepalive is not None:
        first += attribute(_PEER_KEEPALIVE, struct.pack("=H", change.keepalive))
    subnets = iter(sorted(change.allowed or ()))
    yield key + first + _encode_subnets(itertools.islice(subnets, _SUBNETS_OF_MESSAGE))
    while more := _encode_subnets(itertools.islice(subnets, _SUBNETS_OF_MESSAGE)):
        yield key + number(_PEER_FLAGS, _ONLY_UPDATE) + more


def _encode_subnets(subnets: Iterable[str]) -> bytes:
    encoded = b"".join(nested(0, _encode_subnet(one)) for one in subnets)
    return nested(_PEER_ALLOWED, encoded) if encoded else b""


def _encode_subnet(text: str) -> bytes:
    address, _, length = text.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (
        attribute(_ALLOWED_FAMILY, struct.pack("=H", family))
        + attribute(_ALLOWED_ADDRESS, socket.inet_pton(family, address))
        + attribute(_ALLOWED_LENGTH, bytes([int(length)]))
    )


def _encode_endpoint(endpoint: Endpoint) -> bytes:
    host, port = endpoint
    packed_port = port.to_bytes(2)
    if ":" in host:
        return _SOCKADDR6.pack(socket.AF_INET6, packed_port, 0, socket.inet_pton(socket.AF_INET6, host), 0)
    return _SOCKADDR4.pack(socket.AF_INET, packed_port, socket.inet_aton(host))


def parse_device(messages: Iterable[bytes]) -> Device:
    """A link from the messages that describe it: a peer with many subnets goes on in the next one."""
    key, port, peers = None, 0, dict[bytes, Peer]()
    for message in messages:
        for kind, value in each_attribute(message):
            if kind == _PUBLIC_KEY:
                key = value
            elif kind == _LISTEN_PORT:
                (port,) = struct.unpack("=H", value)
            elif kind == _PEERS:
                for _, described in each_attribute(value):
                    peer = _parse_peer(described)
                    known = peers.get(peer.key)
                    peers[peer.key] = _joined(known, peer) if known else peer
    return Device(key, port, peers)


def _joined(known: Peer, more: Peer) -> Peer:
    """A peer that began in an earlier message; only that one has more than its subnets."""
    return msgspec.structs.replace(known, allowed=known.allowed | more.allowed)


def _parse_peer(data: bytes) -> Peer:
    found = dict(each_attribute(data))
    seconds, nanoseconds = _TIMESPEC.unpack(found.get(_PEER_HANDSHAKE, bytes(16)))
    subnets = each_attribute(found.get(_PEER_ALLOWED, b""))
    return Peer(
        key=found[_PEER_KEY],
        endpoint=_parse_endpoint(found.get(_PEER_ENDPOINT, b"")),
        keepalive=int.from_bytes(found.get(_PEER_KEEPALIVE, b""), sys.byteorder),
        allowed=frozenset(_parse_subnet(described) for _, described in subnets),
        handshake=seconds + nanoseconds / 1e9,
        received=int.from_bytes(found.get(_PEER_RECEIVED, b""), sys.byteorder),
        sent=int.from_bytes(found.get(_PEER_SENT, b""), sys.byteorder),
    )


def _parse_subnet(data: bytes) -> str:
    found = dict(each_attribute(data))
    (family,) = struct.unpack("=H", found[_ALLOWED_FAMILY])
    return f"{socket.inet_ntop(family, found[_ALLOWED_ADDRESS])}/{found[_ALLOWED_LENGTH][0]}"


def _parse_endpoint(data: bytes) -> Endpoint | None:
    if len(data) < _SOCKADDR4.size:
        return None
    (family,) = struct.unpack_from("=H", data)
    if family == socket.AF_INET6:
        _, port, _, address, _ = _SOCKADDR6.unpack_from(data)
    else:
        _, port, address = _SOCKADDR4.unpack_from(data)
    return socket.inet_ntop(family, address), int.from_bytes(port)
