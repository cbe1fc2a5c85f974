"""Images as the node knows them, and the references that name them.

Sources: OCI image specification 1.1 (image-layout, manifest, config), OCI distribution specification 1.1.
"""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from core0.wire.images import ImagesConfig, RegistryConfig

_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$(?!\n)")]

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
LARGEST_MANIFEST = 4 << 20


class Reference(msgspec.Struct, frozen=True):
    """Where an image is: an image layout's folder, or a registry's repository with a tag or digest.

    Attributes:
        kind: `layout` or `registry`.
        base: URL without a slash at its end; of a registry, its `/v2/<repository>`.
        wanted: the tag or digest asked for; empty for a layout's only image.
    """

    kind: Literal["layout", "registry"]
    base: str
    wanted: str


def parse_reference(text: str) -> Reference:
    """Parse `http://host:port/folder/` (layout) or `http://host:port/name[:tag|@digest]` (registry).

    Raises:
        ValueError: with what is wrong and an example.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError(
            f"cannot read image reference {text[:200]!a}: it is no http or https address without user and query, "
            "as in http://10.0.2.2:8080/oci/demo/ or http://10.0.2.2:8080/demo:latest"
        )
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.path.endswith("/"):
        return Reference("layout", origin + parts.path.rstrip("/"), parts.fragment)
    return _parse_repository(origin, parts.path.lstrip("/"))


def _parse_repository(origin: str, path: str) -> Reference:
    name, at, digest = path.partition("@")
    name, _, tag = name.partition(":")
    if not _REPOSITORY.fullmatch(name):
        raise ValueError(f"cannot read image reference: {name[:200]!a} is no repository name")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(f"cannot read image reference: {digest[:100]!a} is no sha256 digest")
    if tag and not _TAG.fullmatch(tag):
        raise ValueError(f"cannot read image reference: {tag[:150]!a} is no tag")
    return Reference("registry", f"{origin}/v2/{name}", digest or tag or "latest")


class Source(msgspec.Struct, frozen=True):
    """One place to have an image from.

    Attributes:
        kind: as of its reference.
        base: as of its reference, but on this server.
        user: for the password.
        password: or none: then tokens are asked for without.
        ca: certificates in PEM to believe, and no others; empty for the system's own.
    """

    kind: Literal["layout", "registry"]
    base: str
    user: str = ""
    password: str = ""
    ca: str = ""


def sources_of(reference: Reference, config: ImagesConfig) -> tuple[Source, ...]:
    """Who is asked for an image, in order: the mirrors of its registry, then that itself."""
    origin, path = _split(reference.base)
    mirrors = config.registries[origin].mirrors if origin in config.registries else ()
    through = [mirror for mirror in mirrors if reference.kind == "registry"]
    return tuple(
        _source(reference, config, *_split(base))
        for base in (*(_below(mirror, path) for mirror in through), reference.base)
    )


def _below(mirror: str, path: str) -> str:
    origin, folder = _split(mirror)
    return f"{origin}/v2{folder}/{path.removeprefix('/v2/')}"


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path


def _source(reference: Reference, config: ImagesConfig, origin: str, path: str) -> Source:
    known = config.registries.get(origin, RegistryConfig())
    return Source(reference.kind, origin + path, known.user, known.password or "", known.ca)


class Platform(msgspec.Struct, frozen=True):
    """For which machine a manifest is."""

    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        """As `linux/arm64/v8`."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A pointer to content: its type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
    platform: Platform | None = None
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True):
    """An image index, or a layout's index.json."""

    manifests: tuple[Descriptor, ...]
    layers: msgspec.Raw = msgspec.Raw()


class Manifest(msgspec.Struct, frozen=True):
    """An image manifest."""

    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=200)]
    manifests: msgspec.Raw = msgspec.Raw()


class RunConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """How a container of the image starts (the config's `config` object)."""

    user: str = ""
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    stop_signal: str = ""


class RootFs(msgspec.Struct, frozen=True):
    """The digests of the layers' uncompressed tars, lowest first."""

    diff_ids: tuple[Digest, ...]


class Config(msgspec.Struct, frozen=True):
    """An image's config document."""

    architecture: str
    os: str
    rootfs: RootFs
    config: RunConfig = RunConfig()


class Image(msgspec.Struct, frozen=True):
    """An image that is here: its manifest's digest, how it starts, its layers' diff ids, lowest first."""

    digest: Digest
    run: RunConfig
    layers: tuple[Digest, ...]


class Job(msgspec.Struct, frozen=True):
    """What to pull.

    Attributes:
        reference: the image.
        folder: where the layers' files go.
        present: the layers that are there already.
        largest: most bytes of an unpacked layer.
        sources: who is asked for it, in order.
    """

    reference: Reference
    folder: str
    present: tuple[str, ...]
    largest: int
    sources: tuple[Source, ...]


class Outcome(msgspec.Struct, frozen=True):
    """The image, or why there is none."""

    image: Image | None = None
    error: str = ""


class PullError(Exception):
    """The image cannot be had: the message has the cause and the remedy."""
