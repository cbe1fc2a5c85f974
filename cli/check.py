"""`zn check`: all that can be checked without a machine, in under a minute."""

import asyncio

import typer

from cli.output import Json
from cli.tasks import Task, installed_tool, python_tool, report, run_all

app = typer.Typer()

STATIC = (
    python_tool("types", "mypy"),
    installed_tool("format", "ruff", "format", "--check", "."),
    installed_tool("lint", "ruff", "check", "."),
    installed_tool("import rules", "lint-imports"),
)
FAST_TESTS = python_tool("fast tests", "pytest", "-m", "not vm and not slow", "-n", "2", "-q")
# As many as small machines have cores; the tests use two of their own.
_SIDE_BY_SIDE = 2


@app.command()
def check(as_json: Json = False) -> None:
    """Check format, lint, types and import rules, and run the fast tests.

    Example: zn check
    """
    if not run_checks((FAST_TESTS, *STATIC), as_json):
        raise typer.Exit(1)


def run_checks(tasks: tuple[Task, ...], as_json: bool) -> bool:
    """Run tasks side by side and report; returns whether all went well."""
    return report(asyncio.run(run_all(tasks, _SIDE_BY_SIDE)), as_json)
