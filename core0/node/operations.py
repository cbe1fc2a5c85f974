"""Long work: one task each, its progress for whoever asks, its end as an event."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import msgspec

from core0.wire.control import Refusal, RefusedError, Report
from core0.wire.operations import Operation, Operations

_KEPT = 100
_CANCELLED = "it was cancelled"

# Tell how far the work is: from 0 to 1 (None if that is not known), and what it does now.
Progress = Callable[[float | None, str], None]
# Does the work; returns one sentence on its result. An OSError it raises has cause and remedy.
Work = Callable[[Progress], Awaitable[str]]


class _Running(msgspec.Struct, eq=False):
    shown: Operation
    changed: asyncio.Event
    task: asyncio.Task[None] | None = None


class OperationTable:
    """The node's long work. What ended is kept until there is too much of it."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._all: dict[str, _Running] = {}

    def start(self, kind: str, subject: str, work: Work) -> Operation:
        """Start work.

        Raises:
            RefusedError: 409 if the same is under way.
        """
        running = (one for one in self.list() if one.state == "running")
        same = next((one for one in running if (one.kind, one.subject) == (kind, subject)), None)
        if same:
            remedy = f"wait for operation {same.id}, or cancel it"
            detail = f"cannot {kind} {subject}: it is under way"
            raise RefusedError(Refusal(409, "conflict", detail, remedy))
        name = os.urandom(8).hex()
        shown = Operation(name, kind, subject, "running", None, "started", time.time())
        one = self._all[name] = _Running(shown, asyncio.Event())
        one.task = asyncio.create_task(self._run(one, work), name=f"operation {kind} {subject}")
        self._forget()
        return shown

    def list(self) -> tuple[Operation, ...]:
        """All that are known, newest first."""
        return tuple(one.shown for one in reversed(self._all.values()))

    async def wait(self, name: str, seconds: float) -> Operation:
        """An operation once it has ended, or after so many seconds as it is.

        Raises:
            RefusedError: 404 if it is not known.
        """
        one = self._find(name)
        try:
            async with asyncio.timeout(seconds):
                while one.shown.state == "running":
                    await one.changed.wait()
        except TimeoutError:
            pass
        return one.shown

    async def cancel(self, name: str) -> Operation:
        """Ask an operation to end, and wait until it has.

        Raises:
            RefusedError: 404 if it is not known.
        """
        one = self._find(name)
        if one.task and one.shown.state == "running":
            one.task.cancel()
            await asyncio.wait([one.task])
            if one.shown.state == "running":  # it was cancelled before its first step
                self._end(one, "cancelled", _CANCELLED)
        return one.shown

    async def _run(self, one: _Running, work: Work) -> None:
        def progress(part: float | None, detail: str) -> None:
            self._show(one, msgspec.structs.replace(one.shown, progress=part, detail=detail))

        try:
            detail = await work(progress)
        except asyncio.CancelledError:
            self._end(one, "cancelled", _CANCELLED)
        except (OSError, RefusedError) as error:
            self._end(one, "failed", str(error))
        else:
            self._end(one, "done", detail)

    def _end(self, one: _Running, state: str, detail: str) -> None:
        ended = {"state": state, "detail": detail, "ended": time.time()}
        if state == "done":
            ended["progress"] = 1.0
        self._show(one, msgspec.structs.replace(one.shown, **ended))
        self._report(one.shown.kind, one.shown.subject, f"{state.capitalize()}: {detail}")

    def _show(self, one: _Running, shown: Operation) -> None:
        one.shown = shown
        one.changed.set()
        one.changed = asyncio.Event()

    def _find(self, name: str) -> _Running:
        try:
            return self._all[name]
        except KeyError:
            detail = f"cannot find operation {name[:40]!a}: there is none"
            raise RefusedError(
                Refusal(404, "not-found", detail, "list the operations; they end with the node daemon")
            ) from None

    def _forget(self) -> None:
        ended = [name for name, one in self._all.items() if one.shown.state != "running"]
        for name in ended[: max(0, len(self._all) - _KEPT)]:
            del self._all[name]


def listing(table: OperationTable) -> Operations:
    """For the API."""
    return Operations(table.list())
