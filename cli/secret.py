"""`zn secret`: what containers of a node must know and nobody else."""

import datetime
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli.connect import call
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_rows
from cli.sizes import size
from core0.wire.secrets import LARGEST, Secret, SecretValue

app = typer.Typer(no_args_is_help=True)


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the secrets, without their values.

    Example: zn secret ls
    """
    found = call(ctx.obj, lambda client: client.secrets())
    rows = [(one.name, size(one.bytes), _moment(one), ", ".join(one.containers) or "-") for one in found]
    print_rows(found, ("name", "size", "given", "containers"), rows, "no secrets", as_json=as_json)


@app.command("set")
def set_(
    ctx: typer.Context,
    name: str,
    file: Annotated[
        Path | None, typer.Option(help="Take it from a file; else it is asked for, or read from a pipe.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give the node a secret. It keeps it in memory until it reboots; containers that run keep an earlier one.

    Example: zn secret set db-password < password.txt
    """
    value = _checked(_read(file))
    kept = call(ctx.obj, lambda client: client.put_secret(name, value))
    if as_json:
        print_json(kept)
    else:
        typer.echo(f"secret {kept.name}: {size(kept.bytes)}")


@app.command()
def rm(ctx: typer.Context, name: str) -> None:
    """Have the node forget a secret that no container has.

    Example: zn secret rm db-password
    """
    call(ctx.obj, lambda client: client.delete_secret(name))


def _read(file: Path | None) -> bytes:
    """The value: never an argument, which everybody on this machine could see."""
    try:
        if file:
            return file.read_bytes()
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}", ExitCode.USAGE) from None
    if sys.stdin.isatty():
        given: str = typer.prompt("Secret", hide_input=True, confirmation_prompt=True)
        return given.encode()
    return sys.stdin.buffer.read(LARGEST + 1)


def _checked(value: bytes) -> SecretValue:
    try:
        return msgspec.convert({"value": value}, SecretValue)
    except msgspec.ValidationError:
        raise Failure(
            f"cannot keep a secret of {len(value)} bytes: give it 1 to {LARGEST}", ExitCode.USAGE
        ) from None


def _moment(secret: Secret) -> str:
    return datetime.datetime.fromtimestamp(secret.changed, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
