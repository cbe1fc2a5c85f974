"""What commands print: tables for people, JSON for programs.

Much of it was written by others: by programs in containers, on disks, on other machines. None of that may drive the
operator's terminal: names and sentences show what is no text as escapes; the output of programs keeps its colours
alone where it goes to a terminal, and every byte where it does not. `--json` is ASCII where a terminal would act on
more.
"""

import codecs
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import msgspec
import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
# Control characters (ECMA-48: C0, C1, delete), marks that turn the direction of writing (UAX 9), and what UTF-8
# does not have.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What of these JSON (RFC 8259, section 7) does not escape by itself.
_NO_ESCAPE_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
# Control sequences, strings (OSC, DCS, SOS, PM, APC) up to their end, other escapes; then the characters above, but
# tabs and line ends. As the web console reads them.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c|(?=\n)|$)"
    "|\x1b[\x20-\x2f]*[\x30-\x7e]?"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
)
# Select graphic rendition (ECMA-48, 8.3.117): without a private mark, by which other functions end with m, too.
_COLOURS = re.compile("\x1b\\[[0-9;:]*m")
_PLAIN = "\x1b[0m"
# The beginning of a control sequence whose rest has not come yet.
_BEGUN = re.compile("(?:\x1b|(?:\x1b\\[|\x9b)[\x20-\x3f]{0,64})$")


def visible(text: str) -> str:
    """A name or a sentence for one line: what is no text in it is shown as an escape of Python's."""
    return _INVISIBLE.sub(_escaped, text)


def coloured(text: str) -> str:
    """Output of a program for a terminal: its lines, tabs and colours (SGR), and nothing else that terminals obey."""
    kept = _ESCAPES.sub(_kept, text)
    return kept + _PLAIN if _COLOURS.search(kept) and not kept.endswith(_PLAIN) else kept


def _kept(found: re.Match[str]) -> str:
    what = found[0]
    if _COLOURS.fullmatch(what):
        return what
    return _escaped(found) if len(what) == 1 and what > "\x9f" else ""


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def print_json(value: Any) -> None:
    """Print any value of ours (structs, dataclasses, plain data) as indented JSON."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    _print_json(text.decode())


def print_json_line(value: Any) -> None:
    """Print a value as one line of JSON."""
    _print_json(msgspec.json.encode(value).decode())


def _print_json(text: str) -> None:
    # outside of strings JSON has none of them
    sys.stdout.write(_NO_ESCAPE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing") -> None:
    """Print rows as a table; `empty` is said instead of a table without rows.

    Output that is no terminal gets the full width of each cell, so that nothing is cut in a pipe.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
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
    sys.stdout.write(visible(text) + "\n")


def print_text(text: str) -> None:
    """Print lines that are our own."""
    sys.stdout.write(text + "\n")


def print_error(text: str) -> None:
    """Print lines for people on standard error."""
    sys.stderr.write("\n".join(map(visible, text.split("\n"))) + "\n")


def print_output(text: str, *, to_error: bool = False, end: str = "\n") -> None:
    """Print a line that a program in a container wrote."""
    stream = sys.stderr if to_error else sys.stdout
    stream.write((coloured(text) if stream.isatty() else text) + end)


@contextmanager
def output_to(stream: TextIO, *, raw: bool = False) -> Iterator[Callable[[bytes], None]]:
    """What writes the bytes that a program in a container wrote, as they come.

    Args:
        stream: standard output or standard error.
        raw: whether the program may drive the terminal.
    """

    def write(data: bytes) -> None:
        stream.buffer.write(data)
        stream.buffer.flush()

    if raw or not stream.isatty():
        yield write
        return
    decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
    rest, has_colour = "", False

    def write_coloured(data: bytes) -> None:
        nonlocal rest, has_colour
        text = rest + decode(data)
        begun = _BEGUN.search(text)
        text, rest = (text[: begun.start()], begun[0]) if begun else (text, "")
        kept = _ESCAPES.sub(_kept, text)
        has_colour = has_colour or _COLOURS.search(kept) is not None
        write(kept.encode())

    try:
        yield write_coloured
    finally:
        if has_colour:
            write(_PLAIN.encode())


def time_of(seconds: float) -> str:
    """A time as people read it.

    Args:
        seconds: since 1970, UTC.
    """
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
