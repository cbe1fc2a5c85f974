"""Running the programs that know disk formats: each with a deadline, its last words in the error."""

import asyncio

from core0.linux.tools import environment, tool

_LAST_WORDS = 300


class ToolError(OSError):
    """A program failed, or did not end in time: its name and its last words."""


async def run_tool(name: str, *arguments: str, given: bytes = b"", deadline: float, harmless: int = 0) -> str:
    """What a program prints.

    Args:
        name: the program's.
        arguments: never a secret: every process may read them.
        given: its standard input, for what is a secret.
        deadline: seconds.
        harmless: bits of its exit code that do not mean that it failed.

    Raises:
        ToolError: if it ends with another code than 0 or not in time.
    """
    process = await asyncio.create_subprocess_exec(
        tool(name),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(deadline):
            said, complained = await process.communicate(given)
    except TimeoutError:
        raise ToolError(f"{name} did not end within {deadline:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None  # noqa: S101 — communicate has returned
    if process.returncode < 0 or process.returncode & ~harmless:
        raise ToolError(f"{name} failed: {_words(complained) or f'exit code {process.returncode}'}")
    return said.decode(errors="replace")


def _words(data: bytes) -> str:
    """The last line that says something; it may quote what a stranger wrote on a disk."""
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    return "".join(letter for letter in lines[-1] if letter.isprintable())[:_LAST_WORDS] if lines else ""
