"""The puller: a process without privilege that fetches one image, verifies it, and converts its layers.

It reads a `Job` from stdin and writes one `Outcome` to stdout. Every blob is checked against the size and digest
by which its parent names it, every layer's tar against the config's diff id, before its name appears. Layers
become EROFS files: what unpacks a stranger's tar is mkfs.erofs, here, never the node.
"""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from core0.images.fetch import ACCEPT, Server, blob
from core0.images.model import (
    INDEX_TYPES,
    LARGEST_MANIFEST,
    Config,
    Descriptor,
    Image,
    Index,
    Job,
    Manifest,
    Outcome,
    Platform,
    PullError,
    Reference,
)
from core0.images.room import STEP, check_room
from core0.images.tar import TarCheck, TarError
from core0.images.unpack import unpack
from core0.linux import tools

_PARALLEL = 3
_DEEPEST_INDEX = 4
DocumentT = TypeVar("DocumentT", bound=msgspec.Struct)
# What a document of one kind must not have: two readers could take it for two images.
_NOT_IN: Mapping[type, str] = {Index: "layers", Manifest: "manifests"}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> None:
    """Do one job."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        outcome = Outcome(image=pull(job))
    except (PullError, OSError, msgspec.DecodeError) as error:
        outcome = Outcome(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    sys.stdout.flush()


def pull(job: Job) -> Image:
    """Fetch, verify and convert; returns the image whose layers lie in the job's folder.

    Raises:
        PullError: for everything that is wrong with the server or the image.
    """
    servers, descriptor = _resolve(job)
    manifest = _document(servers, descriptor, Manifest)
    config = _document(servers, manifest.config, Config)
    _check_platform(config)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise PullError(
            f"cannot use image {descriptor.digest}: its config lists {len(config.rootfs.diff_ids)} layers, "
            f"its manifest {len(manifest.layers)}; build the image anew"
        )
    pairs = dict(zip(config.rootfs.diff_ids, manifest.layers, strict=True))
    missing = [pair for pair in pairs.items() if pair[0] not in job.present]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda pair: _convert(job, servers, *pair), missing))
    return Image(descriptor.digest, config.config, config.rootfs.diff_ids)


def _resolve(job: Job) -> tuple[list[Server], Descriptor]:
    """The servers, those that did not know the image last, and the manifest for this machine."""
    servers, causes = [Server(source) for source in job.sources], []
    for place, server in enumerate(servers):
        try:
            found = _named(server, job.reference)
        except (PullError, OSError) as error:
            causes.append(str(error))
        else:
            order = [*servers[place:], *servers[:place]]
            return order, _manifest_for_here(order, job.reference, found)
    raise PullError("; ".join(causes))


def _named(server: Server, reference: Reference) -> Descriptor | Index:
    """What a server says that a reference names."""
    if reference.kind == "layout":
        return _decode(_small(server, "index.json", {})[0], Index)
    data, media_type = _small(server, f"manifests/{reference.wanted}", {"Accept": ACCEPT})
    descriptor = Descriptor(media_type, "sha256:" + hashlib.sha256(data).hexdigest(), len(data))
    if reference.wanted.startswith("sha256:") and descriptor.digest != reference.wanted:
        raise PullError(
            f"cannot use image {reference.wanted}: the registry sent one with {descriptor.digest}"
        )
    return _decode(data, Index) if media_type in INDEX_TYPES else descriptor


def _manifest_for_here(
    servers: Sequence[Server], reference: Reference, found: Descriptor | Index
) -> Descriptor:
    """Go through indexes, which may lead to others, to the manifest for this machine."""
    wanted = reference.wanted if reference.kind == "layout" else ""
    for _ in range(_DEEPEST_INDEX):
        if isinstance(found, Descriptor):
            return found
        chosen, wanted = _choose(found, wanted), ""
        found = _document(servers, chosen, Index) if chosen.media_type in INDEX_TYPES else chosen
    raise PullError(f"cannot use the image: its indexes lead to each other, {_DEEPEST_INDEX} deep")


def _choose(index: Index, wanted: str) -> Descriptor:
    """The manifest for this machine, of the named image where a layout has several."""
    named = [
        one
        for one in index.manifests
        if not wanted or wanted in (one.digest, one.annotations.get("org.opencontainers.image.ref.name"))
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


def _check_platform(config: Config) -> None:
    here = _architecture()
    if (config.os, config.architecture) != ("linux", here):
        made = f"{config.os}/{config.architecture}"[:200]
        raise PullError(f"cannot use the image: it is for {made}, the node is linux/{here}")


def _architecture() -> str:
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def _document(servers: Sequence[Server], descriptor: Descriptor, kind: type[DocumentT]) -> DocumentT:
    """A manifest or config, verified."""
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


def _small(server: Server, path: str, headers: Mapping[str, str]) -> tuple[bytes, str]:
    """What no digest names, a layout's index or a tag's manifest, and its media type."""
    with server.open(path, headers) as response:
        data = response.read(LARGEST_MANIFEST + 1)
        media_type = response.headers.get_content_type()
    if len(data) > LARGEST_MANIFEST:
        raise PullError(f"cannot use {path}: it is over {LARGEST_MANIFEST} bytes")
    return data, media_type


def _convert(job: Job, servers: Sequence[Server], diff_id: str, descriptor: Descriptor) -> None:
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
                digest = _feed(job, servers, descriptor, maker.stdin)
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


def _feed(job: Job, servers: Sequence[Server], descriptor: Descriptor, into: IO[bytes]) -> str:
    """Unpack a layer into a pipe; returns the tar's digest."""
    seen, check, reads = hashlib.sha256(), TarCheck(), True
    fed, looked = 0, -STEP
    with into:
        for piece in unpack(descriptor, blob(servers, descriptor), job.largest):
            check.feed(piece)
            seen.update(piece)
            if fed - looked >= STEP:
                check_room(fed)
                looked = fed
            fed += len(piece)
            try:
                if reads:
                    into.write(piece)
            except BrokenPipeError:  # it saw the end of the archive, which padding may follow, or it gave up
                reads = False
        check.end()
    return "sha256:" + seen.hexdigest()
