"""The node's images in memory: which are here, pulling more, and mounting their layers.

Each layer is one EROFS file by its diff id, shared by all images and containers that have it.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from core0.images.model import Image, Job, Outcome, PullError, parse_reference, sources_of
from core0.linux import files, mounts, tools
from core0.linux.unprivileged import ask_unprivileged
from core0.wire import paths
from core0.wire.images import ImagesConfig

# Seconds for one image, however large: a server that trickles must not hold a container for ever.
_DEADLINE = 900.0
_LARGEST_LAYER = 2 << 30


class Store:
    """The images of this node.

    Args:
        folder: where they are.
        config: tells what the node's config says of registries at this moment.
    """

    def __init__(
        self, folder: Path = Path(paths.IMAGES), config: Callable[[], ImagesConfig] = ImagesConfig
    ) -> None:
        self._config = config
        self._layers = folder / "layers"
        self._work = folder / "work"
        self._kept = folder / "images.json"
        self._images = _kept_images(self._kept)
        self._pulls: dict[str, asyncio.Task[Image]] = {}
        self._layers.mkdir(exist_ok=True)
        files.remove_tree(self._work)
        self._work.mkdir(mode=0o711)

    def get(self, reference: str) -> Image | None:
        """The image, if it is here."""
        return self._images.get(reference)

    @property
    def images(self) -> Mapping[str, Image]:
        """The images that are here by their references; those whose name is another's by now, by their digests."""
        return self._images

    @property
    def pulling(self) -> bool:
        """Whether an image is on its way: it may count on layers that are here."""
        return bool(self._pulls)

    def size(self, diff_id: str) -> int:
        """Bytes of a layer's file."""
        return self._layer(diff_id).stat().st_size

    def remove(self, digests: Collection[str]) -> int:
        """Forget images, and delete every layer that no other one has; nothing may be `pulling`.

        Returns:
            How many bytes are free by that.
        """
        self._images = {name: one for name, one in self._images.items() if one.digest not in digests}
        self._write()
        needed = {self._layer(diff_id) for image in self._images.values() for diff_id in image.layers}
        freed = 0
        for layer in set(self._layers.iterdir()) - needed:
            freed += layer.stat().st_size
            layer.unlink()
        return freed

    async def pull(self, reference: str, *, again: bool = False) -> Image:
        """The image, fetched if it is not here; containers that want the same one share the pull.

        Args:
            reference: of the image.
            again: ask its server also if one of that name is here: it may be another by now.

        Raises:
            PullError: with cause and remedy.
        """
        image = self._images.get(reference)
        if image and not again:
            return image
        task = self._pulls.get(reference)
        if not task:
            task = self._pulls[reference] = asyncio.create_task(self._pull(reference))
            task.add_done_callback(lambda ended: self._let_go(reference, ended))
        return await asyncio.shield(task)

    def _let_go(self, reference: str, pull: asyncio.Task[Image]) -> None:
        """A pull has ended: who waits for it is told. If nobody does any more, its failure is nobody's."""
        self._pulls.pop(reference, None)
        if not pull.cancelled():
            pull.exception()  # seen, or asyncio reports it as a defect

    async def _pull(self, reference: str) -> Image:
        folder = self._work / os.urandom(8).hex()
        folder.mkdir(mode=0o700)
        os.chown(folder, paths.PULL_USER, paths.PULL_USER)
        try:
            wanted = parse_reference(reference)
            sources = sources_of(wanted, self._config())
            job = Job(wanted, str(folder), self._present(), _LARGEST_LAYER, sources)
            image = await _run_puller(job)
            self._take(folder, image)
        except ValueError as error:
            raise PullError(str(error)) from None
        finally:
            files.remove_tree(folder)
        before = self._images.get(reference)
        if before and before.digest != image.digest:
            self._images[before.digest] = before  # containers run from it
        self._images[reference] = image
        self._write()
        return image

    def _write(self) -> None:
        files.replace(self._kept, msgspec.json.encode(self._images))

    def _present(self) -> tuple[str, ...]:
        return tuple(f"sha256:{path.stem}" for path in self._layers.glob("*.erofs"))

    def _take(self, folder: Path, image: Image) -> None:
        """Make the puller's layers the node's own: from here on nobody else can write them."""
        for diff_id in image.layers:
            final = self._layer(diff_id)
            made = folder / final.name
            if final.exists():
                continue
            if made.is_symlink() or not made.is_file():
                raise PullError(f"cannot use image {image.digest}: the puller did not leave layer {diff_id}")
            made.rename(final)
            os.chown(final, 0, 0, follow_symlinks=False)
            final.chmod(0o444)

    def _layer(self, diff_id: str) -> Path:
        return self._layers / f"{diff_id.removeprefix('sha256:')}.erofs"

    def mount_layers(self, image: Image) -> list[int]:
        """A detached read-only mount of each layer, lowest first; the caller closes the descriptors."""
        attributes = mounts.ATTR_RDONLY | mounts.ATTR_NODEV | mounts.ATTR_NOSUID
        opened: list[int] = []
        try:
            opened.extend(
                mounts.create("erofs", {"source": str(self._layer(diff_id))}, attributes)
                for diff_id in image.layers
            )
        except OSError:
            close_all(opened)
            raise
        return opened


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


async def _run_puller(job: Job) -> Image:
    """Run the puller as its own user; its answer is checked like a stranger's."""
    await asyncio.to_thread(tools.mount_tools)
    try:
        said, code = await ask_unprivileged("pull", msgspec.json.encode(job), _DEADLINE)
    except TimeoutError:
        raise PullError(f"cannot pull the image: not done after {_DEADLINE:.0f} s; try again") from None
    try:
        outcome = msgspec.json.decode(said, type=Outcome)
    except msgspec.DecodeError:
        raise PullError(f"cannot pull the image: the puller ended with {code}") from None
    if outcome.image is None:
        raise PullError(outcome.error)
    return outcome.image
