"""Core-X as PID 1 of a real pid namespace, its children in a busybox root: what one sees from outside."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from corex.wire.api import ExecRequest, Exit
from corex.wire.process import ProcessSpec

pytestmark = pytest.mark.root

Start = Callable[..., Awaitable[Any]]
Script = Callable[..., ProcessSpec]


async def test_a_command_runs_in_the_containers_root_as_the_containers_user(core: Any) -> None:
    script = "id; pwd; ls /; echo error >&2; exit 3"
    result = await core.client.execute(ExecRequest(("sh", "-c", script), user="web", cwd="/tmp"))
    assert result.exit == Exit(code=3)
    assert result.stdout.data == (
        "uid=1000(web) gid=1001(web) groups=29(audio)\n/tmp\nbin\netc\nhome\nproc\nsecret\ntmp\n"
    )
    assert result.stderr.data == "error\n"


async def test_nothing_is_imported_after_the_fork(core: Any, sh: Script) -> None:
    client = core.client
    await client.system()
    await client.execute(ExecRequest(("sh", "-c", "cat; echo \\\\xff"), stdin="x" * 200_000))
    await client.put("a", sh("echo hi; sleep 100"))
    await client.start("a", 5)
    await client.restart("a", 5)
    await client.signal("a", "WINCH")
    await client.logs("a")
    async for _line in client.follow("a"):
        break
    await client.events(wait=0.01, after=1000)
    await client.stop("a", 5)
    await client.delete("a")
    core.process.terminate()
    assert await core.exit_code() == 0
    assert core.imported_late() == []
