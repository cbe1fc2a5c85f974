"""Registries of container images in the node's config."""

from typing import Annotated

import msgspec

# As in references: `https://registry.example.com:5000`. Who is known by https is never asked by http.
Origin = Annotated[
    str, msgspec.Meta(pattern=r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$(?!\n)")
]
# An origin, with a folder that comes before the repository's name where one mirror has several registries.
Mirror = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*$(?!\n)",
        max_length=500,
    ),
]
_User = Annotated[str, msgspec.Meta(pattern=r"^[^:\x00-\x1f\x7f]*$(?!\n)", max_length=500)]
_Password = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)", max_length=10_000)]
_Certificates = Annotated[
    str, msgspec.Meta(pattern=r"^(\s*-----BEGIN CERTIFICATE-----|$(?!\n))", max_length=200_000)
]


class RegistryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a registry, or a mirror of one, is asked.

    Attributes:
        user: the name that goes with the password.
        password: or a token in its place; never shown, and never written to a disk.
        ca: certificates in PEM of the authorities that vouch for its name, and nobody else's.
        mirrors: who is asked before it, in this order. What they say of tags is believed.
    """

    user: _User = ""
    password: _Password | None = None
    ca: _Certificates = ""
    mirrors: Annotated[tuple[Mirror, ...], msgspec.Meta(max_length=8)] = ()


class ImagesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where images come from, by the registry's address as references have it."""

    registries: dict[Origin, RegistryConfig] = {}


def public(config: ImagesConfig) -> ImagesConfig:
    """The config without its secrets."""
    without = {
        origin: msgspec.structs.replace(registry, password=None)
        for origin, registry in config.registries.items()
    }
    return ImagesConfig(without)
