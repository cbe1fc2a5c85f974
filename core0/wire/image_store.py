"""Images of containers in the node's API: the same types for server, client and command line."""

from typing import Annotated

import msgspec

from core0.wire.types import ContainerName

ImageDigest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]
LocalName = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Chosen = Annotated[str, msgspec.Meta(max_length=300)]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class ImageLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of an image's file systems.

    Attributes:
        diff_id: the digest of its tar.
        bytes: of its file on the node.
        images: how many images of the node have it.
    """

    diff_id: ImageDigest
    bytes: int
    images: int


class NodeImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image that a node has.

    Attributes:
        digest: of its manifest.
        references: the names that it was pulled by; none if they are another image's by now.
        bytes: of its layers on the node, also those that it shares.
        layers: lowest first.
        containers: that are wanted with it, or run from it; by name.
        entrypoint: what its containers start.
        command: what follows.
        user: whom they start as; empty for root.
        folder: where.
        stop_signal: what asks their process to end; empty for SIGTERM.
    """

    digest: ImageDigest
    references: tuple[str, ...]
    bytes: int
    layers: tuple[ImageLayer, ...]
    containers: tuple[ContainerName, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    folder: str = ""
    stop_signal: str = ""


class NodeImages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All images of a node, by digest, and the bytes of their layers, each counted once."""

    images: tuple[NodeImage, ...]
    bytes: int


class ImagePull(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to pull, as containers' specs name it."""

    image: Reference


class ImageLoad(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image is about to come as a tar.

    Attributes:
        name: what it shall be called: containers name it `local:NAME`.
        image: which of several, by its name in the layout or its digest.
    """

    name: LocalName
    image: Chosen = ""


class Commit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an image that is made of a container shall be called: others name it `local:NAME`."""

    name: LocalName


class Collected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was taken away: images by digest, and how many bytes are free by that."""

    images: tuple[ImageDigest, ...]
    bytes: int
