"""Layers on a pool: what was pulled once is there after a reboot, if it still is what the node remembers.

The pool has files named by their diff ids, and nothing else that counts; which images they make, and the SHA-256 of
each file, is in the node's state. A layer is used when its file has that digest: it is read once in a boot for that.
(fs-verity would look at each block when it is read, but marks the file system so that kernels without it take it
read-only ever after, which a pool's disks must outlive.)

Disks may hang: all that touches the pool runs in the worker. What containers get is a copy of a layer's one mount,
which touches nothing. Those mounts would keep a pool from being unmounted, and the kernel from letting go of disks
that were pulled: they end with the pool, all at once with the tmpfs that they lie in, and with a node daemon.

    images/layers/<diff id>.erofs   images/incoming/<pull>/
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from core0.images.model import Digest, Image
from core0.images.mounted import mount_layer, unmount_layer
from core0.linux import files, mounts
from core0.linux.worker import HungError, Worker
from core0.wire import paths
from core0.wire.control import RefusedError, Report
from core0.wire.state import NEWER_IMAGE

_SECTION = "image-cache"
_FOLDER, _LAYERS, _INCOMING = "images", "layers", "incoming"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Seconds: for a look or a small change, for mounting layers, for reading them whole, after the daemon's start for the
# pool to come.
_LOOK, _MOUNT, _READ, _COMING = 15.0, 15.0, 300.0, 15.0
# Seconds until a pool that could not be looked at is tried again: a disk that hangs shall not hold every container.
_PAUSE = 60.0
# Bytes of an image's record that the node's state takes, and of how many images.
_LARGEST_RECORD, _MOST_IMAGES = 64 << 10, 500


class Layer(msgspec.Struct, frozen=True):
    """A layer's file: its size, and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


class _Kept(msgspec.Struct, frozen=True):
    """What the node's state has: the pool, the images by their references, their layers that are there."""

    pool: str = ""
    images: dict[str, Image] = {}
    layers: dict[Digest, Layer] = {}


class Pools(Protocol):
    """What is needed of the disks."""

    def folders(self) -> Mapping[str, str]:
        """The pools that serve: where they are mounted, by name."""

    async def wait_changed(self) -> None:
        """Wait until that is something else, perhaps."""


class Keep(Protocol):
    """Where the node's state is kept."""

    def get(self, section: str) -> bytes | None:
        """A section of the state."""

    async def put(self, section: str, value: bytes) -> None:
        """Write a section; returns when every copy has it."""


class Wanted(Protocol):
    """Tells the pool that the config names, "" for none, None as long as the config is not known."""

    def __call__(self) -> str | None:
        """Tell it."""


