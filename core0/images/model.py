"""Images as the node knows them, and the references that name them.

Sources: OCI image specification 1.1 (image-layout, manifest, config), OCI distribution specification 1.1.
"""

import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from core0.wire.image_signatures import REF_NAME
from core0.wire.images import ImagesConfig, RegistryConfig, SignaturePolicy

_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Folders and a slash at the end; no name of only dots.
_FOLDERS = re.compile(r"(?:/(?!\.+/)[A-Za-z0-9._~!$&'()*+,;=:@-]+)+/")

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
# How references of images begin that were loaded, or made of containers.
LOCAL = "local:"
_PORTS = {"http": 80, "https": 443}


Kind = Literal["layout", "archive", "registry", "local"]


class Reference(msgspec.Struct, frozen=True):
    """Where an image is.

    Attributes:
        kind: an image layout's folder, one that is a tar, a registry's repository, or what was loaded by a name.
        base: URL without a slash at its end; of a registry, its `/v2/<repository>`; of what was loaded, `local:NAME`.
        wanted: the tag or digest asked for; empty for the only image of a layout or archive.
    """

    kind: Kind
    base: str
    wanted: str


def parse_reference(text: str) -> Reference:
    """Parse a reference.

    `http://host:port/folder/` is a layout, `http://host:port/file.tar` one that is a tar,
    `http://host:port/name[:tag|@digest]` a repository, `local:name[:tag]` what was loaded.

    Raises:
        ValueError: with what is wrong and an example.
    """
    if text.startswith(LOCAL):
        return _parse_local(text.removeprefix(LOCAL))
    parts = urlsplit(text)
    if not _is_plain_address(parts):
        raise ValueError(
            f"cannot read image reference {text[:200]!a}: it is no http or https address without user and query, "
            "as in http://10.0.2.2:8080/oci/demo/ or http://10.0.2.2:8080/demo:latest, nor local:NAME"
        )
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.path.endswith("/"):
        return Reference("layout", origin + _layout_path(parts.path), parts.fragment)
    if parts.path.endswith(".tar") and not re.search(r"[:@][^/]*$", parts.path):
        return Reference("archive", origin + _layout_path(f"{parts.path}/"), parts.fragment)
    return _parse_repository(origin, parts.path.lstrip("/"))


def _parse_local(text: str) -> Reference:
    name, colon, tag = text.partition(":")
    if not _REPOSITORY.fullmatch(name) or len(name) > 200 or (colon and not _TAG.fullmatch(tag)):
        raise ValueError(f"cannot read image reference: {text[:200]!a} is no name, as demo or team/demo:1 is")
    return Reference("local", f"{LOCAL}{name}", "")


def _is_plain_address(parts: SplitResult) -> bool:
    """Whether it is a web address without user and query, and its port is one."""
    try:
        port_is_good = parts.port != 0
    except ValueError:
        port_is_good = False
    web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return port_is_good and web and not parts.username and not parts.query


def _layout_path(path: str) -> str:
    """A layout's path, of which there is one way to write it: signatures are asked for by how it begins."""
    if path != "/" and not _FOLDERS.fullmatch(path):
        raise ValueError(
            f"cannot read image reference: {path[:200]!a} has empty, dotted or encoded names; write it plainly"
        )
    return path.rstrip("/")


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

    kind: Kind
    base: str
    user: str = ""
    password: str = ""
    ca: str = ""


def sources_of(reference: Reference, config: ImagesConfig) -> tuple[Source, ...]:
    """Who is asked for an image, in order: the mirrors of its registry, then that itself."""
    if reference.kind == "local":
        return ()
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


def policy_for(reference: Reference, config: ImagesConfig) -> tuple[str, SignaturePolicy] | None:
    """What an image's signature must be, and the prefix that says so; None if it needs none."""
    fitting = [prefix for prefix in config.signatures if _below_prefix(_plain(_address(reference)), prefix)]
    prefix = max(fitting, key=len, default=None)
    if prefix is None or not config.signatures[prefix].required:
        return None
    return prefix, config.signatures[prefix]


