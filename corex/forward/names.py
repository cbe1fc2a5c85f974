"""Addresses of names, asked for as the container's own files say: /etc/hosts, /etc/resolv.conf.

The C library would load modules for it from the root that Core-X must not touch, and block. This asks for A and AAAA
by UDP, follows no alias by itself (resolvers do), and takes an answer only with its own number and question.

Sources: RFC 1035, section 4; resolv.conf(5), hosts(5).
"""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

Read = Callable[[str], Awaitable[bytes]]
_HEAD = struct.Struct("!HHHHHH")
_RECURSION, _ANSWER, _TRUNCATED = 0x0100, 0x8000, 0x0200
_A, _AAAA, _INTERNET = 1, 28, 1
_FAMILIES = {_A: (socket.AF_INET, 4), _AAAA: (socket.AF_INET6, 16)}
_MOST_SERVERS, _MOST_SEARCHED = 3, 6  # as the C library has them (resolv.h)
_TIMEOUT = 3.0
_PORT = 53


class Resolving(NamedTuple):
    """What /etc/resolv.conf says."""

    servers: tuple[str, ...]
    search: tuple[str, ...]


async def addresses_of(host: str, read: Read, port: int = _PORT) -> list[str]:
    """The addresses of a host; an address is its own.

    Args:
        host: a name or an address.
        read: gives the content of a file of the container.
        port: where name servers listen.

    Raises:
        OSError: nobody knows it.
        TimeoutError: the container's storage does not answer.
    """
    if _is_address(host):
        return [host]
    listed = list(_listed(host, await read("/etc/hosts")))
    if listed:
        return listed
    resolving = _resolving(await read("/etc/resolv.conf"))
    for name in _candidates(host, resolving.search):
        for server in resolving.servers:
            found = [address for kind in (_AAAA, _A) for address in await _ask(server, port, name, kind)]
            if found:
                return found
    raise OSError(f"nobody knows the name {host[:200]!a}")


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def _listed(host: str, hosts: bytes) -> Iterator[str]:
    for line in hosts.decode("latin-1").splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if host.lower() in map(str.lower, names) and _is_address(address):
            yield address


def _resolving(file: bytes) -> Resolving:
    servers, search = [], []
    for line in file.decode("latin-1").splitlines():
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest and _is_address(rest[0]):
            servers.append(rest[0])
        elif word in ("search", "domain"):
            search = rest
    return Resolving(tuple(servers[:_MOST_SERVERS]), tuple(search[:_MOST_SEARCHED]))


def _candidates(host: str, search: tuple[str, ...]) -> list[str]:
    """A name with a dot is meant as it is first, another one in the domains first."""
    if host.endswith("."):
        return [host.rstrip(".")]
    within = [f"{host}.{domain.strip('.')}" for domain in search]
    return [host, *within] if "." in host else [*within, host]


async def _ask(server: str, port: int, name: str, kind: int) -> list[str]:
    try:
        question = _question(name, kind)
    except (ValueError, UnicodeError):
        return []
    number = int.from_bytes(os.urandom(2))
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect((server, port))
            await loop.sock_sendall(asking, _HEAD.pack(number, _RECURSION, 1, 0, 0, 0) + question)
            async with asyncio.timeout(_TIMEOUT):
                while True:
                    data = await loop.sock_recv(asking, 4096)
                    if data[:2] == number.to_bytes(2) and data[12 : 12 + len(question)] == question:
                        return read_answer(data, 12 + len(question), kind)
        except (TimeoutError, OSError):
            return []


def _question(name: str, kind: int) -> bytes:
    labels = [label.encode("ascii") for label in name.split(".")]
    if not all(0 < len(label) < 64 for label in labels) or len(name) > 253:
        raise ValueError("no name")
    return b"".join(bytes((len(label),)) + label for label in labels) + struct.pack("!xHH", kind, _INTERNET)


def read_answer(data: bytes, at: int, kind: int) -> list[str]:
    """The addresses in an answer, whose records begin at an offset; none in what is no answer."""
    family, size = _FAMILIES[kind]
    found = []
    try:
        _, flags, _, count, _, _ = _HEAD.unpack_from(data)
        if not flags & _ANSWER:
            return []
        for _ in range(count):
            at = _skip_name(data, at)
            type_, class_, _, length = struct.unpack_from("!HHIH", data, at)
            at += 10
            if (type_, class_, length) == (kind, _INTERNET, size) and at + size <= len(data):
                found.append(socket.inet_ntop(family, data[at : at + size]))
            at += length
    except (struct.error, IndexError):
        return found
    return found


def _skip_name(data: bytes, at: int) -> int:
    while length := data[at]:
        if length & 0xC0:  # the rest stands elsewhere
            return at + 2
        at += 1 + length
    return at + 1
