"""What happened to processes, newest kept, read by cursor."""

from collections import deque
from collections.abc import Callable
from itertools import islice

from corex.process.logs import Bell
from corex.wire.api import Event, EventPage, State

KEPT = 2000


class Events:
    """The container's events."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.bell = Bell()
        self._wall_clock = wall_clock
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._last = 0

    def add(self, process: str, state: State, why: str) -> None:
        """A process entered a state."""
        self._last += 1
        self._kept.append(Event(self._last, self._wall_clock(), process, state, why))
        self.bell.ring()

    def after(self, after: int, limit: int) -> EventPage:
        """The events after number `after`; what is no longer kept is counted as lost."""
        first = self._last - len(self._kept) + 1
        start = max(after + 1, first)
        chosen = list(islice(self._kept, start - first, start - first + limit))
        lost = max(0, min(start - 1, self._last) - after)
        return EventPage(chosen, lost, chosen[-1].seq if chosen else max(after, self._last))
