"""The node's images in memory: which are here, pulling more, and mounting their layers.

Each layer is one EROFS file by its diff id, shared by all images and containers that have it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from core0.images.model import (
    LOCAL,
    Image,
    Job,
    NoRoomError,
    Outcome,
    Policy,
    PullError,
    Reference,
    Resolved,
    UnreachableError,
    parse_reference,
    sources_of,
)
from core0.images.mounted import MountedLayers
from core0.images.pool import Layer, PoolLayers
from core0.images.room import spare
from core0.images.signatures import key_id, policy_of
from core0.linux import cgroups, files, tools
from core0.linux.unprivileged import ask_unprivileged
from core0.wire import paths
from core0.wire.control import Report
from core0.wire.images import ImagesConfig

# Seconds for one image, however large: a server that trickles must not hold a container for ever.
_DEADLINE = 900.0
# Seconds that somebody waits to hear whether an image can be had at all.
_PATIENCE = 10.0
_LARGEST_LAYER = 2 << 30
# Processes and threads of a puller: three layers at a time, each with its mkfs.erofs.
_MOST_PROCESSES = 64
# What a puller says: which image it is, and how it ended.
_MOST_LINES = 2
# Bytes that unused images make room by for a puller that was too large.
_STEP = 64 << 20


class Store:
    """The images of this node.

    Args:
        folder: where they are.
        config: tells what the node's config says of images at this moment.
        operator: the operator's Ed25519 public key.
        report: where to tell what was removed to make room.
        pool: layers on the config's pool.

    Attributes:
        in_use: tells the digests of the images that containers have.
    """

    def __init__(
        self,
        folder: Path = Path(paths.IMAGES),
        config: Callable[[], ImagesConfig] = ImagesConfig,
        operator: bytes | None = None,
        report: Report = lambda *_: None,
        pool: PoolLayers | None = None,
    ) -> None:
        self._config = config
        self._operator = operator
        self._report = report
        self.in_use: Callable[[], Collection[str]] = tuple
        self._uses: dict[str, int] = {}
        self._layers = folder / "layers"
        self._work = folder / "work"
        self._kept = folder / "images.json"
        self._pool = pool
        self._images = {**(pool.images if pool else {}), **_kept_images(self._kept)}
        self._pulls: dict[str, _Pull] = {}
        self._layers.mkdir(exist_ok=True)
        self._mounted = MountedLayers(folder / "mounted")
        self._in_memory = {f"sha256:{path.stem}" for path in self._layers.glob("*.erofs")}
        files.remove_tree(self._work)
        self._work.mkdir(mode=0o711)

    def get(self, reference: str) -> Image | None:
        """The image, if it is here and still believed: the config may want a signature by now."""
        image = self._images.get(reference)
        if image is None or not self._in_memory | self._on_pool().keys() >= set(image.layers):
            return None
        try:
            policy = self._policy(parse_reference(reference))
        except (PullError, ValueError):  # what is remembered may be of an image that took other references
            return None
        return None if policy and image.signer not in map(key_id, policy.keys) else image

    def _policy(self, reference: Reference) -> Policy | None:
        return policy_of(reference, self._config(), self._operator)

    async def settle(self) -> None:
        """Wait until it is known what is on the pool, if there is one."""
        if self._pool:
            await self._pool.ready()

    async def let_go(self) -> None:
        """Have no layer of a pool mounted but by containers: somebody wants to unmount it."""
        if self._pool:
            await self._pool.let_go()

    def _on_pool(self) -> Mapping[str, Layer]:
        return self._pool.here if self._pool else {}

    @property
    def images(self) -> Mapping[str, Image]:
        """The images that are here by their references; those whose name is another's by now, by their digests."""
        return self._images

    @property
    def pulling(self) -> bool:
        """Whether an image is on its way: it may count on layers that are here."""
        return bool(self._pulls)

    def size(self, diff_id: str) -> int:
        """Bytes of a layer's file; 0 if it is on a pool that is not there."""
        on_pool = self._on_pool().get(diff_id)
        if on_pool:
            return on_pool.bytes
        return self._layer(diff_id).stat().st_size if diff_id in self._in_memory else 0

    async def remove(self, digests: Collection[str]) -> int:
        """Forget images, and delete every layer that no other one has; nothing may be `pulling`.

        Returns:
            How many bytes are free by that.
        """
        self._images = {name: one for name, one in self._images.items() if one.digest not in digests}
        needed = {diff_id for image in self._images.values() for diff_id in image.layers}
        freed = 0
        self._mounted.drop(map(self._layer, self._in_memory - needed))
        for diff_id in self._in_memory - needed:
            freed += self._layer(diff_id).stat().st_size
            self._layer(diff_id).unlink()
        self._in_memory &= needed
        if self._pool:
            freed += await self._pool.remove(self._pool.here.keys() - needed)
        await self._write()
        return freed

    async def pull(self, reference: str, *, again: bool = False) -> Image:
        """The image, fetched if it is not here; containers that want the same one share the pull.

        Args:
            reference: of the image.
            again: ask its server also if one of that name is here: it may be another by now.

        Raises:
            PullError: with cause and remedy.
        """
        await self.settle()
        image = self.get(reference)
        if image and not again:
            return image
        return await asyncio.shield(self._begin(reference).task)

    async def look(self, reference: str, *, again: bool = False) -> asyncio.Future[Image]:
        """See whether an image can be had, before anything counts on it.

        Nothing is said against an image whose servers cannot be asked, now or within a few seconds.

        Args:
            reference: of the image.
            again: as of `pull`.

        Returns:
            The image, or its pull, which goes on.

        Raises:
            PullError: it never can, as things are: its servers do not know it, or it is not for this machine.
        """
        await self.settle()
        image = self.get(reference)
        if image and not again:
            here = asyncio.get_running_loop().create_future()
            here.set_result(image)
            return here
        pull = self._begin(reference)
        either: set[asyncio.Future[Any]] = {pull.task, pull.resolved}
        await asyncio.wait(either, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if pull.task.done():
            with contextlib.suppress(UnreachableError, NoRoomError, OSError):
                pull.task.result()
        return pull.task

    def load(self, reference: str, wanted: str, stream: int) -> asyncio.Future[Image]:
        """The image that comes as an archive, and has that name from then on.

        Args:
            reference: `local:NAME`, of which no other may be coming.
            wanted: which image of several; empty for the only one.
            stream: the descriptor of a blocking connection that brings it in pieces; it stays the caller's.
        """
        self._pulls.pop(reference, None)  # by which a container may just learn that there is none
        return self._begin(reference, wanted, stream).task

    def commit(self, reference: str, base: Image, stream: int) -> asyncio.Future[Image]:
        """The image that is made of another one's layers and one more; kept as one that was loaded.

        Args:
            reference: `local:NAME`, of which no other may be coming.
            base: the other one.
            stream: the descriptor of a blocking connection that brings the layer's tar in pieces; it stays the
                caller's.
        """
        self._pulls.pop(reference, None)
        return self._begin(reference, "", stream, base).task

    def _begin(
        self, reference: str, wanted: str = "", stream: int | None = None, base: Image | None = None
    ) -> "_Pull":
        """The pull of an image that is under way, or a new one."""
        pull = self._pulls.get(reference)
        if not pull:
            resolved = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._pull(reference, resolved, wanted, stream, base))
            pull = self._pulls[reference] = _Pull(task, resolved)
            task.add_done_callback(lambda _: self._let_go(reference, task))
        return pull

    def _let_go(self, reference: str, pull: asyncio.Task[Image]) -> None:
        """A pull has ended: who waits for it is told. If nobody does any more, its failure is nobody's."""
        if reference in self._pulls and self._pulls[reference].task is pull:
            del self._pulls[reference]
        if not pull.cancelled():
            pull.exception()  # seen, or asyncio reports it as a defect

    def _note_use(self, digest: str) -> None:
        self._uses[digest] = max(self._uses.values(), default=0) + 1

    async def _make_room(self, reference: str, missing: int) -> int:
        """Remove images that nobody needs, the oldest use first, until as much is free; returns how much is.

        What was loaded stays, as nobody could fetch it again; and all does while other pulls count on what is here.
        """
        if any(name != reference for name in self._pulls):
            return 0
        kept = {*self.in_use(), *(one.digest for name, one in self._images.items() if name.startswith(LOCAL))}
        unused = {one.digest for one in self._images.values()} - kept
        freed = 0
        for digest in sorted(unused, key=lambda one: self._uses.get(one, 0)):
            if freed < missing:
                freed += await self.remove({digest})
                self._report("image", digest, f"Removed to make room for {reference}: nobody needs it")
        return freed

    async def _pull(
        self,
        reference: str,
        resolved: asyncio.Future[str],
        chosen: str,
        stream: int | None,
        base: Image | None,
    ) -> Image:
        pool = self._pool if self._pool and await self._pool.ready() else None
        if pool and base and not pool.here.keys() >= set(base.layers):
            pool = None  # there it would lack what is below it
        while True:
            try:
                job = self._job(reference, chosen, stream, base)
                image = await self._try_pull(job, resolved, pool)
                break
            except NoRoomError as error:
                freed = await self._make_room(reference, error.missing)
                if freed and stream is not None:
                    raise PullError(f"{error}; {freed >> 20} MiB are free by now: send it again") from None
                if not freed and (pool is None or stream is not None):
                    raise
                if not freed:
                    pool = self._leave_pool(pool, reference, error)
            except OSError as error:
                if pool is None or stream is not None:
                    raise
                pool = self._leave_pool(pool, reference, error)
        self._note_use(image.digest)
        before = self._images.get(reference)
        if before and before.digest != image.digest:
            self._images[before.digest] = before  # containers run from it
        self._images[reference] = image
        await self._write()
        return image

    def _leave_pool(self, pool: PoolLayers | None, reference: str, cause: Exception) -> PoolLayers | None:
        """Tell why an image is not kept on its pool; where it is kept instead."""
        name = pool.name if pool else ""
        self._report("image", reference, f"Warning: it is kept in memory, not on pool {name}: {cause}")
        return None

    async def _try_pull(self, job: Job, resolved: asyncio.Future[str], pool: PoolLayers | None) -> Image:
        try:
            if pool:
                return await _pull_to_pool(job, resolved, pool)
            return await self._pull_to_memory(job, resolved)
        except ValueError as error:
            raise PullError(str(error)) from None

    async def _pull_to_memory(self, job: Job, resolved: asyncio.Future[str]) -> Image:
        folder = self._work / os.urandom(8).hex()
        folder.mkdir(mode=0o700)
        os.chown(folder, paths.PULL_USER, paths.PULL_USER)
        try:
            present = (*self._in_memory, *self._on_pool())
            job = msgspec.structs.replace(job, folder=str(folder), present=present)
            image = await _run_puller(job, resolved)
            self._take(folder, image)
        finally:
            files.remove_tree(folder)
        return image

    def _job(self, reference: str, chosen: str, stream: int | None, base: Image | None) -> Job:
        """Raises PullError: it can only be loaded, or must be signed by a key that is none, or by anybody at all."""
        try:
            wanted = parse_reference(reference)
        except ValueError as error:
            raise PullError(str(error)) from None
        if wanted.kind == "local":
            if stream is None:
                raise PullError(
                    f"cannot find image {wanted.base}: none was loaded by that name, or it went with a reboot; load "
                    "it: zn container image load FILE --name NAME"
                )
            wanted = msgspec.structs.replace(wanted, wanted=chosen)
        sources, policy = sources_of(wanted, self._config()), self._policy(wanted)
        if policy and base:
            raise PullError(
                f"cannot make image {wanted.base}: nobody has signed what a container wrote; {policy.remedy}"
            )
        return Job(wanted, "", (), _LARGEST_LAYER, sources, policy, stream, base)

    async def _write(self) -> None:
        files.replace(self._kept, msgspec.json.encode(self._images))
        if self._pool:
            await self._pool.remember(self._images)

    def _take(self, folder: Path, image: Image) -> None:
        """Make the puller's layers the node's own: from here on nobody else can write them."""
        for diff_id in image.layers:
            final = self._layer(diff_id)
            made = folder / final.name
            if diff_id in self._in_memory or diff_id in self._on_pool():
                continue
            if made.is_symlink() or not made.is_file():
                raise PullError(f"cannot use image {image.digest}: the puller did not leave layer {diff_id}")
            made.rename(final)
            os.chown(final, 0, 0, follow_symlinks=False)
            final.chmod(0o444)
            self._in_memory.add(diff_id)

    def _layer(self, diff_id: str) -> Path:
        return self._layers / f"{diff_id.removeprefix('sha256:')}.erofs"

    async def verify(self, image: Image) -> None:
        """Look at the layers that an earlier boot left, before any of them is used. Raises OSError."""
        if self._pool:
            await self._pool.verify(image.layers)

    async def mount_layers(self, image: Image) -> list[int]:
        """A detached read-only mount of each layer, lowest first; the caller closes the descriptors.

        Raises:
            OSError: one cannot be mounted; on a pool it is not here any more, and will be fetched again.
        """
        self._note_use(image.digest)
        on_pool = [one for one in dict.fromkeys(image.layers) if one in self._on_pool()]
        mounted = await self._pool.mount(on_pool) if self._pool and on_pool else {}
        try:
            for one in image.layers:
                if one not in mounted:
                    mounted[one] = self._mounted.copy(self._layer(one))
        except OSError:
            close_all(list(mounted.values()))
            raise
        return [mounted[one] for one in image.layers]


