"""Secrets of containers in the node's API: the same types for server, client and command line."""

from typing import Annotated

import msgspec

from core0.wire.types import ContainerName

SecretName = ContainerName
# Bytes of one, and of all that a node keeps.
LARGEST, LARGEST_OF_ALL = 256 << 10, 4 << 20


class SecretValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A secret on its way to the node; in JSON it is base64. No answer ever has one."""

    value: Annotated[bytes, msgspec.Meta(min_length=1, max_length=LARGEST)]

    def __repr__(self) -> str:
        return f"SecretValue({len(self.value)} bytes)"


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told of a secret.

    Attributes:
        name: its name.
        bytes: how many it has.
        changed: when it was given, seconds since 1970, UTC.
        containers: that have it in their spec.
    """

    name: SecretName
    bytes: int
    changed: float
    containers: tuple[ContainerName, ...] = ()


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All secrets of a node, by name."""

    secrets: tuple[Secret, ...]
