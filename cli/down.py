"""`zn down`: ends what `zn up` and `zn vm run` started, and forgets the node, which exists no more."""

import asyncio
import contextlib
import shutil
from typing import Annotated

import typer

from cli import context, machines, serving
from cli.output import Json, print_json, print_line

app = typer.Typer()
_CONTEXT = "local"


@app.command()
def down(
    ctx: typer.Context,
    disks: Annotated[bool, typer.Option("--disks", help="Delete the machines' disks, too.")] = False,
    as_json: Json = False,
) -> None:
    """Stop everything that `zn up` and `zn vm run` started. The operator's key, the built image and used disks stay.

    Example: zn down
    """
    stopped = asyncio.run(_stop_all())
    context.drop(ctx.obj.contexts, _CONTEXT)
    kept = machines.drop_disks(used=disks)
    _remove_the_rest()
    if as_json:
        print_json({"stopped": stopped, "disks": [str(path) for path in kept]})
    else:
        if kept:
            names = ", ".join(path.name for path in kept)
            print_line(
                f"Kept the disks {names}, for machines of these names; delete them with zn down --disks"
            )
        print_line(f"Stopped: {', '.join(stopped)}" if stopped else "Nothing was running")


def _remove_the_rest() -> None:
    for path in machines.RUN.glob("*"):
        if path == machines.DISKS:
            with contextlib.suppress(OSError):
                path.rmdir()  # unless disks are kept
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        machines.RUN.rmdir()


async def _stop_all() -> list[str]:
    stopped = []
    for folder, record in machines.running():
        await machines.stop(folder)
        stopped.append(f"machine {record.spec.name}")
    if await serving.stop(machines.RUN):
        stopped.append("netboot server")
    return stopped
