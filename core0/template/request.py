"""How the node daemon asks the template for a process."""

import asyncio
import socket
from collections.abc import Sequence

import msgspec

from core0.template.messages import Forked
from core0.wire import paths

# Seconds until the template must have answered; emulated machines take a tenth of it.
DEADLINE = 30.0
_RETRY = 0.05


async def ask(what: bytes, descriptors: Sequence[int]) -> int:
    """Ask for a fork: a container's first process (`FORK`), or the one that answers for names (`NAMES`).

    Returns:
        Its pid.

    Raises:
        OSError: with the template's words, or that it is away; TimeoutError, without words, after the deadline.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
        connection.setblocking(False)
        async with asyncio.timeout(DEADLINE):
            await _connect(connection)
            socket.send_fds(connection, [what], list(descriptors))
            data = await loop.sock_recv(connection, 4096)
    if not data:
        raise OSError("the template process ended before it could fork; it starts again by itself")
    answer = msgspec.json.decode(data, type=Forked)
    if answer.error:
        raise OSError(answer.error)
    return answer.pid


async def _connect(connection: socket.socket) -> None:
    """Connect to the template, which may be starting at this moment; there is no telling when it listens.

    Nor when it has room for one more that waits: a Unix socket connects at once or not at all (EAGAIN, connect(2)),
    and asyncio would take that for a connection under way.
    """
    while True:
        try:
            return connection.connect(paths.TEMPLATE_SOCKET)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            pass
        await asyncio.sleep(_RETRY)
