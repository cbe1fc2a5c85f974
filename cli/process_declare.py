"""`zn process put`, `edit` and `rm`: which processes a container has, and what each of them runs."""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperCommand

from cli.connect import call_corex
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_line
from cli.process_shown import report
from cli.process_spec import conditions, environment, read, spec_of
from corex.client.client import Client
from corex.wire.api import ProcessInfo
from corex.wire.health import RestartPolicy
from corex.wire.process import Kind, ProcessSpec

Container = Annotated[str, typer.Argument(help="The container's name.")]
Name = Annotated[str, typer.Argument(help="The process's name.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait until it is done.", min=0, max=300)]
_COMMAND = "cli.process_declare.command"
# Of those that say what runs, to tell them from the rest.
_FIELDS = ("env", "cwd", "user", "restart", "kind", "after", "tty")


class BeforeCommand(TyperCommand):
    """What follows `--` is a command for the container, and no argument of this one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set what follows aside."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_COMMAND] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line, with the command."""
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


def put(
    ctx: typer.Context,
    container: Container,
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(help="Its specification as JSON, '-' for standard input; or give a command."),
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, repeatable.")] = None,
    cwd: Annotated[str, typer.Option(help="Working directory inside the container.")] = "/",
    user: Annotated[str, typer.Option("--user", "-u", help="uid, uid:gid, name or name:group.")] = "0",
    restart: Annotated[RestartPolicy, typer.Option(help="What follows its end.")] = "never",
    kind: Annotated[Kind, typer.Option(help="Whether it runs on, or ends.")] = "service",
    after: Annotated[
        list[str] | None,
        typer.Option(help="NAME=CONDITION, repeatable: what it starts after, as in db=ready."),
    ] = None,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Run it on a terminal to attach to.")] = False,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Refuse if there is one already.")] = False,
    start: Annotated[
        bool,
        typer.Option("--start", help="Start it then; restart one that runs what it should not any more."),
    ] = False,
    wait: Wait = 30,
    as_json: Json = False,
) -> None:
    """Declare a process, or replace what it runs: by a command and options, or by a file that has every field.

    What runs keeps its old specification until its next start.

    Example: zn process put demo web --user web --restart always --after db=ready --start -- nginx -g 'daemon off;'
    """
    argv = ctx.meta[_COMMAND]
    if bool(argv) == (file is not None):
        raise Failure("cannot declare it: give either FILE or '--' and a command", ExitCode.USAGE)
    if file is not None:
        _only_a_file(ctx)
        spec = read(file, ProcessSpec)
    else:
        given = {"cwd": cwd, "user": user, "restart": restart, "kind": kind, "tty": tty}
        spec = spec_of(argv=argv, env=environment(env or []), after=conditions(after or []), **given)

    async def work(client: Client) -> ProcessInfo:
        info = await client.put(name, spec, new=if_absent)
        if not start:
            return info
        return await (client.restart if info.outdated else client.start)(name, wait)

    info = call_corex(ctx.obj, container, work)
    report(info, as_json=as_json, failed=start and info.state in ("failed", "backoff", "stopping"))


def edit(ctx: typer.Context, container: Container, name: Name, as_json: Json = False) -> None:
    """Change what a process runs in an editor ($VISUAL or $EDITOR, else vi); what others changed meanwhile stays.

    What runs keeps its old specification until its next start. What is refused is kept in a file.

    Example: zn process edit demo web
    """
    found = call_corex(ctx.obj, container, lambda client: client.process_with_etag(name))
    before = found.value.spec
    text = msgspec.json.format(msgspec.json.encode(before), indent=2) + b"\n"
    descriptor, place = tempfile.mkstemp(prefix=f"{name}-", suffix=".json")
    file = Path(place)
    with os.fdopen(descriptor, "wb") as out:
        out.write(text)
    try:
        _open_editor(file)
        spec = read(file, ProcessSpec)
        if spec == before:
            print_line("nothing changed")
        else:
            info = call_corex(ctx.obj, container, lambda client: client.put(name, spec, etag=found.etag))
            report(info, as_json=as_json, failed=False)
    except BaseException as error:
        if file.read_bytes() == text:
            file.unlink()
        else:
            error.add_note(f"what you wrote is in {file}; zn process put {container} {name} {file} takes it")
        raise
    file.unlink()


def rm(
    ctx: typer.Context,
    container: Container,
    name: Name,
    stop: Annotated[bool, typer.Option("--stop", help="Stop it before.")] = False,
    wait: Wait = 60,
) -> None:
    """Forget a process that does not run, and its log.

    Example: zn process rm demo web --stop
    """

    async def work(client: Client) -> None:
        if stop:
            await client.stop(name, wait)
        await client.delete(name)

    call_corex(ctx.obj, container, work)
    print_line(f"{name} is forgotten")


def _only_a_file(ctx: typer.Context) -> None:
    """Raises Failure (usage): options that say what runs were given, too."""
    for name in _FIELDS:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise Failure(f"cannot use --{name} with FILE: the file says all of it", ExitCode.USAGE)


def _open_editor(file: Path) -> None:
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        done = subprocess.run([*words, str(file)], check=False)
    except OSError as error:
        raise Failure(f"cannot run the editor {words[0]}: {error.strerror}; set $EDITOR") from None
    if done.returncode:
        raise Failure(f"cannot go on: the editor ended with {done.returncode}")
