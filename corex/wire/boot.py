"""What the node hands to a fresh Core-X: its only configuration, passed over a descriptor, never in argv."""

import msgspec

from corex.wire.health import HealthCheck
from corex.wire.process import CheckSpec, ProcessSpec
from corex.wire.targets import TargetSpec


class Boot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The start message of one Core-X.

    Attributes:
        name: the container's name, one DNS label.
        certificate: Core-X's own TLS certificate, PEM.
        key: the certificate's private key, PEM. Never logged, never in an API answer.
        token_sha256: SHA-256 of the operator's bearer token, 64 hexadecimal digits.
        processes: what to start at once, by name.
        health: how to see whether the first of them is well.
        checks: how to see whether they are well, by name.
        targets: where their lines are sent, by name.
        names: host names that Core-X may be asked by, besides the container's; addresses need not be named.
    """

    name: str
    certificate: str
    key: str
    token_sha256: str
    processes: dict[str, ProcessSpec] = {}
    health: HealthCheck | None = None
    checks: dict[str, CheckSpec] = {}
    names: tuple[str, ...] = ()
    targets: dict[str, TargetSpec] = {}
