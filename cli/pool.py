"""`zn pool`: the pools of a node."""

from typing import Annotated

import msgspec
import typer

from cli.connect import call
from cli.operation import Detach, follow
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_rows, print_table, time_of
from cli.sizes import bytes_of, size
from core0.wire.storage import Destruction, Pool, PoolSpec, Replacement

app = typer.Typer(no_args_is_help=True)

Wait = Annotated[float, typer.Option(help="Seconds to wait until it serves (60 at most).")]


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the pools.

    Example: zn pool ls
    """
    found = call(ctx.obj, lambda client: client.pools())
    rows = [
        (one.name, one.state, one.profile, str(len(one.members)), size(one.size), size(one.free), one.why)
        for one in found
    ]
    print_rows(
        found, ("pool", "state", "profile", "disks", "size", "free", "why"), rows, "no pools", as_json=as_json
    )


@app.command()
def show(ctx: typer.Context, name: str, as_json: Json = False) -> None:
    """Show one pool and its disks.

    Example: zn pool show fast
    """
    _print(call(ctx.obj, lambda client: client.pool(name)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    disk: Annotated[
        list[str] | None, typer.Option("--disk", "-d", help="One of these, by id or serial.")
    ] = None,
    profile: Annotated[str, typer.Option(help="single, raid1, raid1c3 or raid10.")] = "single",
    media: Annotated[list[str] | None, typer.Option(help="hdd, ssd or nvme.")] = None,
    bus: Annotated[list[str] | None, typer.Option(help="nvme, ata, scsi, virtio, usb or mmc.")] = None,
    count: Annotated[int | None, typer.Option(help="So many of the disks that fit.")] = None,
    min_size: Annotated[str, typer.Option(help="Disks of this size at least, as 500G.")] = "0",
    format_blank: Annotated[
        bool, typer.Option("--format-blank", help="Take blank disks without a claim of each.")
    ] = False,
    compress: Annotated[str, typer.Option(help="no, lzo, zstd:1, zstd:3 or zstd:6.")] = "no",
    encrypt: Annotated[
        str | None, typer.Option(help="Encrypt. The key: operator (asks for a passphrase) or tpm2.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Change it, if there is one.")] = False,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Make a pool of disks that the node has, or of blank ones.

    Example: zn pool create fast --profile raid1 --media nvme --count 2 --format-blank
    """
    spec = _spec(
        select={
            "serials": disk or [],
            "media": media or [],
            "bus": bus or [],
            "count": count,
            "min_size": bytes_of(min_size),
        },
        profile=profile,
        format_blank=format_blank,
        encryption={"key": encrypt} if encrypt else None,
        mount={"compress": compress},
    )
    secret = _ask_passphrase(twice=True) if encrypt == "operator" else None
    made = call(ctx.obj, lambda client: client.put_pool(name, spec, 0.0 if secret else wait, new=not update))
    if secret:
        given = secret
        made = call(ctx.obj, lambda client: client.unlock_pool(name, given, wait))
    _print(made, as_json)
    if made.state not in ("online", "degraded"):
        raise Failure(f"pool {name} is {made.state}: {made.why}")


@app.command()
def unlock(ctx: typer.Context, name: str, wait: Wait = 60.0, as_json: Json = False) -> None:
    """Give the passphrase of an encrypted pool; the node forgets it when it ends.

    Example: zn pool unlock vault
    """
    secret = _ask_passphrase(twice=False)
    pool = call(ctx.obj, lambda client: client.unlock_pool(name, secret, wait))
    _print(pool, as_json)
    if pool.state not in ("online", "degraded"):
        raise Failure(f"pool {name} is {pool.state}: {pool.why}")


@app.command("recovery-key")
def recovery_key(ctx: typer.Context, name: str, as_json: Json = False) -> None:
    """Show the key that the TPM keeps for a pool: write it down, 'zn pool unlock' takes it when the TPM is gone.

    Example: zn pool recovery-key vault
    """
    found = call(ctx.obj, lambda client: client.recovery_key(name))
    if as_json:
        print_json(found)
    else:
        typer.echo(found.key)


@app.command()
def scrub(ctx: typer.Context, name: str, detach: Detach = False, as_json: Json = False) -> None:
    """Read all of a pool, and correct what its checksums say is wrong.

    Example: zn pool scrub fast
    """
    follow(ctx.obj, lambda client: client.scrub_pool(name), detach, as_json)


@app.command()
def replace(
    ctx: typer.Context,
    name: str,
    old: Annotated[str, typer.Argument(help="The disk that goes, there or missing.")],
    new: Annotated[
        str, typer.Argument(help="The disk that comes: free or blank; the old one if it came back.")
    ],
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Rebuild a disk of a pool on another one, while the pool serves.

    Example: zn pool replace fast nvme-OLD nvme-NEW
    """
    follow(ctx.obj, lambda client: client.replace_disk(name, Replacement(old, new)), detach, as_json)


@app.command()
def destroy(
    ctx: typer.Context,
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Destroy a pool and everything in it; its disks are free afterwards.

    Example: zn pool destroy slow
    """
    pool = call(ctx.obj, lambda client: client.pool(name))
    _print(pool, False)
    if not yes and not typer.confirm(f"Destroy pool {name} and everything in it?"):
        raise Failure(f"pool {name} was left as it is", ExitCode.REFUSED)
    call(ctx.obj, lambda client: client.destroy_pool(name, Destruction(pool.id)))


def _ask_passphrase(*, twice: bool) -> str:
    secret: str = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice)
    return secret


def _print(pool: Pool, as_json: bool) -> None:
    if as_json:
        print_json(pool)
        return
    rows = [
        ("name", pool.name),
        ("state", pool.state),
        ("why", pool.why),
        ("profile", pool.profile),
        ("id", pool.id or "-"),
        ("wanted by", pool.source),
        ("key", pool.encryption or "not encrypted"),
        ("size", size(pool.size)),
        ("used", size(pool.used)),
        ("free", size(pool.free)),
        ("last scrub", f"{time_of(pool.scrub.ended)}: {pool.scrub.detail}" if pool.scrub else "-"),
    ]
    print_table(("pool", ""), rows)
    members = [(one.disk, one.state, size(one.size), size(one.used), str(one.errors)) for one in pool.members]
    print_table(("disk", "state", "size", "used", "errors"), members, "no disks yet")


def _spec(**given: object) -> PoolSpec:
    """The spec, checked here as the node will check it. Raises Failure (usage)."""
    try:
        return msgspec.convert(given, PoolSpec)
    except msgspec.ValidationError as error:
        raise Failure(f"cannot make the pool: {error}; see zn pool create --help", ExitCode.USAGE) from None
