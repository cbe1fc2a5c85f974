"""`zn process login`, `logout`: a container of somebody else's node, by the token that one was given for it."""

import asyncio
import re
import sys
from typing import Annotated

import msgspec
import typer

from cli import context
from cli.context import CoreXEndpoint
from cli.frame import Settings
from cli.outcome import ExitCode, Failure
from cli.output import print_line
from corex.client.client import Client, Endpoint, RefusedError
from corex.wire.process import ProcessName

Container = Annotated[str, typer.Argument(help="What to call the container here.")]

# What a context is called where none is chosen.
_DEFAULT = "default"
_FORBIDDEN = 403


def login(
    ctx: typer.Context,
    container: Container,
    address: Annotated[str, typer.Argument(help="ADDRESS:PORT of its Core-X, or the console's URL.")],
    fingerprint: Annotated[str, typer.Option(help="SHA-256 of its certificate, as its maker told.")],
) -> None:
    """Keep a container's address and token here, once they were tried; the token is asked for, or standard input's.

    Example: zn process login demo https://203.0.113.5:9001/ --fingerprint 33cff308…
    """
    _check_name(container)
    place, digest = _place(address), _digest(fingerprint)
    token = _ask_token()
    endpoint = Endpoint(place, digest, token)
    who = asyncio.run(_who(endpoint))
    name = _context_name(ctx.obj)
    file = context.write_token(ctx.obj.contexts, context.token_name(name, container), token)
    context.remember(ctx.obj.contexts, name, container, CoreXEndpoint(place, digest, file))
    print_line(f"Core-X of {container} takes you for {who}; go on with: zn process ls {container}")


def logout(ctx: typer.Context, container: Container) -> None:
    """Forget a container's address and token here; the token stays of use to who has it (zn process deny).

    Example: zn process logout demo
    """
    _check_name(container)
    context.forget(ctx.obj.contexts, _context_name(ctx.obj), container)
    print_line(f"Nothing of {container} is kept here")


def _check_name(name: str) -> None:
    """It becomes the name of a file."""
    try:
        msgspec.convert(name, ProcessName)
    except msgspec.ValidationError:
        raise Failure(
            f"cannot call a container {name!r}: use letters, digits and hyphens", ExitCode.USAGE
        ) from None


def _place(address: str) -> str:
    """`host:port` of an address or URL."""
    found = re.fullmatch(r"(?:https://)?((?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5})(?:/.*)?", address)
    if not found:
        raise Failure(f"cannot use the address {address!r}: write it as 203.0.113.5:9001", ExitCode.USAGE)
    return found[1]


def _digest(fingerprint: str) -> str:
    """64 hexadecimal digits, however browsers and zn write them."""
    digits = fingerprint.lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise Failure(
            f"cannot use the fingerprint {fingerprint!r}: it is the certificate's SHA-256, 64 hexadecimal digits; "
            "zn container show prints it",
            ExitCode.USAGE,
        )
    return digits


def _ask_token() -> str:
    """Never an argument: those are seen by all who see the processes."""
    at_a_terminal = sys.stdin.isatty()
    token = (
        typer.prompt("Token", hide_input=True, err=True) if at_a_terminal else sys.stdin.readline()
    ).strip()
    if not token or not token.isascii() or not token.isprintable():
        raise Failure("cannot use that as a token: it is one line of printable ASCII", ExitCode.USAGE)
    return token


async def _who(endpoint: Endpoint) -> str:
    """Whom Core-X takes the token's owner for, and their role."""
    async with Client(endpoint) as client:
        try:
            found = await client.own_identity()
        except RefusedError as error:
            if error.problem.status != _FORBIDDEN:
                raise
            return "somebody who may read metrics alone"
    return f"{found.name}, {found.role}"


def _context_name(settings: Settings) -> str:
    return context.name_of(settings.contexts, settings.context) or _DEFAULT
