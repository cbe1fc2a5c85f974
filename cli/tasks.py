"""Programs that run side by side, each timed, its output kept for the case that it fails."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from cli.output import print_json, print_table, print_text

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Task:
    """A program to run in the checkout, and its name in the table."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """How a task went: seconds, exit code, all that it printed."""

    name: str
    seconds: float
    code: int
    output: str


def python_tool(name: str, module: str, *words: str) -> Task:
    """A task that runs a module of our own environment."""
    return Task(name, (sys.executable, "-m", module, *words))


def installed_tool(name: str, program: str, *words: str) -> Task:
    """A task that runs a program installed beside our own Python."""
    return Task(name, (str(Path(sys.executable).parent / program), *words))


async def run_all(tasks: Sequence[Task], side_by_side: int) -> list[Done]:
    """Run tasks in their order, so many at a time."""
    turns = asyncio.Semaphore(side_by_side)
    return await asyncio.gather(*(_run(task, turns) for task in tasks))


def report(results: Sequence[Done], as_json: bool) -> bool:
    """Print what failed, then the table; returns whether all went well."""
    if as_json:
        print_json(results)
        return all(done.code == 0 for done in results)
    for done in results:
        if done.code:
            print_text(f"--- {done.name}\n{done.output.rstrip()}\n")
    rows = [(done.name, f"{done.seconds:.1f} s", "ok" if done.code == 0 else "failed") for done in results]
    print_table(("step", "time", "result"), rows)
    return all(done.code == 0 for done in results)


async def _run(task: Task, turns: asyncio.Semaphore) -> Done:
    async with turns:
        start = monotonic()
        process = await asyncio.create_subprocess_exec(
            *task.argv,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return Done(
            task.name, monotonic() - start, process.returncode or 0, output.decode("utf-8", "replace")
        )
