"""Streams of volumes and images between a node and files: with a progress bar, going on after a lost connection."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from cli.connect import node_client
from cli.frame import Settings
from cli.outcome import Failure
from core0.client.client import NodeClient, UnreachableError
from core0.wire.image_store import NodeImage
from core0.wire.volumes import Import, ImportRequest, Volume

_PIECE = 1 << 20
_TRIES = 5
_PAUSE = 1.0
_STANDARD = Path("-")
# Called with the bytes that came on the way.
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Export:
    """What to export: a volume's snapshot, or what differs in it from an earlier one."""

    volume: str
    snapshot: str
    base: str | None
    pool: str | None


def export_snapshot(settings: Settings, wanted: Export, file: Path) -> None:
    """Write a snapshot's stream to a file, which has its name when it is whole; `-` is the standard output."""
    if file == _STANDARD:
        asyncio.run(_export(settings, wanted, sys.stdout.buffer, None))
        return
    if file.exists():
        raise Failure(f"cannot write {file}: there is one; name another, or remove it")
    part = file.with_name(f"{file.name}.part")
    with part.open("a+b") as out:
        asyncio.run(_export(settings, wanted, out, part))
        os.fsync(out.fileno())
    part.rename(file)


async def _export(settings: Settings, wanted: Export, out: BinaryIO, part: Path | None) -> None:
    digest, offset = hashlib.sha256(), 0
    if part:
        offset = _digest_of(part, digest.update)
    async with node_client(settings) as client:
        volume = await client.volume(wanted.volume, wanted.pool)
        total = None if wanted.base else volume.used
        with _bar(f"export {wanted.volume}/{wanted.snapshot}", total, offset) as advance:
            for left in reversed(range(_TRIES if part else 1)):
                try:
                    sha256 = digest.hexdigest() if offset else ""
                    async for piece in _stream(client, wanted, offset, sha256):
                        out.write(piece)
                        digest.update(piece)
                        offset += len(piece)
                        advance(len(piece))
                except UnreachableError:
                    if not left:
                        raise
                    await asyncio.sleep(_PAUSE)
                else:
                    return


def _stream(client: NodeClient, wanted: Export, offset: int, sha256: str) -> AsyncIterator[bytes]:
    return client.export_snapshot(
        wanted.volume, wanted.snapshot, wanted.base, wanted.pool, offset=offset, sha256=sha256
    )


def _digest_of(file: Path, update: Callable[[bytes], None]) -> int:
    """Feed a file to a digest; its length."""
    length = 0
    with file.open("rb") as data:
        while piece := data.read(_PIECE):
            update(piece)
            length += len(piece)
    return length


def load_image(settings: Settings, name: str, image: str, file: Path) -> NodeImage:
    """Send an image, a tar in a file; `-` is the standard input. Raises NodeError: why it is not taken."""
    if file == _STANDARD:
        return asyncio.run(_load(settings, name, image, sys.stdin.buffer, None))
    with file.open("rb") as data:
        return asyncio.run(_load(settings, name, image, data, file.stat().st_size))


async def _load(settings: Settings, name: str, image: str, data: BinaryIO, total: int | None) -> NodeImage:
    async with node_client(settings) as client:
        with _bar(f"load {name}", total, 0) as advance:
            return await client.load_image(name, _pieces(data, advance), image)


def import_stream(
    settings: Settings, volume: str, request: ImportRequest, file: Path, pool: str | None
) -> Volume:
    """Make a volume, or a snapshot of one, of a stream in a file; `-` is the standard input.

    Raises:
        Failure: the node did not take it, with its reason.
    """
    if file == _STANDARD:
        return asyncio.run(_import(settings, volume, request, sys.stdin.buffer, pool, tries=1))
    with file.open("rb") as data:
        request = msgspec.structs.replace(request, bytes=file.stat().st_size)
        return asyncio.run(_import(settings, volume, request, data, pool, tries=_TRIES))


async def _import(
    settings: Settings, volume: str, request: ImportRequest, data: BinaryIO, pool: str | None, *, tries: int
) -> Volume:
    async with node_client(settings) as client:
        begun = await client.begin_import(volume, request, pool)
        with _bar(f"import {volume}/{request.snapshot}", request.bytes, begun.offset) as advance:
            ended = await _feed(client, begun, data, advance, tries)
        while ended.state == "receiving":
            ended = await client.imported(ended.operation, 60)
        if ended.state != "done":
            raise Failure(f"cannot import the stream: {ended.why}")
        return await client.volume(volume, pool)


async def _feed(client: NodeClient, begun: Import, data: BinaryIO, advance: Advance, tries: int) -> Import:
    for left in reversed(range(tries)):
        if begun.offset:
            data.seek(begun.offset)
        try:
            return await client.feed_import(begun.operation, begun.offset, _pieces(data, advance))
        except UnreachableError:
            if not left:
                raise
        await asyncio.sleep(_PAUSE)
        begun = await client.imported(begun.operation)
    return begun


async def _pieces(data: BinaryIO, advance: Advance) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(data.read, _PIECE):
        yield piece
        advance(len(piece))


@contextmanager
def _bar(what: str, total: int | None, done: int) -> Iterator[Advance]:
    """A progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
