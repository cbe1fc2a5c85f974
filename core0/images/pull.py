"""The puller: a process without privilege that fetches one image, verifies it, and converts its layers.

It reads a `Job` from stdin and writes one `Outcome` to stdout. Every blob is checked against the size and digest
by which its parent names it, every layer's tar against the config's diff id, before its name appears. Layers
become EROFS files: what unpacks a stranger's tar is mkfs.erofs, here, never the node.
"""

import hashlib
import http.client
import platform
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from core0.images.model import (
    INDEX_TYPES,
    LARGEST_MANIFEST,
    MANIFEST_TYPES,
    Config,
    Descriptor,
    Image,
    Index,
    Job,
    Manifest,
    Outcome,
    PullError,
    Reference,
)
from core0.images.tar import TarCheck, TarError
from core0.images.unpack import unpack
from core0.linux import tools

_PIECE = 1 << 20
_TIMEOUT = 20.0
_ATTEMPTS = 5
_PARALLEL = 3
DocumentT = TypeVar("DocumentT", bound=msgspec.Struct)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> None:
    """Do one job."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        outcome = Outcome(image=pull(job))
    except (PullError, OSError, msgspec.DecodeError, http.client.HTTPException) as error:
        outcome = Outcome(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    sys.stdout.flush()


def pull(job: Job) -> Image:
    """Fetch, verify and convert; returns the image whose layers lie in the job's folder.

    Raises:
        PullError: for everything that is wrong with the server or the image.
    """
    descriptor = _resolve(job.reference)
    manifest = _document(job.reference, descriptor, Manifest)
    config = _document(job.reference, manifest.config, Config)
    _check_platform(config)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise PullError(
            f"cannot use image {descriptor.digest}: its config lists {len(config.rootfs.diff_ids)} layers, "
            f"its manifest {len(manifest.layers)}; build the image anew"
        )
    pairs = dict(zip(config.rootfs.diff_ids, manifest.layers, strict=True))
    missing = [pair for pair in pairs.items() if pair[0] not in job.present]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda pair: _convert(job, *pair), missing))
    return Image(descriptor.digest, config.config, config.rootfs.diff_ids)


def _resolve(reference: Reference) -> Descriptor:
    """The descriptor of the manifest for this machine: through the index of a layout or a registry."""
    if reference.kind == "layout":
        return _choose(_decode(_small(f"{reference.base}/index.json"), Index), reference.wanted)
    data, media_type = _manifest_by_name(reference)
    descriptor = Descriptor(media_type, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))
    if reference.wanted.startswith("sha256:") and descriptor.digest != reference.wanted:
        raise PullError(
            f"cannot use image {reference.wanted}: the registry sent one with {descriptor.digest}"
        )
    if media_type in INDEX_TYPES:
        return _choose(_decode(data, Index), "")
    return descriptor


def _manifest_by_name(reference: Reference) -> tuple[bytes, str]:
    request = urllib.request.Request(  # noqa: S310 — the reference is http or https, parse_reference saw to it
        f"{reference.base}/manifests/{reference.wanted}",
        headers={"Accept": ", ".join((*INDEX_TYPES, *MANIFEST_TYPES))},
    )
    with _open(request) as response:
        data = response.read(LARGEST_MANIFEST + 1)
        if len(data) > LARGEST_MANIFEST:
            raise PullError(
                f"cannot use image {reference.wanted}: its manifest is over {LARGEST_MANIFEST} bytes"
            )
        return data, response.headers.get_content_type()


def _choose(index: Index, wanted: str) -> Descriptor:
    """The manifest for this machine, of the named image where a layout has several."""
    here = _ARCHITECTURES.get(platform.machine(), platform.machine())
    named = [
        one
        for one in index.manifests
        if not wanted or wanted in (one.digest, one.annotations.get("org.opencontainers.image.ref.name"))
    ]
    for descriptor in named:
        if descriptor.platform is None or descriptor.platform.architecture in ("", here):
            return descriptor
    offered = ", ".join(sorted({one.platform.architecture for one in named if one.platform})) or "nothing"
    raise PullError(
        f"cannot use the image: it is not made for {here} (offered: {offered}); build it for {here}"
    )


def _check_platform(config: Config) -> None:
    here = _ARCHITECTURES.get(platform.machine(), platform.machine())
    if (config.os, config.architecture) != ("linux", here):
        raise PullError(
            f"cannot use the image: it is for {config.os}/{config.architecture}, the node is linux/{here}"
        )


def _document(reference: Reference, descriptor: Descriptor, kind: type[DocumentT]) -> DocumentT:
    """A manifest or config, verified."""
    if descriptor.size > LARGEST_MANIFEST:
        raise PullError(f"cannot use blob {descriptor.digest}: {descriptor.size} bytes are no document")
    return _decode(b"".join(_blob(reference, descriptor)), kind)


def _decode(data: bytes, kind: type[DocumentT]) -> DocumentT:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise PullError(f"cannot read the image's {kind.__name__.lower()}: {error}") from None


def _blob_url(reference: Reference, descriptor: Descriptor) -> str:
    if reference.kind == "layout":
        return f"{reference.base}/blobs/{descriptor.digest.replace(':', '/')}"
    kind = "manifests" if descriptor.media_type in MANIFEST_TYPES else "blobs"
    return f"{reference.base}/{kind}/{descriptor.digest}"


def _blob(reference: Reference, descriptor: Descriptor) -> Iterator[bytes]:
    """A blob's bytes, taken up again where a connection broke off.

    Raises:
        PullError: after the last piece, if size or digest are not as named; or if the server stays away.
    """
    url = _blob_url(reference, descriptor)
    seen, received, failures = hashlib.sha256(), 0, 0
    early = f"cannot fetch {url}: the server ended early; check that the server has the whole image"
    while received < descriptor.size:
        before = received
        try:
            for piece in _range(url, received, descriptor):
                seen.update(piece)
                received += len(piece)
                yield piece
        except OSError as error:
            cause = str(error)
        except http.client.HTTPException:
            cause = early
        else:
            cause = early
        failures = 0 if received > before else failures + 1
        if received < descriptor.size and failures >= _ATTEMPTS:
            raise PullError(cause)
        if failures:
            time.sleep(0.2 * 2**failures)
    if "sha256:" + seen.hexdigest() != descriptor.digest:
        raise PullError(
            f"cannot use blob {descriptor.digest}: the server sent one with sha256:{seen.hexdigest()}; "
            "the image is damaged or was tampered with"
        )


def _range(url: str, first: int, descriptor: Descriptor) -> Iterator[bytes]:
    """A blob from a byte on; never more than its size."""
    request = urllib.request.Request(url)  # noqa: S310
    if first:
        request.add_header("Range", f"bytes={first}-")
    left = descriptor.size - first
    with _open(request) as response:
        if first and response.status != 206:
            response.read(first)  # a server without ranges starts over
        while left and (piece := response.read(min(_PIECE, left))):
            left -= len(piece)
            yield piece
        if response.read(1):
            raise PullError(f"cannot use blob {descriptor.digest}: it is longer than {descriptor.size} bytes")


@contextmanager
def _open(request: urllib.request.Request) -> "Iterator[http.client.HTTPResponse]":
    """The answer, to be read in the block. Raises OSError for what may be over at the next try."""
    doing = f"cannot fetch {request.full_url}"
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            yield answer
    except urllib.error.HTTPError as error:
        with error:
            kind = OSError if error.code >= 500 else PullError
            raise kind(f"{doing}: the server answered {error.code} {error.reason}") from None
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        why = reason.strerror or reason if isinstance(reason, OSError) else reason
        raise OSError(f"{doing}: {why}; check the address and that the server runs") from None


def _small(url: str) -> bytes:
    """A layout's index: the only document that no digest names."""
    try:
        with _open(urllib.request.Request(url)) as response:  # noqa: S310
            data = response.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise PullError(str(error)) from None
    if len(data) > LARGEST_MANIFEST:
        raise PullError(f"cannot use {url}: it is over {LARGEST_MANIFEST} bytes")
    return data


