"""Which manifest a reference leads to on this machine, who has it, and who has signed it.

Source: OCI image specification 1.1 (image-layout.md, image-index.md, manifest.md); cosign's specs/SIGNATURE_SPEC.md.
"""

import hashlib
import platform
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from core0.images.fetch import ACCEPT, AbsentError, Cause, Holder, blob, worst
from core0.images.model import (
    INDEX_TYPES,
    LARGEST_MANIFEST,
    Config,
    Descriptor,
    Index,
    Manifest,
    Platform,
    Policy,
    PullError,
    Reference,
)
from core0.images.signatures import find_signer
from core0.wire.image_signatures import tag_of

_DEEPEST_INDEX = 4
# Names of what belongs to an image of the same layout, as its signatures do.
_ATTACHED = re.compile(r"sha256-[0-9a-f]{64}\..*")
DocumentT = TypeVar("DocumentT", bound=msgspec.Struct)
# What a document of one kind must not have: two readers could take it for two images.
_NOT_IN: Mapping[type, str] = {Index: "layers", Manifest: "manifests"}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Found(NamedTuple):
    """An image's manifest for this machine.

    Attributes:
        servers: who is asked for more, those that did not know the image last.
        descriptor: the manifest.
        digests: its own, and those of the indexes that led there: a signature of any of them is one of the image.
        layout: the index of the layout that it is of, if it is of one.
    """

    servers: Sequence[Holder]
    descriptor: Descriptor
    digests: tuple[str, ...]
    layout: Index | None


def resolve(reference: Reference, servers: Sequence[Holder]) -> Found:
    """Ask an image's servers, in order, until one knows it.

    Raises:
        PullError: nobody knows it, it is not for this machine, or what they say of it is wrong.
        OSError: not everybody could be asked.
    """
    causes = list[Cause]()
    for place, server in enumerate(servers):
        try:
            named = _named(server, reference)
        except (PullError, OSError) as error:
            causes.append(Cause(str(error), isinstance(error, OSError)))
        else:
            order = [*servers[place:], *servers[:place]]
            layout = None if named.descriptor else named.leads_to
            return Found(order, *_manifest_for_here(order, reference, named), layout)
    raise worst(causes)


class _Named(NamedTuple):
    """What a reference names: a manifest, an index by its digest, or a layout's own index, which has none."""

    descriptor: Descriptor | None
    leads_to: Index | None


def _named(server: Holder, reference: Reference) -> _Named:
    """What a server says that a reference names."""
    if reference.kind != "registry":
        return _Named(None, _decode(server.small("index.json")[0], Index))
    data, media_type = server.small(f"manifests/{reference.wanted}", {"Accept": ACCEPT})
    descriptor = Descriptor(media_type, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))
    if reference.wanted.startswith("sha256:") and descriptor.digest != reference.wanted:
        raise PullError(
            f"cannot use image {reference.wanted}: the registry sent one with {descriptor.digest}"
        )
    return _Named(descriptor, _decode(data, Index) if media_type in INDEX_TYPES else None)


def _manifest_for_here(
    servers: Sequence[Holder], reference: Reference, named: _Named
) -> tuple[Descriptor, tuple[str, ...]]:
    """Go through indexes, which may lead to others, to the manifest for this machine; the digests of all."""
    wanted = reference.wanted if reference.kind != "registry" else ""
    found, index = named
    digests = [found.digest] if found else []
    for _ in range(_DEEPEST_INDEX):
        if index:
            found, wanted = _choose(index, wanted), ""
            digests.append(found.digest)
            index = document(servers, found, Index) if found.media_type in INDEX_TYPES else None
        elif found:
            return found, tuple(digests)
    raise PullError(f"cannot use the image: its indexes lead to each other, {_DEEPEST_INDEX} deep")


def signer_of(policy: Policy, found: Found) -> str:
    """The id of a key that is believed and has signed the image, or an index that led to it. Raises PullError."""
    causes: list[Cause] = []
    for digest in found.digests:
        try:
            layers = _signatures(found, digest)
            return find_signer(policy, digest, layers, lambda one: b"".join(blob(found.servers, one)))
        except (PullError, OSError) as error:
            causes.append(Cause(str(error), isinstance(error, OSError)))
    cause = worst(causes)
    raise cause if isinstance(cause, OSError) else PullError(f"{cause}; {policy.remedy}")


def _signatures(found: Found, digest: str) -> Sequence[Descriptor]:
    """What the signatures' manifest of a digest has. Raises PullError: there is none."""
    tag, causes = tag_of(digest), list[Cause]()
    unsigned = Cause(f"cannot use image {digest}: it is not signed: there is no {tag}", passing=False)
    if found.layout:
        named = next((one for one in found.layout.manifests if one.name == tag), None)
        if named:
            return document(found.servers, named, Manifest).layers
        raise worst([unsigned])
    for server in found.servers:
        try:
            data, _ = server.small(f"manifests/{tag}", {"Accept": ACCEPT})
            return _decode(data, Manifest).layers
        except AbsentError:
            causes.append(unsigned)
        except (PullError, OSError) as error:
            causes.append(Cause(str(error), isinstance(error, OSError)))
    raise worst(list(dict.fromkeys(causes)))


def _choose(index: Index, wanted: str) -> Descriptor:
    """The manifest for this machine, of the named image where a layout has several."""
    named = [
        one
        for one in index.manifests
        if (wanted in (one.digest, one.name) if wanted else not _ATTACHED.fullmatch(one.name))
    ]
    if wanted and not named:
        raise PullError(f"cannot use the image: the layout has none that is called {wanted!a}")
    here = Platform(_architecture(), "linux")
    exact = [
        one
        for one in named
        if one.platform
        and (one.platform.os or here.os, one.platform.architecture) == (here.os, here.architecture)
    ]
    open_ = [one for one in named if one.platform is None]
    if exact or open_:
        return (*exact, *open_)[0]
    offered = ", ".join(sorted({str(one.platform) for one in named if one.platform})) or "nothing"
    raise PullError(
        f"cannot use the image: it is not made for {here} (offered: {offered[:500]!a}); build it for {here}"
    )


def check_platform(config: Config) -> None:
    """Raises PullError: the image is not for this machine."""
    here = _architecture()
    if (config.os, config.architecture) != ("linux", here):
        made = f"{config.os}/{config.architecture}"[:200]
        raise PullError(f"cannot use the image: it is for {made}, the node is linux/{here}")


def _architecture() -> str:
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def document(servers: Sequence[Holder], descriptor: Descriptor, kind: type[DocumentT]) -> DocumentT:
    """A manifest or config, verified. Raises PullError, OSError."""
    if descriptor.size > LARGEST_MANIFEST:
        raise PullError(f"cannot use blob {descriptor.digest}: {descriptor.size} bytes are no document")
    return _decode(b"".join(blob(servers, descriptor)), kind)


def _decode(data: bytes, kind: type[DocumentT]) -> DocumentT:
    try:
        found = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PullError(f"cannot read the image's {kind.__name__.lower()}: {error}") from None
    if bytes(getattr(found, _NOT_IN.get(kind, ""), b"")):
        raise PullError("cannot use the image: a document of it is an index and a manifest at once")
    return found
