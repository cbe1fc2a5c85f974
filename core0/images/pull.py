"""The puller: a process without privilege that fetches one image, verifies it, and converts its layers.

It reads a `Job` from stdin and writes lines to stdout: `Resolved` once it knows which image it is, and an `Outcome`.
Every blob is checked against the size and digest by which its parent names it, every layer's tar against the config's
diff id, before its name appears. Layers become EROFS files: what unpacks a stranger's tar is mkfs.erofs, here, never
the node.
"""

import contextlib
import errno
import hashlib
import socket
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from core0.images.archive import Spool
from core0.images.confine import WORK, confine
from core0.images.erofs import make_erofs
from core0.images.fetch import Holder, Server, blob
from core0.images.model import (
    Config,
    Descriptor,
    Image,
    Job,
    Manifest,
    NoRoomError,
    Outcome,
    PullError,
    Resolved,
)
from core0.images.resolve import check_platform, document, resolve, signer_of
from core0.images.room import STEP, room_of
from core0.images.unpack import unpack
from core0.linux import files

_PARALLEL = 3


def main() -> None:
    """Do one job."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        confine(job.folder)
        job = msgspec.structs.replace(job, folder=WORK)
        outcome = Outcome(image=pull(job, _say))
    except NoRoomError as error:
        outcome = Outcome(error=str(error), missing=error.missing)
    except (PullError, msgspec.DecodeError) as error:
        outcome = Outcome(error=str(error))
    except OSError as error:
        missing = STEP if error.errno in (errno.ENOSPC, errno.EDQUOT) else 0
        outcome = Outcome(error=str(error), passing=True, missing=missing)
    _say(outcome)


def _say(message: Resolved | Outcome) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.flush()


def pull(job: Job, tell: Callable[[Resolved], None] = lambda _: None) -> Image:
    """Fetch, verify and convert; returns the image whose layers lie in the job's folder.

    Args:
        job: what to pull.
        tell: is told which image it is, before its layers are fetched.

    Raises:
        PullError: for everything that is wrong with the image, or that its servers say of it.
        OSError: for what may be over at the next try.
    """
    if job.base is not None and job.stream is not None:
        return _commit(job, job.base, job.stream)
    spool = Path(job.folder, "spool")
    try:
        return _pull(job, _holders(job, spool), tell)
    finally:
        files.remove_tree(spool)


def _holders(job: Job, spool: Path) -> Sequence[Holder]:
    """Who has the image: of one that comes as an archive, what was kept of that."""
    servers = [Server(source) for source in job.sources]
    if job.stream is not None:
        kept = Spool(spool, "the stream", room_of(job))
        with contextlib.closing(_stream(job.stream)) as coming:
            kept.fill(coming)
        return [kept]
    if job.reference.kind == "archive":
        kept = Spool(spool, job.reference.base, room_of(job))
        with contextlib.closing(servers[0].whole()) as coming:
            kept.fill(coming)
        return [kept]
    return servers


def _stream(descriptor: int) -> Generator[bytes, None, None]:
    """What comes over a connection, to its end. Raises PullError: it is cut."""
    from core0.wire import pieces  # it brings asyncio, which most pulls need not wait for

    with socket.socket(fileno=descriptor) as way:
        while data := pieces.receive(way):
            yield data
    if data is None:
        raise PullError("cannot load the image: the stream was cut before its end; send it again")


def _pull(job: Job, holders: Sequence[Holder], tell: Callable[[Resolved], None]) -> Image:
    found = resolve(job.reference, holders)
    signer = signer_of(job.policy, found) if job.policy else ""
    servers, descriptor = found.servers, found.descriptor
    manifest = document(servers, descriptor, Manifest)
    config = document(servers, manifest.config, Config)
    check_platform(config)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise PullError(
            f"cannot use image {descriptor.digest}: its config lists {len(config.rootfs.diff_ids)} layers, "
            f"its manifest {len(manifest.layers)}; build the image anew"
        )
    tell(Resolved(descriptor.digest))
    pairs = dict(zip(config.rootfs.diff_ids, manifest.layers, strict=True))
    missing = [pair for pair in pairs.items() if pair[0] not in job.present]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda pair: _convert(job, servers, *pair), missing))
    return Image(descriptor.digest, config.config, config.rootfs.diff_ids, signer)


def _convert(job: Job, servers: Sequence[Holder], diff_id: str, descriptor: Descriptor) -> None:
    """Turn a layer into `<folder>/<diff id's hex>.erofs`, which appears only when all was verified."""
    name = diff_id.removeprefix("sha256:")
    final, partial = Path(job.folder, f"{name}.erofs"), Path(job.folder, f"{name}.partial")
    pieces = unpack(descriptor, blob(servers, descriptor), job.largest)
    try:
        digest = make_erofs(partial, pieces, f"layer {descriptor.digest}", room_of(job))
        if digest != diff_id:
            raise PullError(f"cannot use layer {descriptor.digest}: unpacked it is {digest}, not {diff_id}")
        partial.rename(final)
    finally:
        partial.unlink(missing_ok=True)


def _commit(job: Job, base: Image, stream: int) -> Image:
    """What a container wrote, as one more layer of its image, by the rules of any other."""
    partial = Path(job.folder, "layer.partial")
    try:
        with contextlib.closing(_at_most(job.largest, _stream(stream))) as coming:
            diff_id = make_erofs(partial, coming, "what the container wrote", room_of(job))
        partial.rename(Path(job.folder, f"{diff_id.removeprefix('sha256:')}.erofs"))
    finally:
        partial.unlink(missing_ok=True)
    return committed(base, diff_id)


def _at_most(largest: int, pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    read = 0
    for piece in pieces:
        read += len(piece)
        if read > largest:
            raise PullError(f"cannot use what the container wrote: it is over {largest} bytes")
        yield piece


def committed(base: Image, layer: str) -> Image:
    """An image with one layer more. It has no manifest: its digest is of how it starts and of its layers."""
    layers = (*base.layers, layer)
    content = {"config": msgspec.to_builtins(base.run), "layers": layers}
    digest = hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
    return Image(f"sha256:{digest}", base.run, layers)
