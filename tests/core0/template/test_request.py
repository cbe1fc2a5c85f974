"""Asking the template for a process: what the node daemon says when the template fails it."""

import asyncio
import socket
from pathlib import Path

import pytest

from core0.template.messages import FORK
from core0.template.request import ask
from core0.wire import paths


async def test_a_template_that_ends_before_it_answers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "TEMPLATE_SOCKET", str(tmp_path / "template.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as template:
        template.bind(paths.TEMPLATE_SOCKET)
        template.listen(1)
        with (tmp_path / "given").open("w") as given:
            asking = asyncio.create_task(ask(FORK, [given.fileno()]))
            connection, _ = await asyncio.to_thread(template.accept)
            assert await asyncio.to_thread(connection.recv, 16) == FORK
            connection.close()
            with pytest.raises(OSError, match="the template process ended"):
                await asking