class PoolLayers:
    """The layers on the config's pool.

    Args:
        worker: runs what may hang.
        pools: gives the pools of this node.
        keep: the node's state.
        report: where to tell why the pool is not used.
        wanted: the pool that the config names.
        mounted: where layers are mounted; what an earlier node daemon had there is let go.

    Attributes:
        here: the layers that can be used now.
    """

    def __init__(
        self,
        worker: Worker,
        pools: Callable[[], Pools],
        keep: Keep,
        report: Report,
        wanted: Wanted,
        mounted: str = paths.POOL_LAYERS,
    ) -> None:
        self._worker, self._pools, self._keep, self._report = worker, pools, keep, report
        self._wanted, self._mounted = wanted, mounted
        self._said = ""
        self._next_try = 0.0
        self._strange = False
        self._kept = self._remembered()
        self._root = ""
        self._verified: set[str] = set()
        self._turn, self._mounting = asyncio.Lock(), asyncio.Lock()
        self._until = asyncio.get_running_loop().time() + _COMING
        self.here: dict[str, Layer] = {}
        self._watching = asyncio.create_task(self.let_go())

    @property
    def images(self) -> Mapping[str, Image]:
        """The images that are remembered, by their references."""
        return self._kept.images

    @property
    def name(self) -> str:
        """The pool that is used, or would be; none where it is not understood what the node remembers of it."""
        if self._strange:
            return ""
        wanted = self._wanted()
        return self._kept.pool if wanted is None else wanted

    async def ready(self) -> bool:
        """Whether the pool can be used; one that images are remembered on may take its time after a boot."""
        async with self._turn:
            name = self.name
            if name and name == self._kept.pool:
                await self._wait_for(name)
            root = self._pools().folders().get(name, "") if name else ""
            if not root:
                await self._leave(f"pool {name} is not there" if name else "")
            elif root != self._root and asyncio.get_running_loop().time() >= self._next_try:
                await self._take(name, root)
            return bool(self._root)

    async def stage(self, entry: str) -> str:
        """A folder that the puller may write to. Raises OSError."""
        return await self._worker.call(stage, self._root, entry, paths.PULL_USER, deadline=_LOOK)

    async def adopt(self, entry: str, image: Image) -> None:
        """Make the layers that the puller left the node's own. Raises OSError."""
        missing = tuple(one for one in dict.fromkeys(image.layers) if one not in self.here)
        made = await self._worker.call(adopt, self._root, entry, missing, deadline=_READ)
        self.here |= made
        self._verified |= set(made)

    async def drop(self, entry: str) -> None:
        """Remove a puller's folder, as far as the pool lets it; the next look sweeps what is left."""
        with contextlib.suppress(OSError):
            await self._worker.call(drop, self._root, entry, deadline=_LOOK)

    async def remove(self, diff_ids: Collection[str]) -> int:
        """Delete layers; returns how many bytes they had."""
        gone = {one: self.here.pop(one) for one in diff_ids if one in self.here}
        self._verified -= set(gone)
        if gone and self._root:
            # what is left is swept when the pool is taken again
            with contextlib.suppress(OSError):
                async with self._mounting:
                    await self._worker.call(remove, self._root, self._mounted, tuple(gone), deadline=_LOOK)
        return sum(layer.bytes for layer in gone.values())

    async def verify(self, diff_ids: Collection[str]) -> None:
        """Read those whole that were not read in this boot.

        Raises:
            OSError: one is not what it was; it is not here any more.
        """
        wanted = {one: self.here[one] for one in diff_ids if one in self.here and one not in self._verified}
        if not wanted:
            return
        async with self._leaving_when_hung():
            found = await self._worker.call(digests, self._root, tuple(wanted), deadline=_READ)
        damaged = [one for one, layer in wanted.items() if found.get(one) != layer]
        self._verified |= wanted.keys() - set(damaged)
        if damaged:
            await self.remove(damaged)
            raise OSError(
                errno.EBADMSG,
                f"cannot use {damaged[0]} of pool {self.name}: its file was damaged or changed; it is fetched again",
            )

    async def mount(self, diff_ids: Sequence[str]) -> dict[str, int]:
        """A detached mount of each; the caller closes them. Raises OSError."""
        async with self._leaving_when_hung(), self._mounting:
            try:
                missing = _not_mounted(self._mounted, diff_ids)
                if missing:
                    await self._worker.call(mount, self._root, self._mounted, missing, deadline=_MOUNT)
                return _copies(self._mounted, diff_ids)
            except HungError:
                raise
            except OSError as error:
                why = error
        await self.remove(diff_ids)
        raise OSError(why.errno, f"cannot use layers of pool {self.name}: {why}")

    async def let_go(self) -> None:
        """Have no layer mounted: nothing but containers keeps the pool from being unmounted then."""
        async with self._mounting:
            try:
                if is_mounted(self._mounted):
                    await self._worker.call(detach, self._mounted, deadline=_LOOK)
            except OSError as error:
                self._tell(
                    f"layers of a pool cannot be unmounted: {error}; its disks are free after a reboot"
                )

    async def remember(self, images: Mapping[str, Image]) -> None:
        """Have the state know which images the layers here make; of what is not all here, nothing is remembered."""
        if not self._root:
            return
        whole = {name: one for name, one in images.items() if self.here.keys() >= set(one.layers)}
        small = [name for name, one in whole.items() if len(msgspec.json.encode(one)) <= _LARGEST_RECORD]
        kept = _Kept(self.name, {name: whole[name] for name in small[-_MOST_IMAGES:]}, dict(self.here))
        if kept == self._kept:
            return
        try:
            await self._keep.put(_SECTION, msgspec.json.encode(kept))
            self._kept = kept
        except RefusedError as error:
            self._tell(f"what is on pool {self.name} is not remembered: {error}")

    def _remembered(self) -> _Kept:
        try:
            return msgspec.json.decode(self._keep.get(_SECTION) or b"{}", type=_Kept)
        except msgspec.ValidationError as error:  # a newer image wrote it
            self._strange = True
            self._tell(
                f"images are kept in memory: it is not understood what is on the pool: {error}; {NEWER_IMAGE}"
            )
            return _Kept()

    async def _wait_for(self, name: str) -> None:
        """Wait for a pool until it is there, another is wanted, or it takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._until):
                while name not in self._pools().folders() and name == self.name:
                    await self._pools().wait_changed()

    async def _take(self, name: str, root: str) -> None:
        """Begin to use a pool: what is remembered of it, and is there, counts; the rest goes."""
        known = self._kept.layers if name == self._kept.pool else {}
        sizes = {one: layer.bytes for one, layer in known.items()}
        await self.let_go()
        try:
            there = await self._worker.call(sweep, root, sizes, deadline=_LOOK)
        except OSError as error:
            await self._give_up(f"pool {name} cannot be used: {error}")
            return
        self._root, self._said = root, ""
        self.here = {one: known[one] for one in there}
        self._watching.cancel()
        self._watching = asyncio.create_task(self._watch(name))

    async def _watch(self, name: str) -> None:
        """Leave the pool as soon as it goes."""
        while self._root:
            await self._pools().wait_changed()
            async with self._turn:
                if self._root and self._pools().folders().get(name) != self._root:
                    await self._leave(f"pool {name} is not there")

    @contextlib.asynccontextmanager
    async def _leaving_when_hung(self) -> AsyncIterator[None]:
        """What lies on a disk that does not answer is fetched anew."""
        try:
            yield
        except HungError as error:
            await self._give_up(f"pool {self.name} does not answer: {error}")
            raise

    async def _give_up(self, why: str) -> None:
        """Do without the pool for a while."""
        self._next_try = asyncio.get_running_loop().time() + _PAUSE
        await self._leave(why)

    async def _leave(self, why: str) -> None:
        self._root, self.here = "", {}
        self._verified.clear()
        if why:
            self._tell(f"images are kept in memory: {why}")
        await self.let_go()

    def _tell(self, said: str) -> None:
        if said != self._said:
            self._said = said
            self._report("image", "pool", f"Warning: {said}")


# what runs in the worker


def stage(root: str, entry: str, user: int) -> str:
    """Make a folder for a puller; returns its path."""
    with _opened(root) as pool:
        for folder, mode in (
            (_FOLDER, 0o711),
            (f"{_FOLDER}/{_LAYERS}", 0o700),
            (f"{_FOLDER}/{_INCOMING}", 0o711),
        ):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, mode, dir_fd=pool)
        with _opened(_FOLDER, pool) as images, _opened(_INCOMING, images) as work:
            os.mkdir(entry, 0o700, dir_fd=work)
            os.chown(entry, user, user, dir_fd=work, follow_symlinks=False)
    return f"{root}/{_FOLDER}/{_INCOMING}/{entry}"


def adopt(root: str, entry: str, diff_ids: tuple[str, ...]) -> dict[str, Layer]:
    """Move what a puller left to the layers: from here on nobody else can write it. Its folder goes."""
    made: dict[str, Layer] = {}
    with _opened(root) as pool, _opened(_FOLDER, pool) as images, _opened(_LAYERS, images) as layers:
        with _opened(_INCOMING, images) as work, _opened(entry, work) as left:
            for diff_id in diff_ids:
                with _file(diff_id, left) as layer:
                    os.fchown(layer, 0, 0)
                    os.fchmod(layer, 0o444)
                    made[diff_id] = _read(layer)
                    os.fsync(layer)
                os.rename(_name(diff_id), _name(diff_id), src_dir_fd=left, dst_dir_fd=layers)
        os.fsync(layers)
    drop(root, entry)
    return made


def drop(root: str, entry: str) -> None:
    """Remove a puller's folder."""
    files.remove_tree(f"{root}/{_FOLDER}/{_INCOMING}/{entry}")


