"""The node daemon's verbs for images: what the store has, and which containers need it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.images.model import Image, PullError, parse_reference
from core0.wire.control import Call, absent, conflict, invalid
from core0.wire.image_store import Collected, ImageDigest, ImageLayer, ImagePull, NodeImage, NodeImages
from core0.wire.operations import Operation

if TYPE_CHECKING:
    from core0.images.store import Store
    from core0.node.operations import Progress
    from core0.node.verbs import NodeState


async def _images(state: "NodeState", _: Call) -> NodeImages:
    store = state.containers.store
    layers = {layer for image in store.images.values() for layer in image.layers}
    return NodeImages(_listed(state), sum(map(store.size, layers)))


async def _image(state: "NodeState", call: Call) -> NodeImage:
    return _find(state, msgspec.json.decode(call.body, type=ImageDigest))


async def _pull_image(state: "NodeState", call: Call) -> Operation:
    wanted = msgspec.json.decode(call.body, type=ImagePull).image
    try:
        parse_reference(wanted)
    except ValueError as error:
        raise invalid(str(error), "correct the image reference", "/image") from None

    async def pull(progress: "Progress") -> str:
        progress(None, "its layers are being fetched")
        try:
            image = await state.containers.store.pull(wanted, again=True)
        except PullError as error:
            raise OSError(str(error)) from None
        return f"it is here: {image.digest}"

    return state.operations.start("pull", wanted, pull)


async def _delete_image(state: "NodeState", call: Call) -> Collected:
    image = _find(state, msgspec.json.decode(call.body, type=ImageDigest))
    if image.containers:
        users = ", ".join(image.containers)
        raise conflict(f"cannot remove image {image.digest}: of containers {users}", "remove these first")
    return _remove(state, {image.digest})


async def _collect_images(state: "NodeState", _: Call) -> Collected:
    return _remove(state, {image.digest for image in _listed(state) if not image.containers})


def _remove(state: "NodeState", digests: set[str]) -> Collected:
    store = state.containers.store
    if store.pulling:
        raise conflict(
            "cannot remove images: some are being pulled", "wait until they are here, then try again"
        )
    return Collected(tuple(sorted(digests)), store.remove(digests))


def _find(state: "NodeState", digest: str) -> NodeImage:
    found = next((image for image in _listed(state) if image.digest == digest), None)
    if found is None:
        raise absent(
            f"cannot find image {digest}: the node has none of that digest", "see 'zn container image ls'"
        )
    return found


def _listed(state: "NodeState") -> tuple[NodeImage, ...]:
    store = state.containers.store
    images = {image.digest: image for image in store.images.values()}
    counts = Counter(layer for image in images.values() for layer in set(image.layers))
    users = state.containers.users_of_images()
    return tuple(_shown(store, images[digest], counts, users) for digest in sorted(images))


def _shown(
    store: "Store", image: Image, counts: Mapping[str, int], users: Mapping[str, tuple[str, str]]
) -> NodeImage:
    run = image.run
    layers = tuple(ImageLayer(layer, store.size(layer), counts[layer]) for layer in image.layers)
    names = (name for name, one in store.images.items() if one.digest == image.digest)
    references = tuple(sorted(name for name in names if name != image.digest))
    return NodeImage(
        image.digest,
        references,
        sum(store.size(layer) for layer in set(image.layers)),
        layers,
        tuple(
            name for name, (digest, wanted) in users.items() if digest == image.digest or wanted in references
        ),
        run.entrypoint or (),
        run.cmd or (),
        run.user,
        run.working_dir,
        run.stop_signal,
    )


IMAGE_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "images": _images,
    "image": _image,
    "pull_image": _pull_image,
    "delete_image": _delete_image,
    "collect_images": _collect_images,
}
