"""Long work that goes on after its request was answered: what it is, how it ended, the newest ones kept."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from corex.wire import operations as wire
from corex.wire.operations import OperationKind, OperationState

# Operations that are kept, ended ones first to go.
MOST = 500


class FailedError(Exception):
    """The work failed: the sentence that says why."""


class Operation:
    """One piece of work, from its beginning on."""

    def __init__(self, kind: OperationKind, subject: str, by: str, clock: Callable[[], float]) -> None:
        self.id = os.urandom(8).hex()
        self.kind, self.subject, self.by = kind, subject, by
        self.state: OperationState = "running"
        self.why = "it is under way"
        self.since = clock()
        self.ended: float | None = None
        self.is_cancellable = False
        self._clock = clock
        self._task: asyncio.Task[str] | None = None

    def begin(self, work: Coroutine[Any, Any, str], *, cancellable: bool) -> None:
        """Go on with it; its result is the sentence that says how it ended."""
        self.is_cancellable = cancellable
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[str]) -> None:
        self.ended = self._clock()
        if task.cancelled():
            self.state, self.why = "cancelled", "it was cancelled on request"
        elif error := task.exception():
            self.state, self.why = "failed", str(error) or type(error).__name__
        else:
            self.state, self.why = "succeeded", task.result()

    def cancel(self) -> None:
        """End it early."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self, seconds: float) -> None:
        """Until it has ended, for some seconds at most."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=seconds)
            await asyncio.sleep(0)  # what is called at its end comes first

    def raise_failure(self) -> None:
        """Raise what it failed by, if it did."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    def info(self) -> wire.Operation:
        """What the outside sees."""
        return wire.Operation(
            self.id, self.kind, self.subject, self.by, self.state, self.why, self.since, self.ended
        )


class Operations:
    """The container's operations."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[str, Operation] = {}

    def begin(
        self,
        kind: OperationKind,
        subject: str,
        by: str,
        work: Coroutine[Any, Any, str],
        *,
        cancellable: bool = False,
    ) -> Operation:
        """Do some work, and remember it."""
        made = Operation(kind, subject, by, self._clock)
        made.begin(work, cancellable=cancellable)
        self._kept[made.id] = made
        while len(self._kept) > MOST:
            oldest = next((one for one in self._kept.values() if one.state != "running"), None)
            # what only follows a process is of no use to anybody who never came back
            self._kept.pop((oldest or next(iter(self._kept.values()))).id)
        return made

    def all(self) -> list[Operation]:
        """The oldest first."""
        return list(self._kept.values())

    def get(self, name: str) -> Operation | None:
        """One of them."""
        return self._kept.get(name)

    def forget(self, operation: Operation) -> None:
        """Keep it no longer."""
        self._kept.pop(operation.id, None)
