"""Long work: its progress, its end, what is asked of it."""

import asyncio

import pytest

from core0.node.operations import OperationTable, Progress
from core0.wire.control import RefusedError
from core0.wire.operations import Operation


@pytest.fixture
def said() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def table(said: list[tuple[str, str, str]]) -> OperationTable:
    return OperationTable(lambda *event: said.append(event))


class Work:
    """Work that goes on when it is told."""

    def __init__(self, error: OSError | None = None) -> None:
        self.told = asyncio.Event()
        self.error = error

    async def __call__(self, progress: Progress) -> str:
        progress(0.5, "half of it is done")
        await self.told.wait()
        if self.error:
            raise self.error
        return "all of it is done"


async def shown(table: OperationTable, operation: Operation) -> Operation:
    return await table.wait(operation.id, 0.01)


async def test_work_shows_its_progress_and_its_result(table: OperationTable, said: list[object]) -> None:
    work = Work()
    started = table.start("scrub", "fast", work)
    assert (started.state, started.progress) == ("running", None)
    now = await shown(table, started)
    assert (now.state, now.progress, now.detail) == ("running", 0.5, "half of it is done")
    work.told.set()
    ended = await table.wait(started.id, 30)
    assert (ended.state, ended.progress, ended.detail) == ("done", 1.0, "all of it is done")
    assert said == [("scrub", "fast", "Done: all of it is done")]


async def test_what_fails_says_why(table: OperationTable) -> None:
    work = Work(OSError("cannot read sda: it is gone; plug it again"))
    started = table.start("erase", "sda", work)
    work.told.set()
    ended = await table.wait(started.id, 30)
    assert (ended.state, ended.detail) == ("failed", "cannot read sda: it is gone; plug it again")


async def test_the_same_work_is_not_started_twice(table: OperationTable) -> None:
    first = table.start("scrub", "fast", Work())
    with pytest.raises(RefusedError, match="cannot scrub fast: it is under way") as caught:
        table.start("scrub", "fast", Work())
    assert first.id in caught.value.refusal.remedy
    table.start("scrub", "slow", Work())
    await table.cancel(first.id)
    table.start("scrub", "fast", Work())


async def test_cancelled_work_has_ended_when_the_answer_comes(table: OperationTable) -> None:
    started = table.start("scrub", "fast", Work())
    await shown(table, started)
    ended = await table.cancel(started.id)
    assert ended.state == "cancelled"
    assert ended.ended is not None


async def test_an_unknown_operation_is_refused(table: OperationTable) -> None:
    with pytest.raises(RefusedError, match="cannot find operation 'nosuch'"):
        await table.wait("nosuch", 0)


async def test_old_ones_are_forgotten_but_never_those_that_run(table: OperationTable) -> None:
    running = table.start("scrub", "first", Work())
    for number in range(150):
        work = Work()
        work.told.set()
        one = table.start("scrub", f"pool{number}", work)
        await table.wait(one.id, 30)
    known = table.list()
    assert len(known) <= 101
    assert known[-1].id == running.id
    assert known[0].subject == "pool149"
