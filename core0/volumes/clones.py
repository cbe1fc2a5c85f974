"""Counts what clones still have of their sources: it is not among what their quota groups count."""

from core0.volumes import observe
from core0.volumes.places import Place, Places
from core0.volumes.plan import plan_count
from core0.wire.control import RefusedError

# Seconds for reading all of a clone's tree.
_COUNT = 600.0
# Clones are counted anew when they are this full.
_COUNT_FROM = 0.8


class Clones:
    """The counts of all clones."""

    def __init__(self, places: Places) -> None:
        """Nothing is counted yet."""
        self._places = places
        # The transaction that had changed a clone last when it was counted.
        self._counted: dict[tuple[str, str], int] = {}
        self._counting: set[tuple[str, str]] = set()

    def count_due(self) -> None:
        """Count those that were not counted, and nearly full ones again: deleting what they had gives them room."""
        for place, seen in self._places.everything():
            record = seen.record
            if not record or not record.shared or place.trouble:
                continue
            full = seen.used >= _COUNT_FROM * record.size
            if not record.counted or (
                full and self._counted.get((place.name, seen.name), 0) < seen.generation
            ):
                self.count(place, seen.name)

    def count(self, place: Place, name: str) -> None:
        """Count one, in the background."""
        if (place.name, name) not in self._counting:
            self._counting.add((place.name, name))
            self._places.begin(self._count(place, name))

    async def _count(self, place: Place, name: str) -> None:
        worker = self._places.worker
        try:
            shared = await worker.call(observe.count_shared, place.root, name, deadline=_COUNT)
            async with self._places.changing(place):
                seen = place.find(name)
                if seen:
                    actions = plan_count(seen, shared)
                    seen = await self._places.change(place, actions, name, f"count volume {name}")
                if seen:
                    self._counted[place.name, name] = seen.generation
        except (OSError, RefusedError) as error:
            self._places.report("volume", name, f"Not counted: {error}")
        finally:
            self._counting.discard((place.name, name))