def sweep(root: str, known: dict[str, int]) -> tuple[str, ...]:
    """Which of the known layers are there, by their sizes; all else that lies among them is removed."""
    there: list[str] = []
    with _opened(root) as pool:
        try:
            with _opened(_FOLDER, pool) as images, _opened(_LAYERS, images) as layers:
                names = {_name(diff_id): diff_id for diff_id in known}
                for name in os.listdir(layers):  # noqa: PTH208 — a descriptor
                    found = os.stat(name, dir_fd=layers, follow_symlinks=False)
                    diff_id = names.get(name, "")
                    if diff_id and stat.S_ISREG(found.st_mode) and found.st_size == known[diff_id]:
                        there.append(diff_id)
                    elif not stat.S_ISDIR(found.st_mode):
                        os.unlink(name, dir_fd=layers)
                for entry in _entries(images):
                    drop(root, entry)
        except FileNotFoundError:  # nothing was ever kept there
            return ()
    return tuple(there)


def _entries(images: int) -> list[str]:
    with _opened(_INCOMING, images) as work:
        return os.listdir(work)  # noqa: PTH208 — a descriptor


def remove(root: str, mounted: str, diff_ids: tuple[str, ...]) -> None:
    """Delete layers; who has a copy of one's mount keeps it."""
    for diff_id in diff_ids:
        unmount_layer(_place(mounted, diff_id))
    with _opened(root) as pool, _opened(_FOLDER, pool) as images, _opened(_LAYERS, images) as layers:
        for diff_id in diff_ids:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_name(diff_id), dir_fd=layers)


