"""Signing the images of an OCI layout as cosign does, by a key of ours: the signature becomes a manifest beside them.

Pushed or served along with the image it is found by its tag. Signing again gives the same bytes.

Sources: OCI image format 1.1 (image-layout.md); cosign's specs/SIGNATURE_SPEC.md.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core0.wire.image_signatures import ANNOTATION, PAYLOAD_TYPE, REF_NAME, payload_of, tag_of
from image.errors import ImageError
from image.files import write_atomically

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


class LayoutError(ImageError):
    """The folder is no OCI layout with an image."""


def sign_layout(folder: Path, sign: Callable[[bytes], bytes], repository: str = "") -> list[str]:
    """Sign every image of a layout.

    Args:
        folder: the layout, to which the signatures are added.
        sign: makes the signature of a payload.
        repository: where the images may be had by that signature; empty for anywhere.

    Returns:
        The digests of what was signed.

    Raises:
        ImageError: it is no layout, has no image, or cannot be written.
    """
    index = _read_index(folder)
    images = [one for one in index["manifests"] if not _attached(one)]
    if not images:
        raise LayoutError(f"cannot sign {folder}: it has no image; name the folder of a layout that has")
    digests = list(dict.fromkeys(one["digest"] for one in images))
    for digest in digests:
        _add_signature(folder, index, digest, payload_of(digest, repository), sign)
    write_atomically(folder / "index.json", _json(index))
    return digests


def _read_index(folder: Path) -> Any:
    try:
        index = json.loads((folder / "index.json").read_bytes())
        if all(isinstance(one["digest"], str) for one in index["manifests"]):
            return index
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LayoutError(f"cannot sign {folder}: it is no OCI layout: {error}") from None
    raise LayoutError(f"cannot sign {folder}: it is no OCI layout: a manifest has no digest")


def _attached(descriptor: dict[str, Any]) -> bool:
    """Whether it belongs to an image, as signatures do."""
    return bool(_name(descriptor).startswith("sha256-"))


def _name(descriptor: dict[str, Any]) -> str:
    return str((descriptor.get("annotations") or {}).get(REF_NAME, ""))


def _add_signature(
    folder: Path, index: Any, digest: str, payload: bytes, sign: Callable[[bytes], bytes]
) -> None:
    """Add one to those that the image has; the same one again changes nothing."""
    tag = tag_of(digest)
    before = next((one for one in index["manifests"] if _name(one) == tag), None)
    layers = _layers_of(folder, before) if before else []
    layer = {
        **_add_blob(folder, payload, PAYLOAD_TYPE),
        "annotations": {ANNOTATION: base64.b64encode(sign(payload)).decode()},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _add_blob(folder, b"{}", _CONFIG),
        "layers": [*(one for one in layers if one != layer), layer],
    }
    described = {**_add_blob(folder, _json(manifest), _MANIFEST), "annotations": {REF_NAME: tag}}
    index["manifests"] = [*(one for one in index["manifests"] if one is not before), described]


def _layers_of(folder: Path, descriptor: dict[str, Any]) -> list[dict[str, Any]]:
    path = folder / "blobs" / descriptor["digest"].replace(":", "/")
    try:
        return list(json.loads(path.read_bytes())["layers"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LayoutError(
            f"cannot sign {folder}: its signatures in {path.name} are damaged: {error}"
        ) from None


def _add_blob(folder: Path, content: bytes, media_type: str) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / "blobs/sha256" / sha256
    if not path.exists():
        write_atomically(path, content)
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
