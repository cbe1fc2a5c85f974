"""Whether somebody who is believed has signed an image: cosign's ECDSA P-256, or Ed25519 by the same way.

Everything here comes from whoever has the registry: a payload is not read before its signature was verified, and one
that speaks for another image or repository speaks for none.

Source: cosign's specs/SIGNATURE_SPEC.md; RFC 5480, RFC 8410 for the keys.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator

from core0.images.model import Descriptor, Policy, PullError, Reference, policy_for, repository_of
from core0.linux import openssl
from core0.wire.image_signatures import ANNOTATION, LARGEST_PAYLOAD, PAYLOAD_TYPE, trouble_with
from core0.wire.images import ImagesConfig

MOST_SIGNATURES = 32
_LONGEST_SIGNATURE = 512


def policy_of(reference: Reference, config: ImagesConfig, operator: bytes | None) -> Policy | None:
    """Who must have signed an image; None if nobody needs to have.

    Args:
        reference: of the image.
        config: what the node's config says of images.
        operator: the operator's Ed25519 public key, if the node has one.

    Raises:
        PullError: the config asks for what cannot be.
    """
    found = policy_for(reference, config)
    if found is None:
        return None
    prefix, wanted = found
    name = f"images.signatures.{prefix!a}"
    keys = [_spki_of(pem, name) for pem in wanted.keys]
    if wanted.operator and operator is None:
        raise PullError(
            f"cannot use the image: {name} wants the operator's signature, and the node knows none: boot it with "
            "zn.operator"
        )
    if wanted.operator and operator is not None:
        keys.append(openssl.spki_of(operator))
    remedy = f"sign it (zn container image sign, cosign sign --key), or change {name} in the node's config"
    return Policy(tuple(keys), repository_of(reference, prefix, wanted.signed_as), remedy)


def _spki_of(pem: str, name: str) -> bytes:
    """A public key's SubjectPublicKeyInfo from its PEM (RFC 7468)."""
    inner = "".join(line for line in pem.strip().splitlines() if not line.startswith("-----"))
    try:
        spki = base64.b64decode(inner, validate=True)
    except (binascii.Error, ValueError):
        spki = b""
    if not openssl.kind_of(spki):
        raise PullError(
            f"cannot use a key of {name}: it is neither an ECDSA P-256 nor an Ed25519 public key; correct the node's "
            "config"
        )
    return spki


def key_id(spki: bytes) -> str:
    """How a key is called: the first eight bytes of its SHA-256."""
    return hashlib.sha256(spki).hexdigest()[:16]


def find_signer(
    policy: Policy, digest: str, layers: Iterable[Descriptor], read: Callable[[Descriptor], bytes]
) -> str:
    """The id of a key that is believed and has signed an image.

    Args:
        policy: who is believed.
        digest: of the image's manifest, or of an index that leads to it.
        layers: of the manifest that its signatures have.
        read: gets one of them, verified by its digest.

    Raises:
        PullError: nobody has; with what each signature is good for.
    """
    causes: list[str] = []
    for layer in tuple(layers)[:MOST_SIGNATURES]:
        try:
            return _signer(policy, digest, layer, read)
        except _NotThisError as error:
            causes.append(str(error))
    said = "; ".join(dict.fromkeys(causes[:5])) or "its signatures' manifest has none"
    raise PullError(f"cannot use image {digest}: no signature of it counts: {said}")


class _NotThisError(Exception):
    """Why a signature does not count."""


def _signer(policy: Policy, digest: str, layer: Descriptor, read: Callable[[Descriptor], bytes]) -> str:
    if layer.media_type != PAYLOAD_TYPE or layer.size > LARGEST_PAYLOAD:
        raise _NotThisError(f"one is no payload of up to {LARGEST_PAYLOAD} bytes, or of another type")
    signature = _signature(layer.annotations.get(ANNOTATION, ""))
    payload = read(layer)
    by = next(_verified(policy, signature, payload), "")
    if not by:
        raise _NotThisError("one was made by no key that the config names, or was changed since")
    trouble = trouble_with(payload, digest, policy.repository)
    if trouble:
        raise _NotThisError(f"one by key {by} does not count: {trouble}")
    return by


def _signature(text: str) -> bytes:
    try:
        signature = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if not 0 < len(signature) <= _LONGEST_SIGNATURE:
        raise _NotThisError("one is no base64, empty or too long")
    return signature


def _verified(policy: Policy, signature: bytes, payload: bytes) -> Iterator[str]:
    """The ids of the keys that made a signature. Raises PullError: a key is none."""
    for spki in policy.keys:
        try:
            if openssl.verify_spki(spki, signature, payload):
                yield key_id(spki)
        except openssl.OpenSslError as error:
            said = f"cannot use key {key_id(spki)} of the node's config: {error}; correct it"
            raise PullError(said) from None
