"""Programs that talk to strangers: who they are, and what the kernel ends first. A shell stands in for the entry."""

import os

import pytest

from core0.linux.unprivileged import ask_unprivileged
from core0.wire import paths

pytestmark = pytest.mark.root
# The shell reads it from its standard input, which it gets after the kernel was told of it.
_SCRIPT = b"id -u; id -G; cat /proc/self/oom_score_adj; pwd; env | grep -c =\n"


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    monkeypatch.setattr(paths, "ENTRY", "/bin/sh")


async def test_it_is_nobody_and_ends_before_any_container_when_memory_is_over() -> None:
    said, code = await ask_unprivileged("-s", _SCRIPT, 20)
    user, groups, score, folder, _ = said.decode().splitlines()
    assert (user, groups) == (str(paths.PULL_USER), str(paths.PULL_USER))
    assert (score, folder, code) == ("950", "/", 0)


async def test_what_does_not_end_in_time_is_killed() -> None:
    with pytest.raises(TimeoutError):
        await ask_unprivileged("-s", b"while :; do sleep 1; done\n", 0.05)


async def test_one_that_ends_at_once_is_told_by_its_code() -> None:
    assert await ask_unprivileged("-s", b"exit 3\n", 20) == (b"", 3)
