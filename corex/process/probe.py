"""Looking at a process once: by a command, by a TCP connection, by HTTP."""

import asyncio

from corex.process.execute import execute
from corex.process.spawn import SpawnError
from corex.process.world import World
from corex.wire.api import ExecRequest
from corex.wire.process import ProcessSpec

_LONGEST_LINE = 1024
_HERE = ("127.0.0.1", "::1")


async def look_by_command(argv: tuple[str, ...], timeout: float, spec: ProcessSpec, world: World) -> str:  # noqa: ASYNC109  # of the command
    """What is wrong by a command that runs as a process of `spec` does; empty if nothing is."""
    request = ExecRequest(argv, spec.env, spec.cwd, spec.user, timeout=timeout)
    try:
        result = await execute(request, world)
    except (OSError, ValueError, SpawnError) as error:
        return str(error) or type(error).__name__
    if result.timed_out:
        return f"its command did not end within {timeout:g} s"
    if result.exit.code == 0:
        return ""
    how = f"code {result.exit.code}" if result.exit.signal is None else result.exit.signal
    return f"its command ended with {how}"


async def look_at_port(port: int, path: str | None, timeout: float) -> str:  # noqa: ASYNC109  # of the look
    """What is wrong with a port of the container itself, with a path asked for by HTTP; empty if nothing is."""
    try:
        async with asyncio.timeout(timeout):
            return await _ask(port, path)
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


async def _ask(port: int, path: str | None) -> str:
    reader, writer = await _connect(port)
    try:
        if path is None:
            return ""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: core-x\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii"))
        words = (await reader.readline()).split(maxsplit=2)
    finally:
        writer.close()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"port {port} does not speak HTTP"
    return "" if 200 <= int(words[1][:4]) < 400 else f"it answered {int(words[1][:4])}"


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for host in _HERE:
        try:
            return await asyncio.open_connection(host, port, limit=_LONGEST_LINE)
        except OSError:
            continue
    raise ConnectionRefusedError(f"port {port} takes no connection")
