"""The netboot server as a process of its own, found again by later commands and never confused with a stranger."""

import os
import signal
import subprocess
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
    with (folder / _LOG).open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "image.server", *words, "--ready", str(writing)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(writing)
    with os.fdopen(reading) as ready:
        port = ready.read().strip()
    identity = process.identify(child.pid)
    if not port or identity is None:
        raise Failure(
            process.read_words(folder / _LOG) or "cannot start the netboot server: it ended at once"
        )
    server = Server(identity, int(port), tuple(words))
    (folder / _RECORD).write_bytes(msgspec.json.encode(server))
    return server


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
