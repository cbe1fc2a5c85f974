"""Streams that come: sessions that outlive a lost connection, each the making of one snapshot.

What is received lies in a subvolume of `incoming` that counts to the volume's size from its first byte. It becomes
visible at once and whole; whatever ends before is swept away.
"""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from core0.volumes import apply, transfer
from core0.volumes.checks import check_new
from core0.volumes.explain import in_words, refusal_of
from core0.volumes.model import AdoptImport, SeenVolume
from core0.volumes.places import CHANGE, Place, Places
from core0.volumes.transfer import Feed, Progress
from core0.wire.control import Refusal, RefusedError, conflict, invalid
from core0.wire.operations import Operation
from core0.wire.volumes import Import, ImportRequest, ImportState, VolumeSpec

_KEPT = 50
_COMES = "it is coming"

Tell = Callable[[float | None, str], None]


class Operations(Protocol):
    """Where long work is started."""

    def start(self, kind: str, subject: str, work: Callable[[Tell], Awaitable[str]]) -> Operation:
        """Start it; 409 if the same is under way."""


class _Session(msgspec.Struct, eq=False):
    """A stream that is coming, or came."""

    volume: str
    request: ImportRequest
    place: Place
    entry: str
    operation: str = ""
    state: ImportState = "receiving"
    offset: int = 0
    why: str = _COMES
    control: socket.socket | None = None
    changed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def show(self) -> Import:
        """As the API shows it."""
        return Import(self.volume, self.request.snapshot, self.operation, self.state, self.offset, self.why)


