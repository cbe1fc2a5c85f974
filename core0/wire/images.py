"""Container images in the node's config: their registries, and whose signatures they need.

What a text must be is looked at when there is one: patterns would be compiled at each boot, where few nodes have any.
"""

import re
from typing import Annotated

import msgspec

_HOST = r"https?://(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
_FOLDERS = r"(?:/[a-z0-9][a-z0-9._-]*)*"
_BEGIN_KEY, _END_KEY = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"

# As in references: `https://registry.example.com:5000`. Who is known by https is never asked by http.
Origin = Annotated[str, msgspec.Meta(max_length=300)]
# An origin, with a folder that comes before the repository's name where one mirror has several registries.
Mirror = Annotated[str, msgspec.Meta(max_length=500)]
# How a reference begins, up to the end of one of its folders; empty for every reference.
Prefix = Annotated[str, msgspec.Meta(max_length=500)]
_User = Annotated[str, msgspec.Meta(max_length=500)]
_Password = Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]
_Certificates = Annotated[str, msgspec.Meta(max_length=200_000)]
_PublicKey = Annotated[str, msgspec.Meta(max_length=2000)]
# A name of `core0.wire.storage`, whose import would cost the puller as much as a TLS library.
_Pool = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
_Repository = Annotated[str, msgspec.Meta(max_length=500)]


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

    def __post_init__(self) -> None:
        """Look at what it says. Raises ValueError, in which no password is."""
        if re.search(r"[:\x00-\x1f\x7f]", self.user):
            raise ValueError("cannot use user: it has a colon or a control character")
        if self.password and re.search(r"[\x00-\x1f\x7f]", self.password):
            raise ValueError("cannot use password: it has a control character")
        if self.ca and not self.ca.lstrip().startswith("-----BEGIN CERTIFICATE-----"):
            raise ValueError("cannot use ca: it is no certificate in PEM")
        for mirror in self.mirrors:
            _check(mirror, _HOST + _FOLDERS, "mirror", "https://mirror.example.com/hub")


class SignaturePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose signature images need.

    Attributes:
        required: false makes an exception from what a shorter prefix says.
        keys: public keys in PEM, ECDSA P-256 (cosign's) or Ed25519; one of them is enough.
        operator: whether the operator's own key is one of them.
        signed_as: what signatures call the repository, in place of the prefix, if they were made elsewhere.
    """

    required: bool = True
    keys: Annotated[tuple[_PublicKey, ...], msgspec.Meta(max_length=16)] = ()
    operator: bool = False
    signed_as: _Repository = ""

    def __post_init__(self) -> None:
        """Look at what it says. Raises ValueError."""
        if self.required and not (self.keys or self.operator):
            raise ValueError("cannot require signatures of nobody: name keys, or say operator = true")
        for key in self.keys:
            if not (key.strip().startswith(_BEGIN_KEY) and key.strip().endswith(_END_KEY)):
                raise ValueError(f"cannot use a key: it is no public key in PEM, from {_BEGIN_KEY} on")
        if self.signed_as:
            pattern = r"[A-Za-z0-9][A-Za-z0-9.:_-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*"
            _check(self.signed_as, pattern, "signed_as", "registry.example.com/team")


class ImagesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where images come from, and whom they are believed from.

    Attributes:
        registries: by the registry's address as references have it.
        signatures: by how references begin; the longest one that fits counts.
        pool: where they are kept over reboots; in memory without one.
    """

    registries: dict[Origin, RegistryConfig] = {}
    signatures: dict[Prefix, SignaturePolicy] = {}
    pool: _Pool | None = None

    def __post_init__(self) -> None:
        """Look at the addresses. Raises ValueError."""
        for origin in self.registries:
            _check(origin, _HOST, "registry", "https://registry.example.com:5000")
        if self.pool:
            _check(self.pool, r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", "pool", "fast")
        for prefix in self.signatures:
            if prefix and prefix != "local:":
                _check(prefix, _HOST + _FOLDERS, "prefix", "https://registry.example.com/team")


def public(config: ImagesConfig) -> ImagesConfig:
    """The config without its secrets."""
    without = {
        origin: msgspec.structs.replace(registry, password=None)
        for origin, registry in config.registries.items()
    }
    return msgspec.structs.replace(config, registries=without)


def _check(text: str, pattern: str, what: str, example: str) -> None:
    digits = re.search(r":([0-9]+)(?=/|$)", text)
    if not re.fullmatch(pattern, text) or (digits and int(digits[1]) >= 1 << 16):
        raise ValueError(f"cannot use {what} {text[:200]!a}: it is none, as {example} is one")