async def _pull_to_pool(job: Job, resolved: asyncio.Future[str], pool: PoolLayers) -> Image:
    """What is in memory only is fetched again: on the pool it is there after a reboot."""
    entry = os.urandom(8).hex()
    folder = await pool.stage(entry)
    try:
        job = msgspec.structs.replace(job, folder=folder, present=tuple(pool.here), place="pool")
        image = await _run_puller(job, resolved)
        await pool.adopt(entry, image)
    finally:
        await pool.drop(entry)
    return image


def _kept_images(file: Path) -> dict[str, Image]:
    """The images of an earlier node daemon: what it pulled is here, whether or not their servers still answer."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Image])
    except FileNotFoundError:
        return {}


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


class _Pull(NamedTuple):
    """A pull under way; the future gets the image's digest as soon as that is known."""

    task: asyncio.Task[Image]
    resolved: asyncio.Future[str]


@contextlib.asynccontextmanager
async def _cgroup(job: Job) -> AsyncIterator[str]:
    """A cgroup for a puller, which nothing outlives. Raises OSError."""
    path = f"{paths.CGROUP_SYSTEM}/pull-{Path(job.folder).name}"
    limits = {
        "memory.max": str(spare()),
        "memory.oom.group": "1",
        "pids.max": str(_MOST_PROCESSES),
    }
    await asyncio.to_thread(cgroups.create, path, limits)
    try:
        yield path
    finally:
        cgroups.kill(path)
        await asyncio.to_thread(cgroups.remove, path)