def _convert(job: Job, diff_id: str, descriptor: Descriptor) -> None:
    """Turn a layer into `<folder>/<diff id's hex>.erofs`, which appears only when all was verified."""
    name = diff_id.removeprefix("sha256:")
    final, partial = Path(job.folder, f"{name}.erofs"), Path(job.folder, f"{name}.partial")
    options = ("--quiet", "--tar=f", "--aufs", "-T0", "-Enoinline_data")
    command = [tools.tool("mkfs.erofs"), *options, str(partial)]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, env=tools.environment(), stdin=pipe, stderr=pipe) as maker:
            assert maker.stdin  # noqa: S101 — it is a pipe
            assert maker.stderr  # noqa: S101 — and so is it
            try:
                digest = _feed(job, descriptor, maker.stdin)
            except TarError as error:
                maker.kill()
                raise PullError(f"cannot use layer {descriptor.digest}: {error}") from None
            except BaseException:
                maker.kill()  # mkfs.erofs waits for ever for the rest of a tar that ended early
                raise
            said = maker.stderr.read(2000).decode(errors="replace").strip()
        if maker.returncode:
            raise PullError(f"cannot convert layer {descriptor.digest}: {said or maker.returncode}")
        if digest != diff_id:
            raise PullError(f"cannot use layer {descriptor.digest}: unpacked it is {digest}, not {diff_id}")
        partial.rename(final)
    finally:
        partial.unlink(missing_ok=True)


def _feed(job: Job, descriptor: Descriptor, into: IO[bytes]) -> str:
    """Unpack a layer into a pipe; returns the tar's digest."""
    seen, check, reads = hashlib.sha256(), TarCheck(), True
    with into:
        for piece in unpack(descriptor, _blob(job.reference, descriptor), job.largest):
            check.feed(piece)
            seen.update(piece)
            try:
                if reads:
                    into.write(piece)
            except BrokenPipeError:  # it saw the end of the archive, which padding may follow, or it gave up
                reads = False
        check.end()
    return "sha256:" + seen.hexdigest()
