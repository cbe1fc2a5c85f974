"""`zn file` and `zn cp`: the files of a container, by way of its Core-X."""

import asyncio
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Annotated

import typer

from cli.connect import call_corex, corex_client
from cli.outcome import ExitCode, Failure
from cli.output import Json, output_to, print_line, print_rows, time_of
from cli.sizes import size
from corex.client.client import Client, RefusedError
from corex.wire.files import FileInfo

app = typer.Typer(help="See and change the files of a container.", no_args_is_help=True)

Container = Annotated[str, typer.Argument(help="The container's name.")]
Place = Annotated[str, typer.Argument(metavar="PATH", help="An absolute path in the container.")]
Owner = Annotated[
    str | None, typer.Option(help="Whose it is: uid, uid:gid, name or name:group. Root's without.")
]
Mode = Annotated[str | None, typer.Option(help="Permissions in octal.")]


@app.command("ls")
def list_files(ctx: typer.Context, container: Container, path: Place = "/", as_json: Json = False) -> None:
    """List a folder of a container.

    Example: zn file ls demo /etc
    """

    async def work(client: Client) -> list[FileInfo]:
        found, after = [], ""
        while True:
            page = await client.folder(path, after)
            found += page.entries
            if page.next is None:
                return found
            after = page.next

    found = call_corex(ctx.obj, container, work)
    rows = [
        (one.mode, one.kind, f"{one.uid}:{one.gid}", size(one.size), _time(one), _shown(one)) for one in found
    ]
    print_rows(
        found,
        ("mode", "kind", "owner", "size", "modified", "name"),
        rows,
        "the folder is empty",
        as_json=as_json,
    )


@app.command()
def show(ctx: typer.Context, container: Container, path: Place, as_json: Json = False) -> None:
    """Show what is at a path.

    Example: zn file show demo /etc/passwd
    """
    info = call_corex(ctx.obj, container, lambda client: client.stat(path))
    rows = [
        ("name", _shown(info)),
        ("kind", info.kind),
        ("size", f"{size(info.size)} ({info.size} bytes)"),
        ("mode", info.mode),
        ("owner", f"{info.uid}:{info.gid}"),
        ("modified", _time(info)),
    ]
    print_rows(info, ("what", "value"), rows, as_json=as_json)


@app.command()
def cat(ctx: typer.Context, container: Container, path: Place) -> None:
    """Print a file.

    Example: zn file cat demo /etc/hosts
    """

    async def work(client: Client) -> None:
        with output_to(sys.stdout) as write:
            async with client.open_file(path) as pieces:
                async for piece in pieces:
                    write(piece)

    call_corex(ctx.obj, container, work)


@app.command()
def mkdir(
    ctx: typer.Context,
    container: Container,
    path: Place,
    mode: Mode = "0755",
    owner: Owner = None,
    parents: Annotated[bool, typer.Option("--parents", "-p", help="Make those above it, too.")] = False,
) -> None:
    """Make a folder, if it is not there.

    Example: zn file mkdir demo /srv/data --owner web
    """
    call_corex(
        ctx.obj,
        container,
        lambda client: client.make_folder(path, mode=mode or "0755", owner=owner, parents=parents),
    )


@app.command()
def rm(
    ctx: typer.Context,
    container: Container,
    path: Place,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="A folder with all that is in it.")
    ] = False,
) -> None:
    """Delete a file, or a folder.

    Example: zn file rm demo /tmp/old --recursive
    """

    async def work(client: Client) -> int:
        if (await client.stat(path)).kind == "folder":
            return (await client.delete_folder(path, recursive=recursive)).entries
        await client.delete_file(path)
        return 1

    print_line(f"Deleted {call_corex(ctx.obj, container, work)}")


def copy(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="A local path, or CONTAINER:/PATH.")],
    target: Annotated[str, typer.Argument(help="The same; one of the two is in a container.")],
    mode: Mode = None,
    owner: Owner = None,
) -> None:
    """Copy a file or a folder into a container, or out of one. A file appears there whole or not at all.

    Into a folder that is there it keeps its name. What is replaced in the container keeps its owner and its mode, if
    none is given.

    Example: zn cp nginx.conf demo:/etc/nginx/ --owner www-data
    """
    (from_where, there), (to_where, here) = _place(source), _place(target)
    if bool(from_where) == bool(to_where):
        raise Failure("cannot copy: one of the two must be CONTAINER:/PATH, and one not", ExitCode.USAGE)

    async def work() -> str:
        async with corex_client(ctx.obj, from_where or to_where) as client:
            if from_where:
                return await _fetch(client, there, Path(here))
            return await _send(client, Path(there), here, mode, owner)

    print_line(f"Copied to {asyncio.run(work())}")


async def _fetch(client: Client, path: str, target: Path) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    goal = target / (name or "root") if target.is_dir() else target
    if path.strip("/.") == "" or (await client.stat(path)).kind == "folder":
        with tempfile.TemporaryFile() as packed:
            async with client.open_archive(path) as pieces:
                await _write(pieces, packed)
            packed.seek(0)
            goal.mkdir(exist_ok=True)
            with tarfile.open(fileobj=packed, errors="surrogateescape") as archive:
                archive.extractall(goal, filter="data")
        return str(goal)
    with tempfile.NamedTemporaryFile(dir=goal.parent, prefix=".zn-", delete=False) as whole:
        try:
            async with client.open_file(path) as pieces:
                await _write(pieces, whole)
            Path(whole.name).chmod(0o644)
            Path(whole.name).replace(goal)
        except BaseException:
            Path(whole.name).unlink()
            raise
    return str(goal)


async def _send(client: Client, source: Path, path: str, mode: str | None, owner: str | None) -> str:
    if not source.exists():
        raise Failure(f"cannot copy {str(source)!a}: it is not there", ExitCode.USAGE)
    if await _is_folder(client, path):
        path = f"{path.rstrip('/')}/{source.resolve().name}"
    if not source.is_dir():
        with source.open("rb") as file:
            await client.write_file(path, file, mode=mode, owner=owner)
        return path
    await client.make_folder(path, owner=owner, mode=mode or "0755")
    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(source, ".")
        packed.seek(0)
        await client.unpack(path, packed, owner=owner)
    return path


async def _is_folder(client: Client, path: str) -> bool:
    if not path.strip("/."):
        return True
    try:
        return (await client.stat(path)).kind == "folder"
    except RefusedError as error:
        if error.problem.status == 404 and not path.endswith("/"):
            return False
        raise


async def _write(pieces: AsyncIterator[bytes], file: IO[bytes]) -> None:
    async for piece in pieces:
        file.write(piece)
    file.flush()


def _place(text: str) -> tuple[str, str]:
    """The container and the path in it, or nothing and a local path."""
    container, colon, path = text.partition(":")
    if colon and path.startswith("/") and "/" not in container and container:
        return container, path
    return "", text


def _time(info: FileInfo) -> str:
    """A container gives its files any time it likes."""
    try:
        return time_of(info.modified)
    except (ValueError, OverflowError, OSError):
        return f"{info.modified:.0f} s since 1970"


def _shown(info: FileInfo) -> str:
    return f"{info.name} -> {info.target}" if info.kind == "link" else info.name


cp_app = typer.Typer()
cp_app.command()(copy)
