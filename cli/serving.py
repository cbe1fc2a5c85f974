"""The netboot server as a process of its own, found again by later commands and never confused with a stranger."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ci.qemu import process
from cli.outcome import Failure
from cli.tasks import ROOT

_RECORD = "server.json"
_LOG = "server.log"
_END_SECONDS = 5.0


class Server(msgspec.Struct, frozen=True):
    """A running server: its process, its port, and the words it was started with."""

    identity: process.Identity
    port: int
    words: tuple[str, ...]


def find(folder: Path) -> Server | None:
    """The server of a folder, if it still runs."""
    try:
        server = msgspec.json.decode((folder / _RECORD).read_bytes(), type=Server)
    except FileNotFoundError:
        return None
    return server if process.is_alive(server.identity) else None


def start(folder: Path, words: Sequence[str]) -> Server:
    """Start `image.server` with these arguments, and return once it serves.

    Raises:
        Failure: it ended; the message has its last line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    pid = _spawn([*words, "--ready", str(writing)], folder / _LOG, writing)
    os.close(writing)
    with os.fdopen(reading) as ready:
        port = ready.read().strip()
    identity = process.identify(pid)
    if not port or identity is None:
        os.waitpid(pid, 0)
        raise Failure(
            process.read_words(folder / _LOG) or "cannot start the netboot server: it ended at once"
        )
    server = Server(identity, int(port), tuple(words))
    (folder / _RECORD).write_bytes(msgspec.json.encode(server))
    return server


def _spawn(words: Sequence[str], log: Path, ready: int) -> int:
    """Start the server in a session of its own. Nobody waits for it, so subprocess.Popen is not for it."""
    os.set_inheritable(ready, True)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "image.server", *words],
        {**os.environ, "PYTHONPATH": str(ROOT)},
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )


async def stop(folder: Path) -> bool:
    """End the server of a folder; False if none runs."""
    server = find(folder)
    if server is None:
        return False
    process.send(server.identity, signal.SIGTERM)
    if not await process.wait_ended(server.identity, _END_SECONDS):
        process.send(server.identity, signal.SIGKILL)
        await process.wait_ended(server.identity, _END_SECONDS)
    (folder / _RECORD).unlink(missing_ok=True)
    return True
