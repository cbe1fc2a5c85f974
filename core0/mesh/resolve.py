"""The resolver: a process without privilege that asks the node's name servers for one host's addresses.

Whom to ask stands in resolv.conf(5), and glibc reads what strangers answer (getaddrinfo(3)): no work for the node
daemon. It takes a host's name on stdin and writes one `Found` to stdout. Nothing of it is believed but that it is an
address.
"""

import socket
import sys

import msgspec

from core0.wire.network import packed

# A host's name with a dot at its end.
_LONGEST = 254
_MOST = 16
_WHY = {
    socket.EAI_AGAIN: "no name server of the node answers for it",
    socket.EAI_NONAME: "the name servers know no such name",
    socket.EAI_NODATA: "it has no address",
}


class Found(msgspec.Struct, frozen=True):
    """The addresses, IPv4 first, or why there are none."""

    addresses: tuple[str, ...] = ()
    error: str = ""


def main() -> None:
    """Do one job."""
    sys.stdout.buffer.write(msgspec.json.encode(resolve(sys.stdin.buffer.read(_LONGEST))))
    sys.stdout.flush()


def resolve(host: bytes) -> Found:
    """The addresses of a host. Its name is whole: the node's own domain is not tried behind it."""
    try:
        answers = socket.getaddrinfo(host.removesuffix(b".") + b".", None, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        return Found(error=_WHY.get(error.errno or 0) or str(error))
    addresses = dict.fromkeys(str(address[0]) for *_, address in answers)
    return Found(tuple(sorted(addresses, key=lambda one: ":" in one)))


def believe(found: Found) -> Found:
    """Only what is an address, of what a stranger said."""
    addresses = tuple(one for one in found.addresses[:_MOST] if packed(one) is not None)
    return Found(addresses, "" if addresses else found.error[:200] or "it has no address")
