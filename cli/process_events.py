"""`zn process events`: what happened to the processes inside a container."""

import asyncio
import time
from typing import Annotated

import typer

from cli.connect import corex_client
from cli.output import Json, print_json_line, print_line
from corex.client.client import Client
from corex.wire.api import EventPage

# Seconds that one question waits for something to happen.
_PATIENCE = 30.0


def events(
    ctx: typer.Context,
    container: Annotated[str, typer.Argument(help="The container's name.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more; Ctrl-C ends.")] = False,
    as_json: Json = False,
) -> None:
    """Show what happened to a container's processes.

    Example: zn process events demo --follow
    """
    asyncio.run(_events(corex_client(ctx.obj, container), follow=follow, as_json=as_json))


async def _events(client: Client, *, follow: bool, as_json: bool) -> None:
    async with client:
        cursor, wait = 0, 0.0
        while True:
            page = await client.events(cursor, wait)
            _print(page, as_json=as_json)
            if not follow and page.next == cursor:
                return
            cursor, wait = page.next, _PATIENCE if follow else 0.0


def _print(page: EventPage, *, as_json: bool) -> None:
    if page.lost:
        typer.echo(f"zn: {page.lost} older events are no longer kept", err=True)
    for event in page.events:
        if as_json:
            print_json_line(event)
        else:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
            print_line(f"{when}  {event.process} {event.state}: {event.why}")
