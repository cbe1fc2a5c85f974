"""Makes an image of a container: its image's layers, and one more of what it wrote."""

import asyncio
import contextlib
import os
import socket

from core0.containers import rootfs
from core0.containers.apply import World
from core0.containers.changes import send_changes
from core0.containers.model import Record
from core0.images.model import Image
from core0.linux import namespaces


async def commit(world: World, name: str, record: Record, image: Image, reference: str) -> tuple[Image, int]:
    """Make an image of a container whose processes are halted.

    Args:
        world: what it works on.
        name: of the container.
        record: what was made of it.
        image: the image that it was made of.
        reference: what the new one shall be called.

    Returns:
        The image, and how many bytes its own layer's tar has.

    Raises:
        OSError: its files cannot be read, or cannot be a layer.
        PullError: the same, in the packer's words.
    """
    with contextlib.ExitStack() as opened:

        def own(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        users = own(namespaces.open_namespace(record.pid, "user"))
        view = own(namespaces.open_namespace(record.pid, "mnt"))
        layers = [own(layer) for layer in await world.store.mount_layers(image)]
        below = own(rootfs.build_lower(world.folder / name, layers, users))
        ours, theirs = socket.socketpair()
        packing, sending = _pack(world, reference, image, ours), _send(world, [users, view, below], theirs)
        made, sent = await asyncio.gather(packing, sending, return_exceptions=True)
    # what was sent is cut if its sender failed: its cause says more than the puller's
    if isinstance(sent, BaseException):
        raise sent
    if isinstance(made, BaseException):
        raise made
    return made, sent


async def _pack(world: World, reference: str, image: Image, stream: socket.socket) -> Image:
    """Have a layer made of what comes; who sends it ends when nobody hears."""
    with stream:
        return await asyncio.shield(world.store.commit(reference, image, stream.fileno()))


async def _send(world: World, handed: list[int], way: socket.socket) -> int:
    """Let the worker send; where the last of the connection's owners ends, it does."""
    descriptors = [*handed, way.fileno()]
    sending = asyncio.ensure_future(world.worker.call(send_changes, deadline=None, descriptors=descriptors))
    with way:
        await asyncio.sleep(0)  # its first step hands the worker copies of the descriptors
    return await sending
