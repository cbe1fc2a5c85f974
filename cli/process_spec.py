"""Specifications for Core-X from what a person gives `zn`: options, or JSON in a file."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from cli.container_spec import pair_of
from cli.outcome import ExitCode, Failure
from corex.http.problem import invalid
from corex.wire.process import ProcessSpec

T = TypeVar("T")
# What a shell would set; Core-X itself adds nothing to an environment.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STANDARD = Path("-")


def environment(given: Iterable[str]) -> dict[str, str]:
    """An environment of NAME=VALUE, with a PATH if none is given. Raises Failure (usage)."""
    return {"PATH": PATH, **dict(map(pair_of, given))}


def conditions(given: Iterable[str]) -> dict[str, str]:
    """What a process starts after, of NAME=CONDITION. Raises Failure (usage)."""
    pairs = [one.partition("=") for one in given]
    for name, _, condition in pairs:
        if not condition:
            raise Failure(
                f"cannot use --after {name!r}: it is not NAME=CONDITION, as in db=ready", ExitCode.USAGE
            )
    return {name: condition for name, _, condition in pairs}


def spec_of(**given: object) -> ProcessSpec:
    """The specification that options make. Raises Failure (usage)."""
    try:
        return msgspec.convert(given, ProcessSpec)
    except msgspec.ValidationError as error:
        raise _refusal("these options", error) from None


def read(file: Path, kind: type[T]) -> T:
    """A value of a JSON file; `-` is the standard input. Raises Failure (usage)."""
    try:
        data = sys.stdin.buffer.read() if file == _STANDARD else file.read_bytes()
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(file), error) from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"cannot read {file}: {error}", ExitCode.USAGE) from None


def _refusal(what: str, error: msgspec.ValidationError) -> Failure:
    reason = str(error).partition(" - at `")[0]
    pointer = invalid(error).problem.pointer
    where = f" (at {pointer})" if pointer else ""
    return Failure(f"cannot use {what}: {reason[:1].lower()}{reason[1:]}{where}", ExitCode.USAGE)
