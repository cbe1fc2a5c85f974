"""`zn disk`: the disks of a node."""

from typing import Annotated

import msgspec
import typer

from cli.connect import call
from cli.operation import Detach, follow
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_error, print_rows
from cli.sizes import size
from core0.wire.storage import Claim, Disk, EraseRequest, Health

app = typer.Typer(no_args_is_help=True)


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the disks, each with what it is used for, or why not and what to do.

    Example: zn disk ls
    """
    found = call(ctx.obj, lambda client: client.disks())
    rows = [
        (one.id, one.device, one.media, size(one.size), one.state, one.pool or "-", one.why) for one in found
    ]
    print_rows(
        found, ("disk", "device", "media", "size", "state", "pool", "why"), rows, "no disks", as_json=as_json
    )


@app.command()
def show(ctx: typer.Context, disk: str, as_json: Json = False) -> None:
    """Show one disk, by id or serial number.

    Example: zn disk show nvme-S4EWNX0N123456
    """
    _print(call(ctx.obj, lambda client: client.disk(disk)), as_json)


@app.command()
def claim(
    ctx: typer.Context,
    disk: str,
    wipe: Annotated[bool, typer.Option("--wipe", help="Destroy what it holds, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Give a disk to the node. One that holds anything is taken with --wipe only.

    Example: zn disk claim nvme-S4EWNX0N123456 --wipe
    """
    content = _agree_to_wipe(call(ctx.obj, lambda client: client.disk(disk)), yes) if wipe else None
    _print(call(ctx.obj, lambda client: client.claim_disk(disk, Claim(content))), as_json)


@app.command()
def adopt(ctx: typer.Context, disk: str, as_json: Json = False) -> None:
    """Take over a disk that another node claimed, with everything that it holds.

    Example: zn disk adopt nvme-S4EWNX0N123456
    """
    _print(call(ctx.obj, lambda client: client.adopt_disk(disk)), as_json)


@app.command()
def erase(
    ctx: typer.Context,
    disk: str,
    method: Annotated[
        str | None, typer.Option(help="sanitize, format, security-erase, discard or overwrite.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Erase a disk for good, by the first method that works; it is not the node's any more then.

    Example: zn disk erase nvme-S4EWNX0N123456
    """
    found = call(ctx.obj, lambda client: client.disk(disk))
    if not found.content:
        raise Failure(f"cannot erase {disk}: {found.why}", ExitCode.REFUSED)
    content = _agree_to_wipe(found, yes)
    try:
        request = msgspec.convert({"content": content, "method": method}, EraseRequest)
    except msgspec.ValidationError as error:
        raise Failure(f"cannot erase {disk}: {error}; see zn disk erase --help", ExitCode.USAGE) from None
    follow(ctx.obj, lambda client: client.erase_disk(disk, request), detach, as_json)


def _agree_to_wipe(disk: Disk, yes: bool) -> str | None:
    """Show what would be destroyed, and ask; returns its name, so that nothing else can be destroyed."""
    if disk.state != "in-use":
        held = [f"  {one.device}: {one.type} {one.label} {one.uuid}".rstrip() for one in disk.holds]
        serial = disk.serial or "not known"
        told = (f"{disk.id}: {disk.model} {size(disk.size)}, serial number {serial}", f"  {disk.why}", *held)
        print_error("\n".join(told))  # --json keeps standard output for itself
        if not yes and not typer.confirm("Destroy all that is on this disk?", err=True):
            raise Failure(f"disk {disk.id} was left as it is", ExitCode.REFUSED)
    return disk.content or None


def _print(disk: Disk, as_json: bool) -> None:
    rows = [
        ("id", disk.id),
        ("state", disk.state),
        ("why", disk.why),
        ("pool", disk.pool or "-"),
        ("device", disk.device),
        ("model", f"{disk.model} {disk.firmware}".strip() or "-"),
        ("serial number", disk.serial or "-"),
        ("world wide name", disk.wwn or "-"),
        ("bus, media", f"{disk.bus}, {disk.media}"),
        ("size", f"{size(disk.size)} ({disk.size} bytes)"),
        ("sectors", f"{disk.logical_sector} bytes, written by {disk.physical_sector}"),
        ("holds", ", ".join(f"{one.type} {one.label} on {one.device}" for one in disk.holds) or "-"),
        ("content", disk.content or "-"),
        ("health", _in_words(disk.health) if disk.health else "it does not say"),
    ]
    print_rows(disk, ("disk", ""), rows, as_json=as_json)


def _in_words(health: Health) -> str:
    told = [health.why]
    told += [] if health.temperature is None else [f"{health.temperature} °C"]
    told += [] if health.wear is None else [f"{health.wear:.0%} of its life used"]
    told += [] if health.power_on_hours is None else [f"{health.power_on_hours} hours on"]
    told += [] if health.media_errors is None else [f"{health.media_errors} errors"]
    return ", ".join(told)
