"""The process that answers containers' questions: without privilege, told by the node daemon what it may say.

It outlives the node daemon: it goes on with what it was told last, until the next daemon starts another in its place.
"""

import asyncio
import contextlib
import gc
import socket

import msgspec

from core0.names.server import Server
from core0.names.upstream import Upstream
from core0.names.zones import Zones
from core0.wire.control import receive
from core0.wire.names import Told

# Seconds in which the node daemon hands over the sockets.
_HANDING = 10.0


def main(control: socket.socket) -> None:
    """Answer for ever, on the two sockets that come first; without them, the next node daemon starts another."""
    gc.enable()
    control.settimeout(_HANDING)
    try:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    except ConnectionError:
        return
    if len(descriptors) != 2:  # the node daemon ended at this moment
        return
    udp, tcp = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    control.setblocking(False)
    asyncio.run(_run(control, udp, tcp))


async def _run(control: socket.socket, udp: socket.socket, tcp: socket.socket) -> None:
    zones, upstream = Zones(), Upstream()
    reader, _writer = await asyncio.open_connection(sock=control)
    server = Server(zones, upstream, udp, tcp)
    begun = False
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            told = msgspec.json.decode(await receive(reader), type=Told)
            zones.hear(told)
            if told.nameservers is not None:
                upstream.use(told.nameservers)
            if not begun:  # before the first message no name is known
                await server.begin()
                begun = True
    await asyncio.Event().wait()