class Imports:
    """All streams that come."""

    def __init__(self, places: Places, operations: Operations) -> None:
        """None yet; each will be one of the node's operations."""
        self._places = places
        self._operations = operations
        self._all: dict[str, _Session] = {}

    async def begin(self, volume: str, request: ImportRequest, pool: str | None) -> Import:
        """Get ready for a stream. The same request again finds what is under way, to go on with.

        Raises:
            RefusedError: there is such a snapshot, no volume and no size for one, or no room.
        """
        running = self._running(volume, request)
        if running:
            return running.show()
        place, seen = self._where(volume, request, pool)
        session = _Session(volume, request, place, secrets.token_hex(8))
        place.busy.add(session.entry)
        try:
            await self._stage(session, seen)
            operation = self._start(session)
        except BaseException:
            self._leave(session)
            raise
        session.operation = operation.id
        self._all[operation.id] = session
        self._forget()
        return session.show()

    def _start(self, session: _Session) -> Operation:
        """Start to receive; connections may be given to the session as soon as this returns."""
        ours, theirs = control_pair()
        subject = f"{session.volume}/{session.request.snapshot}"
        try:
            operation = self._operations.start(
                "import", subject, lambda tell: self._receive(session, theirs, tell)
            )
        except BaseException:
            ours.close()
            theirs.close()
            raise
        session.control = ours
        return operation

    async def wait(self, operation: str, seconds: float) -> Import:
        """A session once it has ended, or after so many seconds as it is. Raises RefusedError (404)."""
        session = self._find(operation)
        try:
            async with asyncio.timeout(seconds):
                while session.state == "receiving":
                    await session.changed.wait()
        except TimeoutError:
            pass
        return session.show()

    def feed(self, operation: str, offset: int, connection: int) -> None:
        """Have a session take what a connection brings, whose first byte is the stream's at `offset`.

        The connection is a blocking socket, and stays the caller's; it gets the replies (`core0.wire.pieces`).

        Raises:
            RefusedError: 404, or 409 if the session has ended.
        """
        session = self._find(operation)
        if session.state != "receiving" or session.control is None:
            raise conflict(f"cannot go on with the stream: {session.why}", "begin another import")
        message = msgspec.json.encode(Feed(offset))
        try:
            socket.send_fds(session.control, [message], [connection])
        except OSError:
            detail = "cannot go on with the stream: others do, or it has ended"
            raise conflict(detail, "see the import's offset, then go on there") from None

    def _running(self, volume: str, request: ImportRequest) -> _Session | None:
        for session in self._all.values():
            if session.state == "receiving" and (session.volume, session.request) == (volume, request):
                return session
        return None

    def _where(
        self, volume: str, request: ImportRequest, pool: str | None
    ) -> tuple[Place, SeenVolume | None]:
        if not self._places.holders(volume):
            if request.volume is None:
                detail = f"cannot import into volume {volume[:80]!a}: there is none"
                raise invalid(detail, "say in `volume` what it shall be: its pool and size", "/volume")
            return self._new(volume, request.volume), None
        if request.volume is not None:
            detail = f"cannot create volume {volume}: there is one"
            raise conflict(detail, "leave `volume` out to import a snapshot of it", "/volume")
        place, seen = self._places.find(volume, pool)
        if any(one.name == request.snapshot for one in seen.snapshots):
            detail = f"cannot import snapshot {request.snapshot}: volume {volume} has one"
            raise conflict(detail, "choose another name", "/snapshot")
        return self._places.place(place.name), seen

    def _new(self, volume: str, spec: VolumeSpec) -> Place:
        if spec.pool is None or spec.origin is not None:
            detail = f"cannot import into volume {volume}: it must be a new one on a pool"
            raise invalid(detail, "name its pool, and nothing to copy", "/volume/pool")
        try:
            place = self._places.place(spec.pool)
            check_new(self._places, place, volume, spec)
        except RefusedError as error:
            refusal = error.refusal
            pointer = f"/volume{refusal.pointer}"
            raise RefusedError(msgspec.structs.replace(refusal, pointer=pointer)) from None
        return place

    async def _stage(self, session: _Session, seen: SeenVolume | None) -> None:
        spec = session.request.volume
        group = seen.record.group if seen and seen.record else 0
        size = spec.size if spec else 0
        async with self._places.changing(session.place):
            try:
                await self._places.worker.call(
                    apply.stage, session.place.root, session.entry, group, size, deadline=CHANGE
                )
            except OSError as error:
                raise refusal_of(error, f"import into volume {session.volume}", session.place.name) from None

    async def _receive(self, session: _Session, theirs: socket.socket, tell: Tell) -> str:
        try:
            received = await self._transfer(session, theirs, tell)
            await self._adopt(session, received.name)
            session.offset, session.state = received.offset, "done"
            session.why = f"{in_words(received.offset)} became snapshot {session.request.snapshot}"
        except (OSError, RefusedError) as error:
            session.state, session.why = "failed", str(error)
            raise
        except asyncio.CancelledError:
            session.state, session.why = "failed", "it was cancelled"
            raise
        finally:
            if session.state == "receiving":  # a defect, which the node's console shows
                session.state, session.why = "failed", "the node failed; see its console"
            self._leave(session)
        return session.why

    async def _transfer(self, session: _Session, theirs: socket.socket, tell: Tell) -> transfer.Received:
        loop, ours = asyncio.get_running_loop(), session.control
        if ours is None:
            raise OSError("the session has ended")
        loop.add_reader(ours, self._hear, session, tell)
        seen = session.place.find(session.volume)
        parents = tuple(
            uuid for one in (seen.snapshots if seen else ()) for uuid in (one.uuid, one.received) if uuid
        )
        try:
            return await self._places.worker.call(
                transfer.receive_in,
                session.place.root,
                session.entry,
                parents,
                deadline=None,
                descriptors=[theirs.fileno()],
            )
        finally:
            loop.remove_reader(ours)
            session.control = None
            ours.close()
            theirs.close()

    def _hear(self, session: _Session, tell: Tell) -> None:
        """What the receiving job reports."""
        if session.control is None:
            return
        data = session.control.recv(4096)
        if not data:
            asyncio.get_running_loop().remove_reader(session.control)
            return
        session.offset = msgspec.json.decode(data, type=Progress).offset
        whole = session.request.bytes
        tell(session.offset / whole if whole else None, f"{in_words(session.offset)} arrived")

    async def _adopt(self, session: _Session, name: str) -> None:
        place, request = session.place, session.request
        action = AdoptImport(session.entry, name, session.volume, request.snapshot, request.volume)
        async with self._places.changing(place):
            if request.volume:
                check_new(self._places, place, session.volume, request.volume)
            elif any(one.name == request.snapshot for one in place.there(session.volume).snapshots):
                raise conflict(
                    f"cannot import snapshot {request.snapshot}: there is one by now", "import again"
                )
            await self._places.change(place, (action,), session.volume, str(action))

    def _leave(self, session: _Session) -> None:
        """What is still in `incoming` is nobody's now."""
        session.place.busy.discard(session.entry)
        session.changed.set()
        self._places.begin(self._places.sweep(session.place))

    def _find(self, operation: str) -> _Session:
        try:
            return self._all[operation]
        except KeyError:
            detail = f"cannot find import {operation[:40]!a}: there is none"
            remedy = "begin it again; an import ends with the node daemon"
            raise RefusedError(Refusal(404, "not-found", detail, remedy)) from None

    def _forget(self) -> None:
        ended = [name for name, session in self._all.items() if session.state != "receiving"]
        for name in ended[: max(0, len(self._all) - _KEPT)]:
            del self._all[name]


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a way to a job: ours, which never blocks, and the job's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs
