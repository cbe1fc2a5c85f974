"""Signatures of images as cosign keeps them: who signs and who verifies agree on the tag, the types and the payload.

The signature of a manifest is an image manifest of its own in the same repository, by the tag `sha256-<hex>.sig`.
Each of its layers is a payload, which names the digest and the repository; the signature of the payload's bytes
stands in the layer's annotation.

Source: cosign's specs/SIGNATURE_SPEC.md, and containers-signature(5) for the payload ("simple signing").
"""

import msgspec

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
REF_NAME = "org.opencontainers.image.ref.name"
LARGEST_PAYLOAD = 64 << 10
_KIND = "cosign container image signature"


class _Identity(msgspec.Struct, rename="kebab"):
    docker_reference: str = ""


class _Image(msgspec.Struct, rename="kebab"):
    docker_manifest_digest: str


class _Critical(msgspec.Struct):
    identity: _Identity
    image: _Image
    type: str


class Payload(msgspec.Struct):
    """What is signed; what else it says (`optional`) is nobody's business here."""

    critical: _Critical


def tag_of(digest: str) -> str:
    """The tag of a manifest's signatures."""
    return f"{digest.replace(':', '-')}.sig"


def payload_of(digest: str, repository: str) -> bytes:
    """What to sign.

    Args:
        digest: of the manifest, or of the index that leads to it.
        repository: where it may be had by that signature, as `registry.example.com/team/demo`; empty for anywhere.
    """
    return msgspec.json.encode(
        {"critical": _Critical(_Identity(repository), _Image(digest), _KIND), "optional": None}
    )


def trouble_with(payload: bytes, digest: str, repository: str) -> str:
    """Why a payload, whose signature was verified, does not speak for an image; empty if it does.

    Args:
        payload: its bytes.
        digest: of the image's manifest or index.
        repository: that it is had from.
    """
    try:
        said = msgspec.json.decode(payload, type=Payload).critical
    except (msgspec.DecodeError, RecursionError) as error:
        return f"its payload is damaged: {error}"
    named = said.identity.docker_reference
    if said.type != _KIND:
        return f"it is of the type {said.type[:100]!a}, not {_KIND!a}"
    if said.image.docker_manifest_digest != digest:
        return f"it is of another image: {said.image.docker_manifest_digest[:100]!a}"
    if named and named != repository:
        return f"it is for the repository {named[:200]!a}, not {repository!a}"
    return ""
