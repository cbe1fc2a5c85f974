"""A container's files, from the node to a file that has its name when it is whole."""

import asyncio
import sys
from pathlib import Path
from typing import BinaryIO

from cli.connect import node_client
from cli.frame import Settings
from cli.outcome import Failure

_STANDARD = Path("-")


def write_export(settings: Settings, name: str, file: Path) -> None:
    """Write the tar of a container; `-` is the standard output."""
    if file == _STANDARD:
        asyncio.run(_export(settings, name, sys.stdout.buffer))
        return
    if file.exists():
        raise Failure(f"cannot write {file}: there is one; name another, or remove it")
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as out:
            asyncio.run(_export(settings, name, out))
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)


async def _export(settings: Settings, name: str, out: BinaryIO) -> None:
    async with node_client(settings) as client:
        async for piece in client.export_container(name):
            out.write(piece)
