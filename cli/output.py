"""What commands print: tables for people, JSON for programs."""

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def print_json(value: Any) -> None:
    """Print any value of ours (structs, dataclasses, plain data) as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing") -> None:
    """Print rows as a table; `empty` is said instead of a table without rows.

    Output that is no terminal gets the full width of each cell, so that nothing is cut in a pipe.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    if not table.row_count:
        print_line(empty)
        return
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, highlight=False).print(table)


def print_rows(
    value: Any,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    empty: str = "nothing",
    *,
    as_json: bool,
) -> None:
    """Print a value: as JSON if that is asked for, else what `rows` make of it (`print_table`)."""
    if as_json:
        print_json(value)
    else:
        print_table(columns, rows, empty)


def print_line(text: str) -> None:
    """Print one line for people."""
    sys.stdout.write(text + "\n")


def time_of(seconds: float) -> str:
    """A time as people read it.

    Args:
        seconds: since 1970, UTC.
    """
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