def digests(root: str, diff_ids: tuple[str, ...]) -> dict[str, Layer]:
    """What layers' files have, read whole; one that cannot be read has nothing."""
    found: dict[str, Layer] = {}
    with _opened(root) as pool, _opened(_FOLDER, pool) as images, _opened(_LAYERS, images) as layers:
        for diff_id in diff_ids:
            with contextlib.suppress(OSError), _file(diff_id, layers) as layer:
                found[diff_id] = _read(layer)
    return found


def mount(root: str, mounted: str, diff_ids: tuple[str, ...]) -> None:
    """Mount layers, each at its place below a tmpfs."""
    if not is_mounted(mounted):
        Path(mounted).mkdir(exist_ok=True)
        mounts.mount("tmpfs", mounted, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0700")
    with _opened(root) as pool, _opened(_FOLDER, pool) as images, _opened(_LAYERS, images) as layers:
        for diff_id in diff_ids:
            with _file(diff_id, layers) as layer:
                mount_layer(f"/proc/self/fd/{layer}", _place(mounted, diff_id))


def detach(mounted: str) -> None:
    """Unmount all layers at once, as far as no container has them."""
    mounts.unmount(mounted)


# where they are mounted: to look there touches no disk


def is_mounted(place: str | Path) -> bool:
    """Whether something is mounted there."""
    return os.path.ismount(place)


def _place(mounted: str, diff_id: str) -> Path:
    """Where a layer is mounted."""
    return Path(mounted, diff_id.removeprefix("sha256:"))


def _not_mounted(mounted: str, diff_ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(one for one in diff_ids if not is_mounted(_place(mounted, one)))


def _copies(mounted: str, diff_ids: Iterable[str]) -> dict[str, int]:
    """A detached mount of each layer, from its one mount."""
    copies: dict[str, int] = {}
    with contextlib.ExitStack() as undo:
        for one in diff_ids:
            copies[one] = mounts.clone_tree(str(_place(mounted, one)))
            undo.callback(os.close, copies[one])
        undo.pop_all()
    return copies


@contextlib.contextmanager
def _opened(name: str, folder: int | None = None) -> Iterator[int]:
    """A folder's descriptor, for the block; a link is no folder."""
    descriptor = os.open(name, _OPEN, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _file(diff_id: str, folder: int) -> Iterator[int]:
    """A layer's file, for the block. Raises OSError: it is none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(_name(diff_id), flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, f"{diff_id} is no file")
        yield descriptor
    finally:
        os.close(descriptor)


def _read(layer: int) -> Layer:
    with open(layer, "rb", closefd=False) as file:
        digest = hashlib.file_digest(file, "sha256")
    return Layer(os.fstat(layer).st_size, digest.hexdigest())


def _name(diff_id: str) -> str:
    return f"{diff_id.removeprefix('sha256:')}.erofs"
