"""Asking the template for a process: what the node daemon says when the template fails it."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core0.template.messages import FORK, Forked
from core0.template.request import ask
from core0.wire import paths


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What listens in the template's place, with room for one that waits."""
    monkeypatch.setattr(paths, "TEMPLATE_SOCKET", str(tmp_path / "template.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(paths.TEMPLATE_SOCKET)
        listening.listen(1)
        yield listening


async def test_a_template_that_ends_before_it_answers_is_named(
    template: socket.socket, tmp_path: Path
) -> None:
    with (tmp_path / "given").open("w") as given:
        asking = asyncio.create_task(ask(FORK, [given.fileno()]))
        connection, _ = await asyncio.to_thread(template.accept)
        assert await asyncio.to_thread(connection.recv, 16) == FORK
        connection.close()
        with pytest.raises(OSError, match="the template process ended"):
            await asking


async def test_more_than_the_template_keeps_waiting_are_all_answered(
    template: socket.socket, tmp_path: Path
) -> None:
    with (tmp_path / "given").open("w") as given:
        asking = [asyncio.create_task(ask(FORK, [given.fileno()])) for _ in range(8)]
        for pid in range(1, 9):
            connection, _ = await asyncio.to_thread(template.accept)
            with connection:
                await asyncio.to_thread(connection.recv, 16)
                connection.send(msgspec.json.encode(Forked(pid)))
        assert sorted(await asyncio.gather(*asking)) == list(range(1, 9))
