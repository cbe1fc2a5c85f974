"""`zn image`: lock, build, pack, inspect, compare and verify images."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli.image_report import TerminalReport
from cli.outcome import Failure
from cli.output import Json, print_json, print_line, print_table, print_text
from image import build, compare, contents, lock, manifest, oci, resolve, sources, treemap, verify
from image.compare import Change
from image.contents import Contents
from image.files import write_atomically
from image.sources import Places

ROOT = Path(__file__).resolve().parent.parent
_VIRT = ROOT / "initramfs/virt.toml"
_BUILT = ROOT / "build/amd64-virt"
_LARGEST = 15


app = typer.Typer(help="Build the images that nodes boot.", no_args_is_help=True)

ManifestPath = Annotated[Path, typer.Argument(help="The manifest.", show_default="initramfs/virt.toml")]
Arch = Annotated[str, typer.Option(help="Architecture of the image.")]
Mirror = Annotated[str | None, typer.Option(help="URL of Debian's archive; else the one that apt uses here.")]
Snapshot = Annotated[str | None, typer.Option(help="URL of an archive that keeps what the mirror dropped.")]
Locked = Annotated[bool, typer.Option("--locked", help="Refuse to build from anything but the lock.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not use the network.")]
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

    A lock that is there changes only with --update; without it a difference is a failure.

    Example: zn image lock --update
    """
    target = lock.path_of(path, arch)
    wanted, chosen = manifest.load(path), sources.choose_mirror(mirror)
    old = lock.load(target) if target.exists() else None
    with TerminalReport().step("resolve"):
        new = resolve.resolve(resolve.Question(wanted, arch, ROOT, cache_folder(), chosen))
    changes = lock.difference(old, new)
    _tell(as_json, {"lock": target, "changes": changes}, *changes)
    if old and old != new and not update:
        raise Failure(f"cannot write {target}: it would change; give --update to accept the change")
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
    facts = {"folder": built, "build_id": made.build_id, "substituted": made.substituted}
    _tell(as_json, facts, f"{built} ({made.build_id})")


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
    _tell(as_json, {"folder": packed}, str(packed))


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
        print_json(made)
        return
    _show_outputs(made)
    _show_packages(made)
    _show_files(made, largest)


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
        print_json(found)
    else:
        for title, rows in msgspec.structs.asdict(found).items():
            _show_changes(title, rows)
    raise typer.Exit(1 if any(msgspec.structs.astuple(found)) else 0)


@app.command("verify")
def verify_command(folder: Folder = _BUILT, as_json: Json = False) -> None:
    """Check a build folder against its checksums and its listing. Exit code 1 if something is wrong.

    Example: zn image verify build/amd64-virt
    """
    found = verify.problems(folder)
    _tell(as_json, {"problems": found}, *found)
    if found:
        raise Failure(f"cannot trust {folder}: {len(found)} problems; build it again")
    if not as_json:
        print_line(f"{folder}: every output and every file is as listed")


def _tell(as_json: bool, facts: object, *lines: str) -> None:
    if as_json:
        print_json(facts)
        return
    for line in lines:
        print_line(line)


def _show_outputs(made: Contents) -> None:
    print_text(f"{made.arch}-{made.name} {made.version}, build {made.build_id}\n")
    rows = [(name, f"{output.size:>12,}", output.sha256[:16]) for name, output in made.outputs.items()]
    print_table(("output", "       bytes", "sha256"), rows)


def _show_packages(made: Contents) -> None:
    print_line("")
    rows = [
        (package.name, package.version, package.kind, f"{package.installed:>12,}", package.licence[:40])
        for package in sorted(made.packages, key=lambda package: -package.installed)
    ]
    print_table(("package", "version", "kind", "    in image", "licence"), rows)


def _show_files(made: Contents, largest: int) -> None:
    print_text(f"\nThe {largest} largest of {len(made.unpacked)} paths:\n")
    files = sorted(made.unpacked, key=lambda file: -file.size)[:largest]
    print_table(("       bytes", "file"), [(f"{file.size:>12,}", f"/{file.path}") for file in files])


def _show_changes(title: str, changes: tuple[Change, ...]) -> None:
    if changes:
        print_line(f"{title}:")
        rows = [(f"{row.growth:>+12,}", row.name, row.old or "-", row.new or "-") for row in changes]
        print_table(("      growth", "name", "old", "new"), rows)
