"""The node's config: one TOML document, the same types for the node, the API and the command line."""

from typing import Annotated, Literal

import msgspec

from core0.wire.clock import ClockConfig
from core0.wire.images import ImagesConfig
from core0.wire.link_config import NetworkConfig
from core0.wire.storage import StorageConfig

# Longer is none: it is read whole into memory.
LARGEST = 1 << 20
ConfigState = Literal["none", "fetching", "applied", "refused", "trying"]
# Seconds that a config may be on trial: as long as a person needs to look, and never as long as nobody minds.
LONGEST_TRIAL = 3600.0
TrialSeconds = Annotated[float, msgspec.Meta(ge=1, le=LONGEST_TRIAL)]
KeyId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$(?!\n)")]


class ContainersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all containers together may have at most; None is what the node itself can spare.

    Attributes:
        memory_mib: memory, files in memory included.
        cpus: processors.
        processes: processes and threads.
    """

    memory_mib: Annotated[int, msgspec.Meta(ge=16, le=1 << 24)] | None = None
    cpus: Annotated[float, msgspec.Meta(ge=0.1, le=1024)] | None = None
    processes: Annotated[int, msgspec.Meta(ge=64, le=4_000_000)] | None = None


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node shall be.

    Attributes:
        storage: its disks and pools.
        network: its own links.
        clock: whom it asks for the time.
        images: the registries of its containers' images.
        containers: what all containers together may have.
    """

    storage: StorageConfig = StorageConfig()
    network: NetworkConfig = NetworkConfig()
    clock: ClockConfig = ClockConfig()
    images: ImagesConfig = ImagesConfig()
    containers: ContainersConfig = ContainersConfig()


class ConfigStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The config in force.

    Attributes:
        state: what became of the newest one.
        source: where it comes from: the address of `zn.config`, `api`, or "" for none.
        why: one plain sentence.
        config: what is in force, without secrets.
        trial: of one that is on trial the seconds until the node goes back to the earlier one by itself.
        trials: how many were tried since the node daemon began: who lost an answer sees whether the node was asked.
    """

    state: ConfigState
    source: str
    why: str
    config: NodeConfig
    trial: float | None = None
    trials: int = 0


class ConfigCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A config for the node; with `trial` for so many seconds, unless it is confirmed before."""

    config: NodeConfig
    trial: TrialSeconds | None = None


class Signature(msgspec.Struct, frozen=True):
    """A detached signature: whose key made it (the first eight bytes of the public key), and the 64 bytes."""

    key: KeyId
    data: bytes


class SignatureError(ValueError):
    """What should be a signature is none."""


def parse(text: str) -> NodeConfig:
    """Read a config.

    Raises:
        ValueError: it is no TOML, or not of this shape; the message names the key.
    """
    import tomllib

    return msgspec.convert(tomllib.loads(text), NodeConfig)


def format_signature(public_key: bytes, signature: bytes) -> str:
    """The text of a signature's file: `ed25519 <key id> <signature>`, both in hexadecimal."""
    return f"ed25519 {key_id(public_key)} {signature.hex()}\n"


def parse_signature(text: str) -> Signature:
    """Read a signature's file.

    Raises:
        SignatureError: if it is none.
    """
    words = text.split()
    try:
        if len(words) == 3 and words[0] == "ed25519" and len(words[1]) == 16:
            bytes.fromhex(words[1])
            data = bytes.fromhex(words[2])
            if len(data) == 64:
                return Signature(words[1].lower(), data)
    except ValueError:
        pass
    raise SignatureError("the signature's file is not 'ed25519 KEY SIGNATURE'; 'zn config sign' writes it")


def key_id(public_key: bytes) -> str:
    """How a key is called in messages: the first eight of its 32 bytes, in hexadecimal."""
    return public_key[:8].hex()