def _was_too_large(cgroup: str) -> bool:
    """Whether the kernel ended something in a cgroup for its memory."""
    return cgroups.keyed(files.read_text(f"{cgroup}/memory.events")).get("oom_kill", 0) > 0


class _Ear:
    """Hears what a puller says, and believes it no more than a stranger.

    Attributes:
        outcome: its last word, if it came to one.
    """

    def __init__(self, resolved: asyncio.Future[str]) -> None:
        self.outcome: Outcome | None = None
        self._lines = 0
        self._resolved = resolved

    def hear(self, line: bytes) -> None:
        """Take one line. Raises ValueError: it is no message, or one more than a pull has."""
        said = msgspec.json.decode(line, type=Resolved | Outcome)
        self._lines += 1
        if self._lines > _MOST_LINES:
            raise ValueError(f"it has over {_MOST_LINES} lines")
        if isinstance(said, Outcome):
            self.outcome = said
        elif not self._resolved.done():
            self._resolved.set_result(said.digest)


async def _run_puller(job: Job, resolved: asyncio.Future[str]) -> Image:
    """Run the puller as its own user, in a cgroup of its own.

    Raises:
        PullError: the image cannot be had.
    """
    ear = _Ear(resolved)
    try:
        await asyncio.to_thread(tools.mount_tools)
        code = await _start_puller(job, ear)
    except TimeoutError:
        raise UnreachableError(
            f"cannot pull the image: not done after {_DEADLINE:.0f} s; try again"
        ) from None
    except OSError as error:
        raise UnreachableError(f"cannot pull the image: the puller cannot run: {error}") from None
    except ValueError as error:  # msgspec's, too
        raise UnreachableError(f"cannot pull the image: the puller's answer is none: {error}") from None
    outcome = ear.outcome
    if outcome is None:
        raise UnreachableError(f"cannot pull the image: the puller ended with {code}; try again")
    if outcome.missing:
        raise NoRoomError(outcome.error, outcome.missing)
    if outcome.image is None:
        raise (UnreachableError if outcome.passing else PullError)(outcome.error)
    return outcome.image


async def _start_puller(job: Job, ear: _Ear) -> int | None:
    descriptors = () if job.stream is None else (job.stream,)
    async with _cgroup(job) as cgroup:
        given = msgspec.json.encode(job)
        _, code = await ask_unprivileged("pull", given, _DEADLINE, ear.hear, descriptors, cgroup)
        if ear.outcome is None and _was_too_large(cgroup):
            raise NoRoomError("cannot pull the image: its puller had no memory left; remove images", _STEP)
    return code
