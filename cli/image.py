"""`zn image`: lock, build, pack, inspect, compare and verify images."""

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from cli.image_report import TerminalReport
from image import build, compare, contents, lock, manifest, oci, resolve, sources, treemap, verify
from image.compare import Change
from image.contents import Contents
from image.errors import ImageError
from image.files import write_atomically
from image.sources import Places

ROOT = Path(__file__).resolve().parent.parent
_VIRT = ROOT / "initramfs/virt.toml"
_BUILT = ROOT / "build/amd64-virt"
_LARGEST = 15


class _Group(TyperGroup):
    """Turns what an operator can mend into one line and exit code 1."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer carries its own Click
        try:
            return super().invoke(ctx)
        except ImageError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(help="Build the images that nodes boot.", no_args_is_help=True, cls=_Group)

ManifestPath = Annotated[Path, typer.Argument(help="The manifest.", show_default="initramfs/virt.toml")]
Arch = Annotated[str, typer.Option(help="Architecture of the image.")]
Mirror = Annotated[str | None, typer.Option(help="URL of Debian's archive; else the one that apt uses here.")]
Snapshot = Annotated[str | None, typer.Option(help="URL of an archive that keeps what the mirror dropped.")]
Locked = Annotated[bool, typer.Option("--locked", help="Refuse to build from anything but the lock.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not use the network.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Folder = Annotated[Path, typer.Argument(help="A build folder.", show_default="build/amd64-virt")]


def cache_folder() -> Path:
    """Where downloads and built parts are kept: $XDG_CACHE_HOME/zeronode, else .cache in the repository."""
    named = os.environ.get("XDG_CACHE_HOME")
    return Path(named) / "zeronode" if named else ROOT / ".cache"


@app.command("lock")
def lock_command(
    path: ManifestPath = _VIRT,
    arch: Arch = "amd64",
    mirror: Mirror = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the change to a lock that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Resolve a manifest with apt and uv; print what changes, and write it if there is no lock yet.

    Exit code 2: the lock would change, and --update was not given.

    Example: zn image lock --update
    """
    target = lock.path_of(path, arch)
    wanted, chosen = manifest.load(path), sources.choose_mirror(mirror)
    old = lock.load(target) if target.exists() else None
    with TerminalReport().step("resolve"):
        new = resolve.resolve(resolve.Question(wanted, arch, ROOT, cache_folder(), chosen))
    changes = lock.difference(old, new)
    typer.echo(_json({"lock": str(target), "changes": changes}) if as_json else "\n".join(changes))
    if old and old != new and not update:
        typer.echo("Not written: give --update to accept the change", err=True)
        raise typer.Exit(2)
    lock.save(new, target)


@app.command("build")
def build_command(
    path: ManifestPath = _VIRT,
    arch: Arch = "amd64",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="[default: build/<arch>-<name>]")
    ] = None,
    mirror: Mirror = None,
    snapshot: Snapshot = None,
    locked: Locked = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Build kernel and initramfs from the lock.

    Example: zn image build
    """
    target = output or ROOT / "build" / f"{arch}-{manifest.load(path).name}"
    places = Places(ROOT, cache_folder(), mirror, snapshot, locked, offline)
    built = build.build(build.Request(path.resolve(), arch, target.resolve(), places), TerminalReport())
    made = contents.load(built)
    facts = {"folder": str(built), "build_id": made.build_id, "substituted": made.substituted}
    typer.echo(_json(facts) if as_json else f"{built} ({made.build_id})")


@app.command("pack")
def pack_command(
    path: Annotated[Path, typer.Argument(help="The manifest of a container.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the OCI layout.")],
    arch: Arch = "amd64",
    mirror: Mirror = None,
    snapshot: Snapshot = None,
    locked: Locked = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Pack a container image from Debian packages as an OCI image layout.

    Example: zn image pack initramfs/demo.toml -o build/demo
    """
    places = Places(ROOT, cache_folder(), mirror, snapshot, locked, offline)
    packed = oci.pack(oci.Request(path.resolve(), arch, output.resolve(), places), TerminalReport())
    typer.echo(_json({"folder": str(packed)}) if as_json else str(packed))


@app.command("inspect")
def inspect_command(
    folder: Folder = _BUILT,
    picture: Annotated[
        Path | None, typer.Option("--treemap", help="Write a treemap to this SVG file.")
    ] = None,
    largest: Annotated[int, typer.Option(help="How many files to show.")] = _LARGEST,
    as_json: Json = False,
) -> None:
    """Show what an image is made of, largest first.

    Example: zn image inspect --treemap image.svg
    """
    made = contents.load(folder)
    if picture:
        write_atomically(picture, treemap.svg(made).encode())
    if as_json:
        typer.echo(msgspec.json.encode(made))
        return
    _print(_outputs_table(made), _packages_table(made), _files_table(made, largest))


@app.command("diff")
def diff_command(
    old: Annotated[Path, typer.Argument(help="A build folder.")],
    new: Annotated[Path, typer.Argument(help="Another build folder.")],
    as_json: Json = False,
) -> None:
    """Show what differs between two builds. Exit code 1 if anything does.

    Example: zn image diff build/amd64-virt.old build/amd64-virt
    """
    found = compare.difference(contents.load(old), contents.load(new))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        _print(
            *(_changes_table(title, rows) for title, rows in msgspec.structs.asdict(found).items() if rows)
        )
    raise typer.Exit(1 if any(msgspec.structs.astuple(found)) else 0)


@app.command("verify")
def verify_command(folder: Folder = _BUILT, as_json: Json = False) -> None:
    """Check a build folder against its checksums and its listing. Exit code 1 if something is wrong.

    Example: zn image verify build/amd64-virt
    """
    found = verify.problems(folder)
    message = "\n".join(found) or f"{folder}: every output and every file is as listed"
    typer.echo(_json({"problems": found}) if as_json else message)
    raise typer.Exit(1 if found else 0)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _print(*tables: Table) -> None:
    console = Console()
    for table in tables:
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    """A table whose first column is text and whose last is a size."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in ("bytes", "growth", "in image") else "left")
    return table


def _outputs_table(made: Contents) -> Table:
    table = _table(
        f"{made.arch}-{made.name} {made.version}, build {made.build_id}", "output", "bytes", "sha256"
    )
    for name, output in made.outputs.items():
        table.add_row(name, f"{output.size:,}", output.sha256[:16])
    return table


def _packages_table(made: Contents) -> Table:
    table = _table("Packages", "package", "version", "kind", "in image", "licence")
    for package in sorted(made.packages, key=lambda package: -package.installed):
        row = (package.name, package.version, package.kind, f"{package.installed:,}", package.licence[:40])
        table.add_row(*row)
    return table


def _files_table(made: Contents, largest: int) -> Table:
    table = _table(f"The {largest} largest of {len(made.files)} paths", "file", "from", "bytes")
    for file in sorted(made.files, key=lambda file: -file.size)[:largest]:
        table.add_row(f"/{file.path}", file.origin, f"{file.size:,}")
    return table


def _changes_table(title: str, rows: tuple[Change, ...]) -> Table:
    table = _table(title.capitalize(), "name", "old", "new", "growth")
    for row in rows:
        table.add_row(row.name, row.old or "-", row.new or "-", f"{row.growth:+,}")
    return table


if __name__ == "__main__":
    app()
