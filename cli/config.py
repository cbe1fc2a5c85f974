"""`zn config`: the config of a node: checked, signed, applied, shown."""

from pathlib import Path
from typing import Annotated

import typer

from cli import operator, trial
from cli.connect import call
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_line, print_rows
from core0.client.credentials import load_key
from core0.wire import config as wire
from core0.wire.config import ConfigStatus, NodeConfig

app = typer.Typer(no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The config, in TOML.", exists=True, dir_okay=False)]


@app.command()
def check(file: File) -> None:
    """Check a config without a node.

    Example: zn config check node.toml
    """
    config = _read(file)
    pools, links = (", ".join(names) or "none" for names in (config.storage.pools, config.network.links))
    claims = len(config.storage.claims)
    print_line(f"{file} is a config; pools: {pools}; claims: {claims}; links: {links}")


@app.command()
def sign(ctx: typer.Context, file: File) -> None:
    """Sign a config with the operator's key, for nodes that fetch it (zn.config=ADDRESS); writes FILE.sig.

    Example: zn config sign node.toml
    """
    _read(file)
    key = load_key(ctx.obj.contexts.parent / operator.KEY_FILE)
    signature = wire.format_signature(key.public_key().public_bytes_raw(), key.sign(file.read_bytes()))
    target = file.with_name(f"{file.name}.sig")
    target.write_text(signature, "ascii")
    print_line(f"{target} written; serve it beside {file.name}")


@app.command()
def apply(
    ctx: typer.Context,
    file: File,
    try_for: Annotated[
        str | None,
        typer.Option("--try", metavar="TIME", help="Go back unless it is confirmed in this time: 60s, 5m."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a config to the node. What it does not mention any more is never destroyed.

    With --try the node goes back to the earlier config by itself, unless it still answers (a person is asked, too).

    Example: zn config apply node.toml --try 60s
    """
    config = _read(file)
    if try_for is None:
        status = call(ctx.obj, lambda client: client.put_config(config))
    else:
        status = trial.apply(ctx.obj, config, trial.seconds(try_for))
    _print(status, as_json)


@app.command()
def confirm(ctx: typer.Context, as_json: Json = False) -> None:
    """Keep the config that is on trial.

    Example: zn config confirm
    """
    _print(call(ctx.obj, lambda client: client.confirm_config()), as_json)


@app.command()
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show the config in force, and where it comes from.

    Example: zn config show
    """
    _print(call(ctx.obj, lambda client: client.config()), as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors.

    Example: zn config schema
    """
    import msgspec

    print_json(msgspec.json.schema(NodeConfig))


def _read(file: Path) -> NodeConfig:
    try:
        return wire.parse(file.read_text())
    except ValueError as error:
        raise Failure(f"cannot use {file}: {error}; docs/disks.md has an example", ExitCode.USAGE) from None


def _print(status: ConfigStatus, as_json: bool) -> None:
    pools = status.config.storage.pools
    rows = [
        ("state", status.state),
        ("source", status.source or "-"),
        ("why", status.why),
        *([("goes back in", f"{status.trial:.0f} s")] if status.trial is not None else ()),
        ("pools", ", ".join(f"{name} ({spec.profile})" for name, spec in pools.items()) or "-"),
        ("claims", ", ".join(status.config.storage.claims) or "-"),
        ("links", ", ".join(status.config.network.links) or "-"),
    ]
    print_rows(status, ("config", ""), rows, as_json=as_json)
