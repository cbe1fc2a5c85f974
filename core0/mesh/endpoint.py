"""Where peers are: endpoints as people write them. Pure."""

import re

from core0.linux.wireguard import Endpoint
from core0.wire.network import packed

# RFC 1123, section 2.1; an underscore is no letter of a host's name.
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_LONGEST_NAME = 253


def parse_endpoint(text: str) -> Endpoint:
    """Host, a name or an address without brackets, and port. Raises ValueError with why it is none."""
    host, colon, port = text.rpartition(":")
    if (
        not colon
        or not port.isdecimal()
        or not port.isascii()
        or "]" in port
        or not 1 <= int(port[:6]) <= 65535
    ):
        raise ValueError("it has no port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host or packed(host) is None:
            raise ValueError(f"{host[:64]!a} is no IPv6 address")
        return host, int(port)
    if ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    if packed(host) is None and not _is_name(host):
        raise ValueError(f"{host[:64]!a} is neither a name nor an address")
    return host, int(port)


def _is_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    is_numeric = labels[-1].isdecimal()  # it would be an address that somebody miswrote
    return len(host) <= _LONGEST_NAME and not is_numeric and all(map(_LABEL.fullmatch, labels))


def is_address(host: str) -> bool:
    """Whether a host is written as an address, which needs no resolver."""
    return packed(host) is not None
