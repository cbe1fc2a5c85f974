"""`zn image`: lock, build, inspect, compare and verify images."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from image import build as builder
from image import lock, manifest, oci, resolve, sources
from image.report import Report
from image.sources import Places

app = typer.Typer(help="Build the images that nodes boot.", no_args_is_help=True)
_ROOT = Path(__file__).resolve().parent.parent
_VIRT = _ROOT / "initramfs/virt.toml"

_err = Console(stderr=True, highlight=False)
Manifest = Annotated[Path, typer.Argument(help="The manifest.", show_default="initramfs/virt.toml")]
Arch = Annotated[str, typer.Option(help="Architecture of the image.")]
Mirror = Annotated[str | None, typer.Option(help="URL of Debian's main archive, instead of this machine's.")]


def cache_folder() -> Path:
    """Where downloads and built parts are kept: $XDG_CACHE_HOME/zeronode, else .cache in the repository."""
    named = os.environ.get("XDG_CACHE_HOME")
    return Path(named) / "zeronode" if named else _ROOT / ".cache"


@app.command("lock")
def lock_command(
    path: Manifest = _VIRT,
    arch: Arch = "amd64",
    mirror: Mirror = None,
    update: Annotated[bool, typer.Option("--update", help="Replace a lock that is there.")] = False,
) -> None:
    """Resolve a manifest with apt and uv and write every file's checksum.

    Example: zn image lock --update
    """
    target = lock.path_of(path, arch)
    wanted = manifest.load(path)
    chosen = sources.choose_mirror(mirror)
    new = resolve.resolve(resolve.Question(wanted, arch, _ROOT, cache_folder(), chosen))
    old = lock.load(target) if target.exists() else None
    for line in lock.difference(old, new):
        typer.echo(line)
    if old and not update:
        raise typer.Exit(1)
    lock.save(new, target)


@app.command("build")
def build_command(path: Manifest = _VIRT, arch: Arch = "amd64", mirror: Mirror = None) -> None:
    """Build kernel and initramfs from the lock.

    Example: zn image build
    """
    wanted = manifest.load(path)
    output = _ROOT / "build" / f"{arch}-{wanted.name}"
    request = builder.Request(path.resolve(), arch, output, Places(_ROOT, cache_folder(), mirror))
    typer.echo(builder.build(request, Report()))


@app.command("pack")
def pack_command(
    path: Annotated[Path, typer.Argument(help="The manifest of a container.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the OCI layout.")],
    arch: Arch = "amd64",
    mirror: Mirror = None,
) -> None:
    """Pack a container image from Debian packages as an OCI image layout.

    Example: zn image pack initramfs/demo.toml -o build/demo
    """
    request = oci.Request(path.resolve(), arch, output.resolve(), Places(_ROOT, cache_folder(), mirror))
    typer.echo(oci.pack(request, Report()))


if __name__ == "__main__":
    sys.exit(app())
