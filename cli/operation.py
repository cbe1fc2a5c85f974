"""`zn operation`: long work of a node, and following it with a progress bar."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from cli.connect import call, node_client
from cli.frame import Settings
from cli.outcome import Failure
from cli.output import Json, print_json, print_line, print_rows, visible
from core0.client.client import NodeClient
from core0.wire.operations import Operation

app = typer.Typer(no_args_is_help=True)

Detach = Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")]
_WAIT = 2.0


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the long work that runs, and the last that ended.

    Example: zn operation ls
    """
    found = call(ctx.obj, lambda client: client.operations())
    rows = [(one.id, one.kind, one.subject, one.state, _percent(one), one.detail) for one in found]
    print_rows(
        found,
        ("operation", "kind", "subject", "state", "progress", "detail"),
        rows,
        "no operations",
        as_json=as_json,
    )


@app.command()
def show(ctx: typer.Context, operation: str, as_json: Json = False) -> None:
    """Show one operation and wait for its end.

    Example: zn operation show 5d41402abc4b2a76
    """
    follow(ctx.obj, lambda client: client.operation(operation), False, as_json)


@app.command()
def cancel(ctx: typer.Context, operation: str, as_json: Json = False) -> None:
    """Ask an operation to end.

    Example: zn operation cancel 5d41402abc4b2a76
    """
    found = call(ctx.obj, lambda client: client.cancel_operation(operation))
    if as_json:
        print_json(found)
    else:
        print_line(f"{found.kind} of {found.subject}: {found.state}: {found.detail}")


def follow(
    settings: Settings, start: Callable[[NodeClient], Awaitable[Operation]], detach: bool, as_json: bool
) -> None:
    """Start long work and wait for its end, with a progress bar on a terminal.

    Raises:
        Failure: if it did not end well.
    """
    found = asyncio.run(_follow(settings, start, detach))
    if as_json:
        print_json(found)
    elif found.state == "running":
        print_line(f"operation {found.id} runs; 'zn operation show {found.id}' follows it")
    elif found.state == "done":
        print_line(f"{found.kind} of {found.subject}: {found.detail}")
    if found.state not in ("running", "done"):
        raise Failure(f"{found.kind} of {found.subject} {found.state}: {found.detail}")


async def _follow(
    settings: Settings, start: Callable[[NodeClient], Awaitable[Operation]], detach: bool
) -> Operation:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeElapsedColumn(),
    )
    async with node_client(settings) as client:
        found = await start(client)
        with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(f"{found.kind} {found.subject}", total=None)
            while found.state == "running" and not detach:
                found = await client.operation(found.id, _WAIT)
                total = None if found.progress is None else 1.0
                bar.update(
                    task, total=total, completed=found.progress or 0.0, description=visible(found.detail)
                )
    return found


def _percent(operation: Operation) -> str:
    return "-" if operation.progress is None else f"{operation.progress:.0%}"
