"""Deleting a big folder, as its operation tells of it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from corex.files.resolve import Root
from corex.process.operations import Operations
from corex.rest.files import remove_folder
from corex.wire.files import RemoveQuery


class Slow:
    """Hands that do each job once somebody lets them."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)
        self.done: asyncio.Queue[None] = asyncio.Queue()

    async def do(self, job: Callable[..., Any], *arguments: object) -> Any:
        await self.turns.acquire()
        result = job(*arguments)
        self.done.put_nowait(None)
        return result

    async def one(self) -> None:
        """Let one job be done, and what follows it."""
        self.turns.release()
        await asyncio.wait_for(self.done.get(), 5)


async def test_a_deletion_says_how_far_it_is_and_stops_where_it_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    for number in range(1200):
        (tmp_path / "big" / str(number)).touch()
    slow, operations = Slow(), Operations(lambda: 0.0)
    root = Root(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY))
    request: Any = SimpleNamespace(
        context=SimpleNamespace(root=root, hands=slow, operations=operations),
        identity=SimpleNamespace(name="owner"),
        parameters=RemoveQuery("/big", recursive=True, wait=0),
        raw=SimpleNamespace(octets=lambda _name: b"/big"),
    )
    slow.turns.release()
    answer = await remove_folder(request)
    await slow.done.get()
    assert answer.status == 202
    (operation,) = operations.all()
    assert operation.why == "it is under way"
    await slow.one()
    assert operation.why == "500 files and folders were deleted so far"
    await slow.one()
    assert operation.why == "1000 files and folders were deleted so far"
    operation.cancel()
    await operation.wait(5)
    assert operation.state == "cancelled"
    assert len(list((tmp_path / "big").iterdir())) == 200
