"""What happened on this node: a bounded ring, read by cursor; a reader that fell behind is told how much it lost."""

import asyncio
import os
import time
from collections import deque

from core0.wire.types import Event, Events

_KEPT = 1000


class EventRing:
    """The newest events. Each is printed on the console, too, so that a node without its API can be read."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self._cursor = 0
        self._news = asyncio.Event()

    def __call__(self, kind: str, subject: str, message: str) -> None:
        """Add an event."""
        self._cursor += 1
        self._events.append(Event(self._cursor, time.time(), kind, subject, message))
        os.write(1, f"zn: {kind} {subject}: {_printable(message)}\n".encode())
        self._news.set()
        self._news = asyncio.Event()

    def after(self, cursor: int) -> Events:
        """The events behind a cursor; 0 is before the first, and so is a cursor of an earlier node daemon."""
        cursor = cursor if cursor <= self._cursor else 0
        oldest = self._events[0].cursor if self._events else self._cursor + 1
        found = tuple(event for event in self._events if event.cursor > cursor)
        return Events(found, self._cursor, lost=max(0, oldest - 1 - cursor))

    async def wait_after(self, cursor: int, seconds: float) -> Events:
        """The same, but wait up to so many seconds for the first."""
        try:
            async with asyncio.timeout(seconds):
                while self._cursor in (cursor, 0):
                    await self._news.wait()
        except TimeoutError:
            pass
        return self.after(cursor)


def _printable(text: str) -> str:
    """For the console: a message may quote a stranger, who must not write lines or escape sequences there."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
