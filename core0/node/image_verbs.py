"""The node daemon's verbs for images: what the store has, and which containers need it."""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.images.model import LOCAL, Image, PullError, parse_reference
from core0.wire import pieces
from core0.wire.control import Call, Refusal, Reply, absent, conflict, invalid
from core0.wire.image_store import (
    Collected,
    ImageDigest,
    ImageLayer,
    ImageLoad,
    ImagePull,
    NodeImage,
    NodeImages,
)
from core0.wire.operations import Operation

if TYPE_CHECKING:
    from core0.images.store import Store
    from core0.node.operations import Progress
    from core0.node.verbs import NodeState


# What tells those who sent images how it ended.
_TELLING: set[asyncio.Task[None]] = set()
# Seconds that who sent an image may take to hear what became of it.
_GOODBYE = 5.0


async def _images(state: "NodeState", _: Call) -> NodeImages:
    store = state.containers.store
    await store.settle()
    layers = {layer for image in store.images.values() for layer in image.layers}
    return NodeImages(_listed(state), sum(map(store.size, layers)))


async def _image(state: "NodeState", call: Call) -> NodeImage:
    await state.containers.store.settle()
    return _find(state, msgspec.json.decode(call.body, type=ImageDigest))


async def _pull_image(state: "NodeState", call: Call) -> Operation:
    wanted = msgspec.json.decode(call.body, type=ImagePull).image
    coming = await state.containers.look_for_image(wanted, again=True)

    async def pull(progress: "Progress") -> str:
        progress(None, "its layers are being fetched")
        try:
            image = await asyncio.shield(coming)
        except PullError as error:
            raise OSError(str(error)) from None
        return f"it is here: {image.digest}"

    return state.operations.start("pull", wanted, pull)


def _load_image(state: "NodeState", call: Call, connection: int) -> None:
    """Take an image as a tar, which the connection brings to the puller; the node daemon sees none of it."""
    wanted = msgspec.json.decode(call.body, type=ImageLoad)
    reference = f"{LOCAL}{wanted.name}"
    try:
        parse_reference(reference)
    except ValueError as error:
        raise invalid(str(error), "correct the name", "/name") from None
    talk = socket.socket(fileno=os.dup(connection))
    reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    try:
        operation = state.operations.start(
            "load", reference, lambda progress: _load(state, reference, wanted.image, talk, reply, progress)
        )
        pieces.send_reply(talk, Reply())
    except BaseException:
        talk.close()
        raise
    telling = asyncio.create_task(_tell(state, operation, talk, reply), name=f"load {reference}")
    _TELLING.add(telling)
    telling.add_done_callback(_TELLING.discard)


async def _load(
    state: "NodeState",
    reference: str,
    chosen: str,
    talk: socket.socket,
    reply: asyncio.Future[Reply],
    progress: "Progress",
) -> str:
    progress(None, "it is coming")
    try:
        image = await asyncio.shield(state.containers.store.load(reference, chosen, talk.fileno()))
        state.containers.image_came(reference)
        reply.set_result(Reply(msgspec.Raw(msgspec.json.encode(_find(state, image.digest)))))
    except (PullError, OSError) as error:
        remedy = "nothing was kept of it; correct it, and load it again"
        reply.set_result(Reply(refusal=Refusal(422, "invalid", str(error), remedy)))
        raise OSError(str(error)) from None
    except asyncio.CancelledError:
        talk.shutdown(socket.SHUT_RDWR)  # the puller shall not wait for more
        raise
    finally:
        if not reply.done():
            reply.cancel()
    return f"it is here: {image.digest}"


async def _tell(
    state: "NodeState", operation: Operation, talk: socket.socket, reply: asyncio.Future[Reply]
) -> None:
    """Tell who sent an image what became of it, once it may be sent again. Whom it concerns may have left."""
    with talk, contextlib.suppress(OSError):
        said = await reply
        await state.operations.wait(operation.id, _GOODBYE)
        await asyncio.to_thread(pieces.part, talk, said, _GOODBYE)


async def _delete_image(state: "NodeState", call: Call) -> Collected:
    await state.containers.store.settle()
    image = _find(state, msgspec.json.decode(call.body, type=ImageDigest))
    if image.containers:
        users = ", ".join(image.containers)
        raise conflict(f"cannot remove image {image.digest}: of containers {users}", "remove these first")
    return await _remove(state, {image.digest})


async def _collect_images(state: "NodeState", _: Call) -> Collected:
    await state.containers.store.settle()
    return await _remove(state, {image.digest for image in _listed(state) if not image.containers})


async def _remove(state: "NodeState", digests: set[str]) -> Collected:
    store = state.containers.store
    if store.pulling:
        raise conflict(
            "cannot remove images: some are being pulled", "wait until they are here, then try again"
        )
    return Collected(tuple(sorted(digests)), await store.remove(digests))


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


# As those of volumes: the connection is a blocking socket that brings the image.
IMAGE_CONNECTION_VERBS: Mapping[str, Callable[["NodeState", Call, int], None]] = {"load_image": _load_image}

IMAGE_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "images": _images,
    "image": _image,
    "pull_image": _pull_image,
    "delete_image": _delete_image,
    "collect_images": _collect_images,
}
