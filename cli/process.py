"""`zn process`: the processes inside a container, by way of its Core-X."""

import base64
import os
import sys
from typing import Annotated, TextIO

import typer

from cli import plan
from cli.connect import call_corex
from cli.login import login, logout
from cli.logs import logs
from cli.outcome import ExitCode, Failure
from cli.output import Json, output_to, print_error, print_json, print_line, print_rows
from cli.process_declare import BeforeCommand, edit, put, rm
from cli.process_events import events
from cli.process_shown import COLUMNS, facts, report, row
from cli.process_spec import environment
from cli.terminal import KEEP, attach, hangup, run, sessions, window
from corex.process.model import exit_code_of
from corex.wire.api import ExecRequest, Output
from corex.wire.sessions import SessionSpec

app = typer.Typer(help="Manage the processes inside a container.", no_args_is_help=True)

Container = Annotated[str, typer.Argument(help="The container's name.")]
Name = Annotated[str, typer.Argument(help="The process's name.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait until it is done.", min=0, max=300)]
_TIMEOUT = 60.0
_TIMED_OUT = 124  # as timeout(1) has it
# What programs take this terminal for, where nobody says.
_TERMINAL = {"TERM": os.environ.get("TERM", "xterm-256color")}
# Seconds that a command with standard input waits for a connection that broke.
_COME_BACK = 60.0


@app.command("ls")
def list_processes(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """List a container's processes and why each is in its state.

    Example: zn process ls demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.processes())
    rows = [row(info) for info in found]
    print_rows(found, COLUMNS, rows, "no process is declared", as_json=as_json)


@app.command()
def show(ctx: typer.Context, container: Container, name: Name, as_json: Json = False) -> None:
    """Show one process: its state, its figures and its specification.

    Example: zn process show demo web
    """
    info = call_corex(ctx.obj, container, lambda client: client.process(name))
    print_rows(info, ("what", "value"), facts(info), as_json=as_json)


@app.command()
def start(
    ctx: typer.Context, container: Container, name: Name, wait: Wait = 30, as_json: Json = False
) -> None:
    """Start a process.

    Example: zn process start demo web
    """
    info = call_corex(ctx.obj, container, lambda client: client.start(name, wait))
    report(info, as_json=as_json, failed=info.state in ("failed", "backoff"))


@app.command()
def stop(
    ctx: typer.Context, container: Container, name: Name, wait: Wait = 60, as_json: Json = False
) -> None:
    """Stop a process: its stop signal, and SIGKILL after its time-out.

    Example: zn process stop demo web
    """
    info = call_corex(ctx.obj, container, lambda client: client.stop(name, wait))
    report(info, as_json=as_json, failed=info.state == "stopping")


@app.command()
def restart(
    ctx: typer.Context, container: Container, name: Name, wait: Wait = 60, as_json: Json = False
) -> None:
    """Stop a process if it runs, then start it.

    Example: zn process restart demo web
    """
    info = call_corex(ctx.obj, container, lambda client: client.restart(name, wait))
    report(info, as_json=as_json, failed=info.state in ("failed", "backoff", "stopping"))


@app.command()
def reset(
    ctx: typer.Context, container: Container, name: Name, wait: Wait = 30, as_json: Json = False
) -> None:
    """Forget the failures of a process that was mended; it starts now if it is meant to run.

    Example: zn process reset demo web
    """
    info = call_corex(ctx.obj, container, lambda client: client.reset(name, wait))
    report(info, as_json=as_json, failed=info.state in ("failed", "backoff"))


@app.command()
def signal(
    ctx: typer.Context,
    container: Container,
    name: Name,
    which: Annotated[str, typer.Argument(metavar="SIGNAL", help="Name or number, as in signal(7).")],
) -> None:
    """Send a signal to a process and its group.

    Example: zn process signal demo web HUP
    """
    call_corex(ctx.obj, container, lambda client: client.signal(name, which))
    print_line(f"Sent {which} to {name}")


@app.command("exec")
def execute(
    ctx: typer.Context,
    container: Container,
    argv: Annotated[list[str], typer.Argument(help="The command, after '--'.", show_default=False)],
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE, repeatable.")] = None,
    cwd: Annotated[str, typer.Option(help="Working directory inside the container.")] = "/",
    user: Annotated[str, typer.Option("--user", "-u", help="uid, uid:gid, name or name:group.")] = "0",
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input on.")] = False,
    terminal: Annotated[
        bool, typer.Option("--tty", "-t", help="Give it this terminal; Ctrl-] leaves it to itself.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds until it is killed.", min=0.1, max=3600, show_default="60")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a command to its end; ends with the command's own exit code.

    A death by signal ends with 128 + its number, a time-out with 124. With a terminal, or with standard input, it has
    no time-out, and output comes as it is written.

    Example: zn exec -it demo -- sh
    """
    if terminal or stdin:
        if as_json or timeout is not None:
            raise Failure("cannot use --json or --timeout with --stdin or --tty", ExitCode.USAGE)
        given = environment(env or [])
        size = window() if terminal else None
        spec = SessionSpec(
            tuple(argv),
            {**_TERMINAL, **given} if terminal else given,
            cwd,
            user,
            size,
            KEEP if terminal else _COME_BACK,
        )
        raise typer.Exit(run(ctx.obj, container, spec))
    request = ExecRequest(tuple(argv), environment(env or []), cwd, user, "", timeout or _TIMEOUT)
    result = call_corex(ctx.obj, container, lambda client: client.execute(request))
    if as_json:
        print_json(result)
        return
    _write(result.stdout, sys.stdout)
    _write(result.stderr, sys.stderr)
    raise typer.Exit(_TIMED_OUT if result.timed_out else exit_code_of(result.exit))


app.command(cls=BeforeCommand)(put)
for verb in (edit, rm, logs, attach, events, sessions, hangup, *plan.VERBS, login, logout):
    app.command()(verb)
exec_app = typer.Typer()
exec_app.command()(execute)


def _write(output: Output, stream: TextIO) -> None:
    data = base64.b64decode(output.data) if output.encoding == "base64" else output.data.encode()
    with output_to(stream) as write:
        write(data)
    if output.truncated:
        print_error("zn: the output was longer than Core-X keeps and is cut here")
