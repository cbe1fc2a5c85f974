"""`zn volume`: the volumes of a node."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli.connect import call
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_line, print_rows, print_table, time_of
from cli.sizes import bytes_of, size
from cli.transfer import Export, export_snapshot, import_stream
from core0.wire.volumes import SMALLEST, ImportRequest, IoLimits, Volume, VolumeSpec

app = typer.Typer(no_args_is_help=True)

Pool = Annotated[str | None, typer.Option(help="Which one, if two pools have a volume of that name.")]
Size = Annotated[str, typer.Argument(help="As 20G.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Rate = Annotated[str | None, typer.Option(help="Bytes per second to or from each disk of the pool, as 50M.")]
Count = Annotated[int | None, typer.Option(help="Operations per second on each disk of the pool.")]


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the volumes.

    Example: zn volume ls
    """
    found = call(ctx.obj, lambda client: client.volumes())
    rows = [
        (
            one.name,
            one.pool or "memory",
            one.state,
            size(one.size),
            size(one.used),
            str(len(one.snapshots)),
            ", ".join(one.containers) or "-",
            one.why,
        )
        for one in found
    ]
    columns = ("volume", "pool", "state", "size", "used", "snapshots", "containers", "why")
    print_rows(found, columns, rows, "no volumes", as_json=as_json)


@app.command()
def show(ctx: typer.Context, name: str, pool: Pool = None, as_json: Json = False) -> None:
    """Show one volume and its snapshots.

    Example: zn volume show data
    """
    _print(call(ctx.obj, lambda client: client.volume(name, pool)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    size: Size,
    pool: Annotated[str | None, typer.Option(help="Where it lies.")] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="In the node's memory, where it ends with the boot.")
    ] = False,
    read_bps: Rate = None,
    write_bps: Rate = None,
    read_iops: Count = None,
    write_iops: Count = None,
    as_json: Json = False,
) -> None:
    """Make a volume on a pool, or in the node's memory.

    Example: zn volume create data 20G --pool fast
    """
    if (pool is None) != memory:
        raise Failure("cannot tell where the volume shall lie: give --pool or --memory", ExitCode.USAGE)
    io = _limits(read_bps, write_bps, read_iops, write_iops)
    spec = _spec(size=bytes_of(size), pool=pool, io=io)
    _print(call(ctx.obj, lambda client: client.put_volume(name, spec, new=True)), as_json)


@app.command()
def resize(ctx: typer.Context, name: str, size: Size, pool: Pool = None, as_json: Json = False) -> None:
    """Give a volume another size: larger, or as small as what it holds.

    Example: zn volume resize data 40G
    """
    before = call(ctx.obj, lambda client: client.volume(name, pool))
    spec = _spec(size=bytes_of(size), pool=before.pool, io=before.io)
    _print(call(ctx.obj, lambda client: client.put_volume(name, spec)), as_json)