def repository_of(reference: Reference, prefix: str, signed_as: str) -> str:
    """What signatures call a reference's repository: as it is asked for, or as `signed_as` has it for a prefix."""
    address = _address(reference)
    if signed_as:
        return signed_as + _plain(address).removeprefix(_plain(prefix))
    return address.partition("://")[2] or address.removeprefix(LOCAL)


def _address(reference: Reference) -> str:
    """A repository's or layout's address, as references have it."""
    if reference.kind != "registry":
        return reference.base
    origin, path = _split(reference.base)
    return f"{origin}{path.removeprefix('/v2')}"


def _plain(address: str) -> str:
    """An address in the one way that all ways to write it lead to: host in small letters, and its port."""
    parts = urlsplit(address)
    if not parts.hostname:
        return address
    return f"{parts.scheme}://{parts.hostname}:{parts.port or _PORTS[parts.scheme]}{parts.path}"


def _below_prefix(address: str, prefix: str) -> bool:
    """Whether an address is a prefix, or below it: no name may be the beginning of another."""
    plain = _plain(prefix)
    end = "" if plain == LOCAL else "/"
    return not plain or address == plain or address.startswith(f"{plain}{end}")


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

    @property
    def name(self) -> str:
        """What a layout calls it."""
        return self.annotations.get(REF_NAME, "")


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
    """An image that is here.

    Attributes:
        digest: of its manifest.
        run: how it starts.
        layers: their diff ids, lowest first.
        signer: the id of the key that it was signed by, if it needed to be.
    """

    digest: Digest
    run: RunConfig
    layers: tuple[Digest, ...]
    signer: str = ""


class Policy(msgspec.Struct, frozen=True):
    """Who must have signed an image.

    Attributes:
        keys: any of these: SubjectPublicKeyInfo.
        repository: what the signature must be for, if it says for what.
        remedy: what to do about one that is not signed.
    """

    keys: tuple[bytes, ...]
    repository: str
    remedy: str


class Job(msgspec.Struct, frozen=True):
    """What to pull.

    Attributes:
        reference: the image.
        folder: where the layers' files go.
        present: the layers that are there already.
        largest: most bytes of an unpacked layer.
        sources: who is asked for it, in order.
        policy: who must have signed it; None if nobody.
        stream: the descriptor of a connection that brings it as an archive, in pieces (`core0.wire.pieces`).
        base: an image that it is made of; the stream brings one layer more then, as a tar.
        place: what the folder takes room of: memory, or the pool that it is on.
    """

    reference: Reference
    folder: str
    present: tuple[str, ...]
    largest: int
    sources: tuple[Source, ...]
    policy: Policy | None = None
    stream: int | None = None
    base: Image | None = None
    place: Literal["memory", "pool"] = "memory"


class Resolved(msgspec.Struct, frozen=True, tag=True):
    """The puller's first word if all is well: its servers have such an image, and it is for this machine."""

    digest: Digest


class Outcome(msgspec.Struct, frozen=True, tag=True):
    """The puller's last word: the image, or why there is none.

    Attributes:
        image: or none.
        error: why there is none.
        passing: whether that may be over at the next try.
        missing: bytes of room that it was short of when it gave up; 0 if that was not why.
    """

    image: Image | None = None
    error: str = ""
    passing: bool = False
    missing: int = 0


class PullError(Exception):
    """The image cannot be had: the message has the cause and the remedy."""


class NoRoomError(PullError):
    """The node is short of room.

    Attributes:
        missing: bytes that were short when it was given up.
    """

    def __init__(self, message: str, missing: int) -> None:
        super().__init__(message)
        self.missing = missing


class UnreachableError(PullError):
    """Nobody could say whether the image can be had; it may be over at the next try."""
