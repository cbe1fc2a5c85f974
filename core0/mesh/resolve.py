"""The resolver: a process without privilege that asks name servers for one host's addresses (RFC 1035).

The node has no resolver of its own: its name servers come by DHCP, from routers, from the config. It takes an `Ask`
on stdin and writes one `Found` to stdout. Nothing of it is believed but that it is an address.
"""

import os
import socket
import struct
import sys
import time

import msgspec

from core0.wire.network import packed

_HEADER = struct.Struct(">HHHHHH")
_RECURSE, _RESPONSE, _ERROR = 0x0100, 0x8000, 0x000F
_INTERNET = 1
_A, _AAAA = 1, 28
_LENGTHS = {_A: 4, _AAAA: 16}
_PORT = 53
_TRIES, _PATIENCE = 2, 2.0
_LARGEST = 4096
_NO_SUCH_NAME = 3


class Ask(msgspec.Struct, frozen=True):
    """Whom to ask, for what."""

    host: str
    nameservers: tuple[str, ...]


class Found(msgspec.Struct, frozen=True):
    """The addresses, IPv4 first, or why there are none."""

    addresses: tuple[str, ...] = ()
    error: str = ""


def main() -> None:
    """Do one job."""
    ask = msgspec.json.decode(sys.stdin.buffer.read(), type=Ask)
    sys.stdout.buffer.write(msgspec.json.encode(resolve(ask)))
    sys.stdout.flush()


def resolve(ask: Ask, port: int = _PORT) -> Found:
    """Ask each name server until one knows; IPv6 only if there is no IPv4 address."""
    said = "the node knows no name server"
    for server in ask.nameservers * _TRIES:
        try:
            for kind in (_A, _AAAA):
                addresses = _ask_one(server, port, ask.host, kind)
                if addresses:
                    return Found(addresses)
            return Found(error="it has no address")
        except _NoSuchName:
            return Found(error=f"{server} knows no such name")
        except (OSError, ValueError) as error:
            said = f"{server}: {error}"
    return Found(error=said)


class _NoSuchName(Exception):  # noqa: N818 — an answer, not an error
    """The name server says that there is none."""


def _ask_one(server: str, port: int, host: str, kind: int) -> tuple[str, ...]:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    number = int.from_bytes(os.urandom(2))
    question = encode_question(number, host, kind)
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((server, port))  # answers of others do not come then
        asking.send(question)
        until = time.monotonic() + _PATIENCE
        while (left := until - time.monotonic()) > 0:
            asking.settimeout(left)
            answer = asking.recv(_LARGEST)
            if len(answer) >= len(question) and answer[:2] == question[:2]:
                return read_answer(answer, question, kind)
    raise TimeoutError("no answer in time")


def encode_question(number: int, host: str, kind: int) -> bytes:
    """A question for a host's addresses."""
    labels = host.removesuffix(".").encode("ascii").split(b".")
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _HEADER.pack(number, _RECURSE, 1, 0, 0, 0) + name + struct.pack(">HH", kind, _INTERNET)


def read_answer(answer: bytes, question: bytes, kind: int) -> tuple[str, ...]:
    """The addresses of an answer, in its order; aliases before them are passed over.

    Raises:
        ValueError: it is no answer to the question, or cut.
        _NoSuchName: there is no such name.
    """
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(answer)
    end = len(question)
    if not flags & _RESPONSE or questions != 1 or answer[_HEADER.size : end].lower() != question[12:].lower():
        raise ValueError("it answered another question")
    if flags & _ERROR == _NO_SUCH_NAME:
        raise _NoSuchName
    if flags & _ERROR:
        raise ValueError(f"it answered with error {flags & _ERROR}")
    found = []
    for _ in range(answers):
        end = _skip_name(answer, end)
        if end + 10 > len(answer):
            raise ValueError("its answer is cut")
        got, kind_of_net, _, length = struct.unpack_from(">HHIH", answer, end)
        data, end = answer[end + 10 : end + 10 + length], end + 10 + length
        if (got, kind_of_net, len(data)) == (kind, _INTERNET, _LENGTHS[kind]):
            found.append(socket.inet_ntop(socket.AF_INET if kind == _A else socket.AF_INET6, data))
    return tuple(found)


def _skip_name(message: bytes, at: int) -> int:
    """Where a name ends; what it points to is not of interest."""
    while at < len(message):
        length = message[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if length == 0:
            return at
    raise ValueError("its answer is cut")


def believe(found: Found) -> Found:
    """Only what is an address, of what a stranger said."""
    addresses = tuple(one for one in found.addresses[:16] if packed(one) is not None)
    return Found(addresses, "" if addresses else found.error[:200] or "it has no address")