@app.command()
def limit(
    ctx: typer.Context,
    name: str,
    read_bps: Rate = None,
    write_bps: Rate = None,
    read_iops: Count = None,
    write_iops: Count = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Limit what containers move to and from a volume; what is not given has no limit any more.

    Example: zn volume limit data --write-bps 50M
    """
    before = call(ctx.obj, lambda client: client.volume(name, pool))
    io = _limits(read_bps, write_bps, read_iops, write_iops)
    spec = _spec(size=before.size, pool=before.pool, io=io)
    _print(call(ctx.obj, lambda client: client.put_volume(name, spec)), as_json)


@app.command()
def rm(
    ctx: typer.Context,
    name: str,
    snapshot: Annotated[str | None, typer.Option(help="Delete this snapshot only.")] = None,
    snapshots: Annotated[bool, typer.Option("--snapshots", help="Delete its snapshots, too.")] = False,
    yes: Yes = False,
    pool: Pool = None,
) -> None:
    """Delete a volume with everything in it, or one of its snapshots.

    Example: zn volume rm data --snapshot monday
    """
    if snapshot:
        _agree(f"Delete snapshot {snapshot} of volume {name}?", yes)
        call(ctx.obj, lambda client: client.delete_snapshot(name, snapshot, pool))
        print_line(f"snapshot {snapshot} of volume {name} is deleted")
        return
    _print(call(ctx.obj, lambda client: client.volume(name, pool)), False)
    _agree(f"Delete volume {name} and everything in it?", yes)
    call(ctx.obj, lambda client: client.delete_volume(name, pool, snapshots=snapshots))
    print_line(f"volume {name} is deleted")


@app.command()
def snapshot(ctx: typer.Context, name: str, snapshot: str, pool: Pool = None, as_json: Json = False) -> None:
    """Take a snapshot of a volume.

    Example: zn volume snapshot data monday
    """
    _print(call(ctx.obj, lambda client: client.take_snapshot(name, snapshot, pool)), as_json)


@app.command()
def clone(
    ctx: typer.Context,
    source: str,
    name: str,
    snapshot: Annotated[str | None, typer.Option(help="Copy this snapshot, not the volume as it is.")] = None,
    size: Annotated[str | None, typer.Option(help="Another size than the source's, as 40G.")] = None,
    pool: Pool = None,
    as_json: Json = False,
) -> None:
    """Make a volume that begins as a copy; it takes space only as the two begin to differ.

    Example: zn volume clone data try --snapshot monday
    """
    before = call(ctx.obj, lambda client: client.volume(source, pool))
    origin = {"volume": source, "snapshot": snapshot}
    wanted = bytes_of(size) if size else before.size
    spec = _spec(size=wanted, pool=before.pool, io=before.io, **{"from": origin})
    _print(call(ctx.obj, lambda client: client.put_volume(name, spec, new=True)), as_json)


@app.command()
def rollback(
    ctx: typer.Context, name: str, snapshot: str, yes: Yes = False, pool: Pool = None, as_json: Json = False
) -> None:
    """Give a volume a snapshot's content; what was written since is lost.

    Example: zn volume rollback data monday
    """
    _agree(f"Lose everything that was written to volume {name} after snapshot {snapshot}?", yes)
    _print(call(ctx.obj, lambda client: client.roll_back(name, snapshot, pool)), as_json)


@app.command()
def export(
    ctx: typer.Context,
    name: str,
    snapshot: str,
    file: Annotated[
        Path,
        typer.Argument(help="Where to; what an earlier try left there is gone on with. '-' is the output."),
    ],
    base: Annotated[str | None, typer.Option(help="Only what differs from this earlier snapshot.")] = None,
    pool: Pool = None,
) -> None:
    """Write a snapshot to a file, as the stream that 'btrfs send' makes.

    Example: zn volume export data monday data.stream
    """
    export_snapshot(ctx.obj, Export(name, snapshot, base, pool), file)


@app.command("import")
def import_(
    ctx: typer.Context,
    name: str,
    snapshot: Annotated[str, typer.Argument(help="What the stream shall be called.")],
    file: Annotated[Path, typer.Argument(help="The stream; '-' is the input.")],
    size: Annotated[str | None, typer.Option(help="Make the volume, of this size, as 20G.")] = None,
    pool: Annotated[str | None, typer.Option(help="Where the volume lies, or shall lie.")] = None,
    as_json: Json = False,
) -> None:
    """Make a volume, or a snapshot of one that is there, of a stream. The same again goes on where it was lost.

    Example: zn volume import copy monday data.stream --size 20G --pool fast
    """
    made = _spec(size=bytes_of(size), pool=pool) if size else None
    _print(import_stream(ctx.obj, name, ImportRequest(snapshot, made), file, pool), as_json)


def _agree(question: str, yes: bool) -> None:
    if not yes and not typer.confirm(question):
        raise Failure("nothing was changed", ExitCode.REFUSED)


def _limits(
    read_bps: str | None, write_bps: str | None, read_iops: int | None, write_iops: int | None
) -> dict[str, int | None]:
    return {
        "read_bps": bytes_of(read_bps) if read_bps else None,
        "write_bps": bytes_of(write_bps) if write_bps else None,
        "read_iops": read_iops,
        "write_iops": write_iops,
    }


def _spec(**given: object) -> VolumeSpec:
    """The spec, checked here as the node will check it. Raises Failure (usage)."""
    if isinstance(wanted := given["size"], int) and wanted < SMALLEST:
        said = f"cannot ask for a volume of {size(wanted)}: {size(SMALLEST)} is the least"
        raise Failure(said, ExitCode.USAGE)
    try:
        return msgspec.convert(given, VolumeSpec, from_attributes=True)
    except msgspec.ValidationError as error:
        raise Failure(f"cannot ask for the volume: {error}; see zn volume --help", ExitCode.USAGE) from None


def _print(volume: Volume, as_json: bool) -> None:
    if as_json:
        print_json(volume)
        return
    origin = volume.origin
    rows = [
        ("name", volume.name),
        ("state", volume.state),
        ("why", volume.why),
        ("pool", volume.pool or "memory"),
        ("size", f"{size(volume.size)} ({volume.size} bytes)"),
        ("used", f"{size(volume.used)} ({volume.used} bytes)"),
        ("limits", _in_words(volume.io)),
        ("copy of", f"{origin.volume} {origin.snapshot or ''}".strip() if origin else "-"),
        ("containers", ", ".join(volume.containers) or "-"),
    ]
    print_table(("volume", ""), rows)
    snapshots = [(one.name, time_of(one.created), one.id) for one in volume.snapshots]
    print_table(("snapshot", "taken", "id"), snapshots, "no snapshots")


def _in_words(io: IoLimits) -> str:
    given = (
        (f"read {size(io.read_bps)}/s" if io.read_bps else ""),
        (f"write {size(io.write_bps)}/s" if io.write_bps else ""),
        (f"{io.read_iops} reads/s" if io.read_iops else ""),
        (f"{io.write_iops} writes/s" if io.write_iops else ""),
    )
    return ", ".join(filter(None, given)) or "-"
