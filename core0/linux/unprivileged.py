"""Runs what talks to strangers as a user of its own; its answer is to be checked like a stranger's."""

import asyncio

from core0.wire import paths


async def ask_unprivileged(verb: str, given: bytes, deadline: float) -> tuple[bytes, int | None]:
    """Run a verb of the node's entry as the puller's user, in an environment of nothing but PATH.

    Args:
        verb: as the entry knows it.
        given: its standard input.
        deadline: seconds, after which it is killed.

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
    )
    try:
        async with asyncio.timeout(deadline):
            said, _ = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
    return said, process.returncode
