"""`zn node`: see and steer a node."""

import datetime
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from cli.config import apply as apply_config
from cli.connect import call
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_json_line, print_line, print_rows, print_table
from core0.client.client import NodeClient
from core0.wire.state import StateStatus
from core0.wire.storage import Reset
from core0.wire.types import Events, PowerRequest

app = typer.Typer(no_args_is_help=True)
# What a node's config is about is the node: both ways to say it are the same.
app.command("apply")(apply_config)


@app.command()
def show(ctx: typer.Context, as_json: Json = False) -> None:
    """Show what the node is.

    Example: zn node show
    """
    node = call(ctx.obj, lambda client: client.node())
    rows = [
        ("host name", node.hostname),
        ("fingerprint", f"sha256:{node.fingerprint}"),
        ("identity", "ends with this boot" if node.ephemeral else "kept on the node's disks"),
        ("version", f"{node.version} (build {node.build})"),
        ("kernel", f"{node.kernel} {node.architecture}"),
        ("processors", node.cpus),
        ("memory", _mebibytes(node.memory_bytes)),
        ("up", str(datetime.timedelta(seconds=int(node.uptime_seconds)))),
        ("addresses", ", ".join(f"{one.interface} on {one.link}" for one in node.addresses) or "none"),
    ]
    print_rows(node, ("node", ""), rows, as_json=as_json)


@app.command()
def health(ctx: typer.Context, as_json: Json = False) -> None:
    """Show whether the node can do its work, and the memory of its own processes. Exit code 1 if it cannot.

    Example: zn node health
    """
    found = call(ctx.obj, lambda client: client.health())
    if as_json:
        print_json(found)
    else:
        print_table(
            ("check", "state", "why"),
            [(check.name, "ok" if check.ok else "FAILED", check.why) for check in found.checks],
        )
        print_table(
            ("process", "pid", "memory"),
            [(one.name, one.pid, _mebibytes(one.proportional_bytes)) for one in found.processes],
        )
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def boot(ctx: typer.Context, as_json: Json = False) -> None:
    """Show how this boot went, phase by phase, in seconds from the kernel's entry.

    Example: zn node boot
    """
    found = call(ctx.obj, lambda client: client.boot())
    if as_json:
        print_json(found)
        return
    rows = [(phase.name, phase.state, f"{phase.at_seconds:.3f}", phase.detail) for phase in found.phases]
    print_table(("phase", "state", "at", "detail"), rows)
    for warning in found.warnings:
        print_line(f"warning: {warning}")


@app.command()
def state(ctx: typer.Context, as_json: Json = False) -> None:
    """Show whether the node remembers what it is told, and which of its disks hold that.

    Example: zn node state
    """
    _print_state(call(ctx.obj, lambda client: client.state()), as_json)


@app.command()
def adopt(
    ctx: typer.Context,
    disk: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Let the machine be the node that a disk remembers: with its certificate, containers, pools and config.

    Example: zn node adopt nvme-S4EWNX0N123456
    """
    node = call(ctx.obj, lambda client: client.node())
    question = f"Let node {node.hostname} forget who it is, and be the node that {disk} remembers?"
    if not yes and not typer.confirm(question):
        raise Failure("the node was left as it is", ExitCode.REFUSED)
    _print_state(call(ctx.obj, lambda client: client.adopt_state(disk)), as_json)
    if not as_json:
        print_line("the node starts again and shows the certificate of the node that it is now")


@app.command()
def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more; Ctrl-C ends.")] = False,
    as_json: Json = False,
) -> None:
    """Show what happened on the node.

    Example: zn node events --follow
    """
    cursor = 0
    while True:
        found = call(ctx.obj, _events_after(cursor, 30.0 if follow and cursor else 0.0))
        if as_json and not follow:
            print_json(found)
        else:
            _print_events(found, as_json)
        cursor = found.cursor
        if not follow:
            return


def _print_state(found: StateStatus, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    kept = "on its disks" if found.durable else "in memory only: what the node is told ends with this boot"
    if found.copies and not found.durable:
        kept = "nowhere: none of its disks is left"
    print_table(("state", ""), [("node", found.node), ("kept", kept), ("bytes", found.bytes)])
    if found.copies:
        rows = [(one.disk, one.path, "ok" if one.ok else "FAILED", one.why) for one in found.copies]
        print_table(("copy", "place", "state", "why"), rows)
    for warning in found.warnings:
        print_line(f"warning: {warning}")


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _events_after(cursor: int, wait: float) -> Callable[[NodeClient], Awaitable[Events]]:
    return lambda client: client.events(cursor, wait)


def _print_events(found: Events, as_json: bool) -> None:
    if found.lost:
        print_line(f"({found.lost} events before these are gone)")
    for event in found.events:
        if as_json:
            print_json_line(event)
            continue
        at = datetime.datetime.fromtimestamp(event.at).strftime("%H:%M:%S")
        print_line(f"{at} {event.kind:<10} {event.subject:<12} {event.message}")


@app.command()
def reboot(ctx: typer.Context) -> None:
    """Reboot the node: its containers stop in order. Without disks its identity and all that it was told end.

    Example: zn node reboot
    """
    call(ctx.obj, lambda client: client.power(PowerRequest("reboot")))


@app.command()
def reset(
    ctx: typer.Context, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Destroy every pool of the node and give up every disk that it claimed. Other disks are not touched.

    Example: zn node reset
    """
    node = call(ctx.obj, lambda client: client.node())
    if not yes and not typer.confirm(f"Destroy everything that node {node.hostname} stores?"):
        raise Failure("the node was left as it is", ExitCode.REFUSED)
    call(ctx.obj, lambda client: client.reset(Reset(node.fingerprint)))


@app.command()
def poweroff(ctx: typer.Context) -> None:
    """Power the node off.

    Example: zn node poweroff
    """
    call(ctx.obj, lambda client: client.power(PowerRequest("poweroff")))
