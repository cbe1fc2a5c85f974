"""Makes an EROFS file of a layer's tar, which is looked at while it passes (`core0.images.tar`)."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from core0.images.digest import Digest
from core0.images.model import NoRoomError, PullError
from core0.images.room import STEP
from core0.images.tar import TarCheck
from core0.linux import tools
from corex.files.untar import TarError

_OPTIONS = ("--quiet", "--tar=f", "--aufs", "-T0", "-Enoinline_data")


def make_erofs(file: Path, pieces: Iterable[bytes], what: str, check_room: Callable[[int], None]) -> str:
    """Write a tar as an EROFS file.

    Args:
        file: the new file; one that is not whole is the caller's to remove. mkfs.erofs works beside it.
        pieces: the tar.
        what: it is, for messages.
        check_room: looks whether there is room for the rest, behind so many bytes.

    Returns:
        The tar's digest.

    Raises:
        PullError: it has something that has no place in a layer, is too much, or mkfs.erofs does not take it.
    """
    environment = {**tools.environment(), "TMPDIR": str(file.parent)}
    command = [tools.tool("mkfs.erofs"), *_OPTIONS, str(file)]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=nothing, stderr=pipe) as maker:
        assert maker.stdin  # noqa: S101 — it is a pipe
        assert maker.stderr  # noqa: S101 — and so is it
        try:
            digest = _feed(pieces, maker.stdin, check_room)
        except TarError as error:
            maker.kill()
            raise PullError(f"cannot use {what}: {error}") from None
        except BaseException:
            maker.kill()  # mkfs.erofs waits for ever for the rest of a tar that ended early
            raise
        said = maker.stderr.read(2000).decode(errors="replace").strip()
    if maker.returncode and os.strerror(errno.ENOSPC) in said:
        raise NoRoomError(f"cannot convert {what}: {said}", STEP)
    if maker.returncode:
        raise PullError(f"cannot convert {what}: {said or maker.returncode}")
    return digest


def _feed(pieces: Iterable[bytes], into: IO[bytes], check_room: Callable[[int], None]) -> str:
    """Hand a tar to a pipe; returns its digest."""
    check, reads = TarCheck(), True
    fed, looked = 0, -STEP
    with into, Digest() as seen:
        for piece in pieces:
            check.feed(piece)
            seen.update(piece)
            if fed - looked >= STEP:
                check_room(fed)
                looked = fed
            fed += len(piece)
            try:
                if reads:
                    into.write(piece)
            except BrokenPipeError:  # it saw the end of the archive, which padding may follow, or it gave up
                reads = False
        check.end()
        return seen.text()
