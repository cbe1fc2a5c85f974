"""Running one command to its end, without a terminal, outside of the declared processes."""

import asyncio
import base64
import os
import signal
from contextlib import suppress

from corex.process.output import Capture, Feed, Pipe
from corex.process.spawn import Child, Command, SpawnError
from corex.process.world import World
from corex.wire.api import ExecRequest, ExecResult, Exit, Output

MAX_OUTPUT = 1 << 20  # bytes kept of each stream
DRAIN_DEADLINE = 1.0  # seconds for output after the end, which a grandchild may keep open for ever


async def execute(request: ExecRequest, world: World) -> ExecResult:
    """Run a command.

    It is killed with its process group when its time is up or the caller is cancelled. What it leaves behind
    after an ordinary end goes on, as an orphan.

    Raises:
        SpawnError: it could not be started.
    """
    started = world.loop.time()
    command = Command(request.argv, request.env, request.cwd, request.user)
    child, ended = await start(command, world)
    stdout, stderr = Capture(MAX_OUTPUT), Capture(MAX_OUTPUT)
    pipes = [Pipe(world.loop, child.stdout, stdout), Pipe(world.loop, child.stderr, stderr)]
    feed = Feed(world.loop, child.stdin, request.stdin.encode())
    try:
        how, timed_out = await _end(child, ended, request.timeout)
        await _drain(pipes)
    finally:
        feed.close()
        for pipe in pipes:
            pipe.close()
    seconds = world.loop.time() - started
    return ExecResult(how, _output(stdout), _output(stderr), timed_out, round(seconds, 6))


async def start(command: Command, world: World) -> tuple[Child, asyncio.Future[Exit]]:
    """Start a command; its end is told once it is there.

    Raises:
        SpawnError: it could not be started.
    """
    ended: asyncio.Future[Exit] = world.loop.create_future()
    world.reaper.spawning()
    pid = None
    try:
        child = await world.spawner.spawn(command)
        pid = child.pid
    except SpawnError as error:
        pid = error.pid
        raise
    finally:  # also when nobody waits for it any more: what comes of it is an orphan then
        world.reaper.spawned(pid, lambda how: None if ended.done() else ended.set_result(how))
    return child, ended


async def _end(child: Child, ended: asyncio.Future[Exit], seconds: float) -> tuple[Exit, bool]:
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(ended), False
    except TimeoutError:
        _kill(child, ended)
        return await asyncio.shield(ended), True
    except asyncio.CancelledError:
        _kill(child, ended)
        raise


def _kill(child: Child, ended: asyncio.Future[Exit]) -> None:
    if not ended.done():
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


async def _drain(pipes: list[Pipe]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_DEADLINE):
            for pipe in pipes:
                await pipe.ended()


def _output(capture: Capture) -> Output:
    data = bytes(capture.data)
    try:
        return Output("utf-8", data.decode(), capture.truncated)
    except UnicodeDecodeError:
        return Output("base64", base64.b64encode(data).decode("ascii"), capture.truncated)
