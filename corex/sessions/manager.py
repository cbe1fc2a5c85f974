"""All sessions of a container: made, kept for those who come back, and forgotten."""

import asyncio
import os

from corex.process.stage import Viewer
from corex.process.world import World
from corex.sessions.session import Session
from corex.wire.sessions import SessionSpec

# Each may keep a ring and a buffer of input.
MOST = 32


class FullError(Exception):
    """There are as many sessions as there may be."""


class Sessions:
    """The container's sessions."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions: dict[str, Session] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def all(self) -> list[Session]:
        """In the order of their making."""
        return list(self._sessions.values())

    def get(self, name: str) -> Session | None:
        """One of them."""
        return self._sessions.get(name)

    async def create(self, spec: SessionSpec) -> Session:
        """Start a command.

        Raises:
            FullError: there are enough.
            SpawnError: it could not be started.
        """
        if len(self._sessions) >= MOST:
            raise FullError
        session = Session(os.urandom(8).hex(), spec, self._world)
        self._sessions[session.name] = session
        try:
            await session.start()
        except BaseException:
            del self._sessions[session.name]
            raise
        self._rest(session)
        return session

    def enter(self, session: Session, offset: int) -> Viewer:
        """Somebody is attached from an offset of its output on."""
        viewer = session.enter(offset)
        if timer := self._timers.pop(session.name, None):
            timer.cancel()
        return viewer

    def leave(self, session: Session, viewer: Viewer) -> None:
        """Somebody is attached no more."""
        session.leave(viewer)
        if session.name in self._sessions:
            self._rest(session)

    def remove(self, session: Session) -> None:
        """End a session, and forget it."""
        session.hang_up()
        if timer := self._timers.pop(session.name, None):
            timer.cancel()
        self._sessions.pop(session.name, None)
        session.bell.close()

    def _rest(self, session: Session) -> None:
        if not session.viewers:
            later = self._world.loop.call_later(session.spec.keep, self.remove, session)
            self._timers[session.name] = later
