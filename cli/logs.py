"""`zn process logs`, also `zn logs`: what the processes of a container wrote."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Annotated, NamedTuple

import typer
from msgspec.structs import replace

from cli.connect import corex_client
from cli.output import Json, print_error, print_json_line, print_output
from cli.times import moment_of, stamp_of
from corex.client.client import Client
from corex.wire.api import LogGap, LogLine, LogSieve, Stream

app = typer.Typer()

Show = Callable[[LogLine | LogGap], None]


class _Wanted(NamedTuple):
    """Which lines to print.

    Attributes:
        names: one process, whose own log it is then; or several, or all, in the order of the container.
        after: the number of the line before the first.
        tail: so many of the newest of those that there are already; None for all.
        follow: whether to go on with new ones.
        sieve: what the lines must be.
    """

    names: str | Sequence[str] | None
    after: int
    tail: int | None
    follow: bool
    sieve: LogSieve


@app.command()
def logs(
    ctx: typer.Context,
    container: Annotated[str, typer.Argument(help="The container's name.")],
    names: Annotated[
        list[str] | None, typer.Argument(help="One process or several; else all.", show_default=False)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines as they come.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", help="Begin with so many of the newest lines.", min=0)
    ] = None,
    stream: Annotated[Stream | None, typer.Option(help="Only lines of this stream.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only lines from then on: a time of RFC 3339, or 10min ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only lines before then; the same.")] = None,
    match: Annotated[
        str | None, typer.Option(help="Only lines in which this regular expression of Python's is found.")
    ] = None,
    after: Annotated[int, typer.Option(help="Only lines after this number.", min=0)] = 0,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Print when each line was read.")] = False,
    as_json: Json = False,
) -> None:
    """Print what processes wrote; standard error goes to standard error.

    Lines of several processes begin with the name. A terminal gets their text and colours, a pipe every byte.

    Example: zn logs demo web db --since 10min --match 'time-?out' --follow
    """
    now = time.time()
    first, last = (None if one is None else moment_of(one, now) for one in (since, until))
    which = names[0] if names and len(names) == 1 else names or None
    wanted = _Wanted(which, after, tail, follow, LogSieve(stream, first, last, match))
    printer = _Printer(with_name=not isinstance(which, str), with_time=timestamps)
    show = print_json_line if as_json else printer
    asyncio.run(_print(corex_client(ctx.obj, container), wanted, show))


async def _print(client: Client, wanted: _Wanted, show: Show) -> None:
    async with client:
        cursor = await _print_known(client, wanted, show)
        until = wanted.sieve.until
        left = None if until is None else until - time.time()
        if not wanted.follow or (left is not None and left <= 0):
            return
        sys.stdout.flush()
        records = client.follow(wanted.names, cursor, wanted.sieve)
        try:
            async with asyncio.timeout(left), aclosing(records):
                async for record in records:
                    show(record)
                    sys.stdout.flush()
        except TimeoutError:  # all that comes is later than what is wanted
            return


async def _print_known(client: Client, wanted: _Wanted, show: Show) -> int:
    """Print what there is already; the cursor behind it. What a flood writes meanwhile is no part of that."""
    names, tail, sieve = wanted.names, wanted.tail, wanted.sieve
    end = (await client.logs(names, wanted=replace(sieve, tail=0))).next
    cursor, kept = wanted.after, list[LogLine | LogGap]()
    if tail is not None and sieve == LogSieve() and not isinstance(names, list):
        sieve = replace(sieve, tail=tail)  # every line counts: Core-X need not send the others
    while cursor < end:
        page = await client.logs(names, cursor, wanted=sieve)
        cursor, sieve = page.next, wanted.sieve
        kept = _newest([*kept, *page.records], tail)
        if tail is None:
            for record in kept:
                show(record)
            kept = []
    for record in kept:
        show(record)
    return cursor


def _newest(records: list[LogLine | LogGap], count: int | None) -> list[LogLine | LogGap]:
    """The last lines of them, with the gaps between; all for None."""
    if count is None:
        return records
    at = len(records)
    while count and at:
        at -= 1
        count -= isinstance(records[at], LogLine)
    return records[at:]


class _Printer:
    """Prints lines, long ones of which come in parts."""

    def __init__(self, *, with_name: bool, with_time: bool) -> None:
        self._with_name, self._with_time = with_name, with_time
        self._open: LogLine | None = None

    def __call__(self, record: LogLine | LogGap) -> None:
        if isinstance(record, LogGap):
            self._close()
            print_error(f"zn: {record.lost} lines were overwritten before they were read")
            return
        to_error = record.stream == "stderr"
        goes_on = self._open is not None and _whose(self._open) == _whose(record)
        if not goes_on:
            self._close()
        head = "" if goes_on else self._head(record)
        print_output(head + record.text, to_error=to_error, end="" if record.partial else "\n")
        self._open = record if record.partial else None

    def _head(self, line: LogLine) -> str:
        stamp = f"{stamp_of(line.time)} " if self._with_time else ""
        return f"{stamp}{line.process}: " if self._with_name else stamp

    def _close(self) -> None:
        """End a line whose rest does not follow now."""
        if self._open is not None:
            print_output("", to_error=self._open.stream == "stderr")
            self._open = None


def _whose(line: LogLine) -> tuple[str, str]:
    return line.process, line.stream
