"""Where a target is. Pure."""

from typing import NamedTuple
from urllib.parse import urlsplit

from corex.wire.targets import TargetSpec, TargetType

_SCHEMES: dict[TargetType, dict[str, int]] = {
    "syslog": {"tcp": 514, "udp": 514, "tls": 6514},
    "loki": {"http": 80, "https": 443},
    "otlp": {"http": 80, "https": 443},
}


class Place(NamedTuple):
    """A server: how to speak, to whom, and what to ask for."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def is_secret(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme in ("tls", "https")

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def place_of(spec: TargetSpec) -> Place:
    """The place of a target.

    Raises:
        ValueError: its location is none of its type.
    """
    found = urlsplit(spec.location)
    ports = _SCHEMES[spec.type]
    if found.scheme not in ports:
        raise ValueError(f"a location of {spec.type} begins with {' or '.join(f'{one}://' for one in ports)}")
    if "@" in found.netloc or found.fragment or not found.hostname:
        raise ValueError("a location is a host with a port, without a user and a fragment")
    if spec.type == "syslog" and (found.path.strip("/") or found.query or spec.headers):
        raise ValueError("syslog has no path, and no headers")
    path = (found.path or "/") + (f"?{found.query}" if found.query else "")
    return Place(found.scheme, found.hostname, found.port or ports[found.scheme], path)
