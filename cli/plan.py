"""Plans and checks inside a container, and who may ask its Core-X: verbs of `zn process`."""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import typer

from cli.connect import call_corex, corex_endpoint
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_error, print_line, print_rows, time_of
from cli.process_spec import read
from corex.client.client import Client
from corex.wire.auditing import AuditEvent
from corex.wire.identities import IdentitySpec, Role
from corex.wire.plan import Change, Difference, Layer

Container = Annotated[str, typer.Argument(help="The container's name.")]
# RFC 6750's bearer tokens are as long as one likes; guessing this one takes for ever.
_TOKEN_BYTES = 32
_ROLES = get_args(Role)


def plan(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """Show what all layers of a container's plan say together.

    Example: zn process plan demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.plan()).value
    rows = [
        (name, spec.kind, " ".join(spec.argv), ", ".join(f"{one} {how}" for one, how in spec.after.items()))
        for name, spec in found.processes.items()
    ]
    print_rows(found, ("name", "kind", "argv", "after"), rows, "the plan has no process", as_json=as_json)


def layers(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """List the layers of a container's plan, the lowest first.

    Example: zn process layers demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.layers())
    rows = [
        (one.name, ", ".join(one.layer.processes), ", ".join(one.layer.checks), one.layer.summary)
        for one in found
    ]
    print_rows(
        found, ("name", "processes", "checks", "summary"), rows, "the plan has no layer", as_json=as_json
    )


def apply(
    ctx: typer.Context,
    container: Container,
    name: Annotated[str, typer.Argument(metavar="LAYER", help="The layer's name.")],
    file: Annotated[Path, typer.Argument(help="Its processes and checks as JSON, '-' for standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, show what would.")] = False,
    as_json: Json = False,
) -> None:
    """Add or replace a layer of a container's plan, and make all what the plan says then.

    Only what differs is started, restarted or stopped.

    Example: zn process apply demo shop shop.json --dry-run
    """
    layer = read(file, Layer)

    async def work(client: Client) -> Difference:
        would = await client.put_layer(name, layer, dry_run=dry_run)
        return would if dry_run else await client.apply(etag=would.etag)

    _show(call_corex(ctx.obj, container, work), as_json=as_json)


def unapply(
    ctx: typer.Context,
    container: Container,
    name: Annotated[str, typer.Argument(metavar="LAYER", help="The layer's name.")],
    as_json: Json = False,
) -> None:
    """Take a layer away, and make all what the others say.

    Example: zn process unapply demo shop
    """

    async def work(client: Client) -> Difference:
        return await client.apply(etag=(await client.delete_layer(name)).etag)

    _show(call_corex(ctx.obj, container, work), as_json=as_json)


def checks(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """List the checks of a container's processes, and what they say.

    Example: zn process checks demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.checks())
    rows = [(one.name, one.spec.process, one.state, one.failures, one.why) for one in found]
    print_rows(
        found, ("name", "process", "state", "failures", "why"), rows, "there is no check", as_json=as_json
    )


def identities(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """List who may ask a container's Core-X, and what for.

    Example: zn process identities demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.identities())
    print_rows(
        found, ("name", "role"), [(one.name, one.role) for one in found], "nobody may", as_json=as_json
    )


def allow(
    ctx: typer.Context,
    container: Container,
    name: Annotated[str, typer.Argument(help="Who: letters, digits and hyphens.")],
    role: Annotated[str, typer.Option(help=f"{', '.join(_ROLES)}.")] = "viewer",
) -> None:
    """Let somebody ask a container's Core-X; prints their token, which is shown nowhere else and never again.

    Example: zn process allow demo prometheus --role metrics
    """
    if role not in _ROLES:
        raise Failure(f"cannot use --role {role!r}: it is none of {', '.join(_ROLES)}", ExitCode.USAGE)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    spec = msgspec.convert(
        {"role": role, "token_sha256": hashlib.sha256(token.encode()).hexdigest()}, IdentitySpec
    )
    call_corex(ctx.obj, container, lambda client: client.put_identity(name, spec))
    at = corex_endpoint(ctx.obj, container)
    command = f"zn process login {container} {at.address} --fingerprint {at.fingerprint}"
    print_error(f"zn: with it, from where that address is reached: {command}")
    print_line(token)


def deny(
    ctx: typer.Context,
    container: Container,
    name: Annotated[str, typer.Argument(help="Who may ask no more.")],
) -> None:
    """Let somebody ask a container's Core-X no more.

    Example: zn process deny demo prometheus
    """
    call_corex(ctx.obj, container, lambda client: client.delete_identity(name))
    print_line(f"{name} may ask no more")


def targets(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """List where a container's log lines are sent, and how it goes.

    Example: zn process targets demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.targets())
    rows = [
        (one.name, one.spec.type, one.spec.location, one.state, one.sent, one.lost, one.refused, one.why)
        for one in found
    ]
    columns = ("name", "type", "location", "state", "sent", "lost", "refused", "why")
    print_rows(found, columns, rows, "no log line is sent anywhere", as_json=as_json)


def operations(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """List the long work of a container's Core-X.

    Example: zn process operations demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.operations())
    rows = [(one.id, one.kind, one.subject, one.by, one.state, one.why) for one in found]
    print_rows(
        found, ("id", "kind", "subject", "by", "state", "why"), rows, "there is no long work", as_json=as_json
    )


def cancel(
    ctx: typer.Context, container: Container, operation: Annotated[str, typer.Argument(help="Its id.")]
) -> None:
    """Cancel long work where that is possible, or forget what has ended.

    Example: zn process cancel demo 1f6c3a0b9d2e4f58
    """
    call_corex(ctx.obj, container, lambda client: client.cancel(operation))
    print_line(f"Cancelled {operation}")


def audit(ctx: typer.Context, container: Container, as_json: Json = False) -> None:
    """Show who did what with a container's Core-X, and what it refused.

    Example: zn process audit demo
    """
    found = call_corex(ctx.obj, container, lambda client: client.audit(limit=10_000))
    rows = [
        (
            time_of(one.time),
            one.level,
            one.event,
            one.who,
            one.source,
            one.status or "",
            one.times,
            _what(one),
        )
        for one in found.events
    ]
    print_rows(
        found.events,
        ("time", "level", "event", "who", "from", "status", "times", "what"),
        rows,
        "nothing yet",
        as_json=as_json,
    )


def _what(event: AuditEvent) -> str:
    return f"{event.action} {event.subject}".strip()


VERBS = (plan, layers, apply, unapply, checks, targets, operations, cancel, identities, allow, deny, audit)


def _show(difference: Difference, *, as_json: bool) -> None:
    rows = [(change.verb, *_whose(change), ", ".join(change.fields)) for change in difference.changes]
    print_rows(difference, ("verb", "what", "name", "fields"), rows, "nothing differs", as_json=as_json)


def _whose(change: Change) -> tuple[str, str]:
    whose = {"process": change.process, "check": change.check, "target": change.target}
    return next((what, name) for what, name in whose.items() if name)
