"""The names that a server goes by: a request for another one is for somebody else (RFC 9110, section 7.4).

A page of a stranger's site can have its own name resolve to this server's address, and ask from the browser then as
if the two were one (DNS rebinding). That name is none of ours. An address needs no name server, and is always right.
"""

import socket
from collections.abc import Iterable

_ALWAYS = "localhost"


class Hosts:
    """The names; case does not count, and neither does the port."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset((_ALWAYS, *(name.lower().rstrip(".") for name in names if name)))

    def __call__(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name, colon, port = host.partition(":") if not host.startswith("[") else _split_bracketed(host)
        if colon and not (port.isascii() and port.isdigit()):
            return False
        if name.startswith("["):
            return _is_address(socket.AF_INET6, name[1:-1])
        return _is_address(socket.AF_INET, name) or name.lower().removesuffix(".") in self._names


def _split_bracketed(host: str) -> tuple[str, str, str]:
    name, bracket, rest = host.partition("]")
    if not bracket or (rest and not rest.startswith(":")):
        return "", ":", ""
    return name + bracket, rest[:1], rest[1:]


def _is_address(family: socket.AddressFamily, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True
