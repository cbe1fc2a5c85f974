"""chronyd's place taken by programs that go wrong."""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, Process

import pytest

from core0.clock import manager
from core0.clock.manager import Clock


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("exit 3", "Ended with 3; it starts again", id="it ends"),
        pytest.param(
            "exec 2>&-; exec sleep 600",
            "Says nothing more that can be read; it starts again",
            id="it is silent",
        ),
        pytest.param(
            "head -c 200000 /dev/zero >&2; exec sleep 600",
            "Says nothing more that can be read; it starts again",
            id="a line without end",
        ),
    ],
)
async def test_whatever_chronyd_does_it_starts_again(
    monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    told: list[str] = []
    clock = Clock(lambda *words: told.append(words[-1]), tuple)
    started: list[Process] = []

    async def start(_: tuple[str, ...]) -> Process:
        command = ("/bin/sh", "-c", script)
        started.append(
            await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
        )
        return started[-1]

    monkeypatch.setattr(clock, "_start", start)
    monkeypatch.setattr(manager, "_FAREWELL", 0.2)
    async with asyncio.timeout(20):
        assert not await clock._serve(())
    assert told == [said]
    assert started[0].returncode is not None, "nothing of it is left"
