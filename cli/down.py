"""`zn down`: ends what `zn up` and `zn vm run` started, and forgets the node, which exists no more."""

import asyncio
import shutil

import typer

from cli import context, machines, serving
from cli.output import Json, print_json, print_line

app = typer.Typer()
_CONTEXT = "local"


@app.command()
def down(ctx: typer.Context, as_json: Json = False) -> None:
    """Stop everything that `zn up` and `zn vm run` started. The operator's key and the built image stay.

    Example: zn down
    """
    stopped = asyncio.run(_stop_all())
    context.drop(ctx.obj.contexts, _CONTEXT)
    shutil.rmtree(machines.RUN, ignore_errors=True)
    if as_json:
        print_json({"stopped": stopped})
    else:
        print_line(f"Stopped: {', '.join(stopped)}" if stopped else "Nothing was running")


async def _stop_all() -> list[str]:
    stopped = []
    for folder, record in machines.running():
        await machines.stop(folder)
        stopped.append(f"machine {record.spec.name}")
    if await serving.stop(machines.RUN):
        stopped.append("netboot server")
    return stopped
