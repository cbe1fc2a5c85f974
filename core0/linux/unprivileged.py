"""Runs what talks to strangers as a user of its own; its answer is to be checked like a stranger's."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from core0.linux import files
from core0.wire import paths

# Bytes of an answer, or of a line of it, at most.
_LARGEST = 16 << 20
# What a stranger makes it need memory for ends before any container: what it was for is tried again.
_OOM_SCORE = "950"


async def ask_unprivileged(
    verb: str,
    given: bytes,
    deadline: float,
    tell: Callable[[bytes], None] | None = None,
    descriptors: Sequence[int] = (),
    cgroup: str = "",
) -> tuple[bytes, int | None]:
    """Run a verb of the node's entry as the puller's user, in an environment of nothing but PATH.

    Args:
        verb: as the entry knows it.
        given: its standard input.
        deadline: seconds, after which it is killed.
        tell: is told each line as it comes, and may raise what ends it.
        descriptors: what it gets besides, by the same numbers.
        cgroup: the folder of a cgroup that it is in before it gets its input.

    Returns:
        Its standard output, and how it ended.

    Raises:
        TimeoutError: if it did not end in time.
    """
    process = await asyncio.create_subprocess_exec(
        paths.ENTRY,
        verb,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        user=paths.PULL_USER,
        group=paths.PULL_USER,
        extra_groups=(),
        env={"PATH": "/usr/bin"},
        cwd="/",
        start_new_session=True,
        limit=_LARGEST,
        pass_fds=descriptors,
    )
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended already
        files.write(f"/proc/{process.pid}/oom_score_adj", _OOM_SCORE)
    try:
        async with asyncio.timeout(deadline):
            if cgroup:  # the kernel may take its time for that
                await asyncio.to_thread(files.write, f"{cgroup}/cgroup.procs", str(process.pid))
            said = await _converse(process, given, tell)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said, process.returncode


async def _converse(
    process: asyncio.subprocess.Process, given: bytes, tell: Callable[[bytes], None] | None
) -> bytes:
    """Give a process its input; returns its output, of which only the last line where each was told.

    Raises:
        ValueError: a line is too long.
    """
    if tell is None:
        return (await process.communicate(given))[0]
    assert process.stdin  # noqa: S101 — it is a pipe
    assert process.stdout  # noqa: S101 — and so is it
    with contextlib.suppress(ConnectionError):  # it ended before it had read all
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()
    said = b""
    while line := await process.stdout.readline():
        tell(line)
        said = line
    await process.wait()
    return said
