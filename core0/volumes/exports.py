"""Snapshots that go out as streams."""

import asyncio
import itertools
import os
import socket

import msgspec

from core0.linux.worker import Worker
from core0.volumes import transfer
from core0.volumes.checks import check_snapshot
from core0.volumes.explain import in_words
from core0.volumes.imports import Operations, Tell, control_pair
from core0.volumes.model import SeenSnapshot
from core0.volumes.places import Place, Places
from core0.volumes.transfer import Progress
from core0.wire.control import conflict, invalid
from core0.wire.volume_calls import ExportCall


class Exports:
    """The snapshots that are being sent."""

    def __init__(self, places: Places, worker: Worker, operations: Operations) -> None:
        """None yet; each will be one of the node's operations."""
        self._places = places
        self._worker = worker
        self._operations = operations
        self._numbers = itertools.count(1)

    def send(self, volume: str, wanted: ExportCall, connection: int) -> None:
        """Send a snapshot over a connection, a blocking socket that stays the caller's.

        Raises:
            RefusedError: there is no such snapshot, or no such one to begin at.
        """
        place, seen = self._places.find(volume, wanted.pool)
        check_snapshot(seen, wanted.snapshot)
        if place.trouble:
            raise conflict(f"cannot use pool {place.name}: {place.trouble}", "see 'zn pool show'")
        if wanted.base:
            _check_base(seen.snapshots, wanted)
        if bool(wanted.offset) != bool(wanted.sha256):
            detail = (
                "cannot go on with the stream: it takes both an offset and the SHA-256 of what came before"
            )
            raise invalid(detail, "give both, or neither", "/sha256")
        # A receiver that was lost may not be noticed yet: another may begin beside it.
        subject = f"{volume}/{wanted.snapshot} #{next(self._numbers)}"
        way = socket.socket(fileno=os.dup(connection))
        self._operations.start("export", subject, lambda tell: self._send(place, volume, wanted, way, tell))

    async def _send(
        self, place: Place, volume: str, wanted: ExportCall, way: socket.socket, tell: Tell
    ) -> str:
        ours, theirs = control_pair()
        loop = asyncio.get_running_loop()

        def hear() -> None:
            data = ours.recv(4096)
            if data:
                tell(None, f"{in_words(msgspec.json.decode(data, type=Progress).offset)} sent")
            else:
                loop.remove_reader(ours)

        loop.add_reader(ours, hear)
        try:
            total = await self._worker.call(
                transfer.send_out,
                place.root,
                volume,
                wanted.snapshot,
                wanted.base or "",
                wanted.offset,
                wanted.sha256,
                deadline=None,
                descriptors=[way.fileno(), theirs.fileno()],
            )
        finally:
            loop.remove_reader(ours)
            for one in (ours, theirs, way):
                one.close()
        return f"{in_words(total)} sent"


def _check_base(snapshots: tuple[SeenSnapshot, ...], wanted: ExportCall) -> None:
    names = [one.name for one in snapshots]
    if wanted.base not in names:
        detail = f"cannot begin at snapshot {wanted.base!a}: there is none"
        raise invalid(detail, f"it has: {', '.join(names)}", "/base")
    if wanted.base == wanted.snapshot:
        raise invalid("cannot begin at the snapshot that is to be sent", "name an earlier one", "/base")
