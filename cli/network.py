"""`zn network`: the networks of a node's containers, and its own links."""

from typing import Annotated

import msgspec
import typer

from cli.connect import call
from cli.network_links import link, links
from cli.network_mesh import join, leave, mesh, rotate
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_line, print_rows, print_table
from cli.sizes import traffic_text
from core0.wire.mesh import Mesh
from core0.wire.networks import INTERNET, EgressRule, Network, NetworkSpec

app = typer.Typer(no_args_is_help=True)
app.command()(links)
app.command()(link)
for _verb in (mesh, join, leave, rotate):
    app.command()(_verb)


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the networks of containers.

    Example: zn network ls
    """
    found = call(ctx.obj, lambda client: client.networks())
    rows = [
        (one.name, one.state, one.ipv4, one.ipv6, one.spec.egress, str(len(one.containers)), one.why)
        for one in found
    ]
    print_rows(
        found, ("network", "state", "ipv4", "ipv6", "egress", "containers", "why"), rows, as_json=as_json
    )


@app.command()
def show(ctx: typer.Context, name: str, as_json: Json = False) -> None:
    """Show one network and the addresses of its containers.

    Example: zn network show default
    """
    _print(call(ctx.obj, lambda client: client.network(name)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    ipv4: Annotated[str | None, typer.Option(help="Its IPv4 subnet; otherwise the node chooses.")] = None,
    ipv6: Annotated[str | None, typer.Option(help="Its IPv6 subnet; otherwise the node chooses.")] = None,
    egress: Annotated[str, typer.Option(help="nat, routed, or none: nothing leaves the network.")] = "nat",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What may be reached outside: internet or SUBNET, then :PROTOCOL or :PROTOCOL:PORT."
        ),
    ] = None,
    allow_nothing: Annotated[
        bool, typer.Option("--allow-nothing", help="Containers reach nothing outside.")
    ] = False,
    mtu: Annotated[int, typer.Option(help="Bytes of the largest packet.")] = NetworkSpec().mtu,
    update: Annotated[bool, typer.Option("--update", help="Change it as told, if there is one.")] = False,
    as_json: Json = False,
) -> None:
    """Make a network for containers.

    Example: zn network create web --ipv4 10.20.0.0/24 --allow internet --allow 192.168.1.10/32:tcp:5432
    """
    if allow and allow_nothing:
        raise Failure("cannot allow both something and nothing: choose one", ExitCode.USAGE)
    given: dict[str, object] = {"ipv4": ipv4, "ipv6": ipv6, "egress": egress, "mtu": mtu}
    if allow or allow_nothing:
        given["egress_allow"] = tuple(map(_rule, allow or ()))
    spec = _spec(given)
    _print(call(ctx.obj, lambda client: client.put_network(name, spec, new=not update)), as_json)


@app.command()
def rm(ctx: typer.Context, name: str) -> None:
    """Delete a network that no container is in.

    Example: zn network rm web
    """
    call(ctx.obj, lambda client: client.delete_network(name))
    print_line(f"network {name} is deleted")


def _spec(given: dict[str, object]) -> NetworkSpec:
    """The spec, checked here as the node will check it. Raises Failure (usage)."""
    try:
        return msgspec.convert(given, NetworkSpec)
    except msgspec.ValidationError as error:
        raise Failure(
            f"cannot create the network: {error}; see zn network create --help", ExitCode.USAGE
        ) from None


def _rule(text: str) -> EgressRule:
    """A rule as people write it; an IPv6 subnet has colons of its own before its slash."""
    start, slash, rest = text.partition("/")
    to, *more = rest.split(":") if slash else text.split(":")
    protocol, port = (*more, "", "")[:2]
    given = {
        "to": f"{start}/{to}" if slash else to,
        "protocol": protocol or None,
        "port": int(port) if port.isdecimal() else port or None,
    }
    try:
        if len(more) > 2 or (not slash and to != INTERNET):
            raise ValueError(text)
        return msgspec.convert(given, EgressRule)
    except (ValueError, msgspec.ValidationError):
        said = f"cannot allow {text!r}: it is not internet or SUBNET[:PROTOCOL[:PORT]], as in 10.1.0.0/24:tcp:443"
        raise Failure(said, ExitCode.USAGE) from None


def _print(network: Network, as_json: bool) -> None:
    if as_json:
        print_json(network)
        return
    spec = network.spec
    rows = [
        ("name", network.name),
        ("state", network.state),
        ("why", network.why),
        ("ipv4", network.ipv4),
        ("ipv6", network.ipv6),
        ("egress", spec.egress),
        ("allowed", ", ".join(map(_in_words, spec.egress_allow)) if spec.egress != "none" else "-"),
        ("mtu", str(spec.mtu)),
    ]
    print_table(("network", ""), rows)
    if network.mesh:
        _print_mesh(network.mesh)
    members = [(one.container, one.ipv4, one.ipv6, traffic_text(one.traffic)) for one in network.containers]
    print_table(("container", "ipv4", "ipv6", "traffic"), members, "no containers")


def _print_mesh(mesh: Mesh) -> None:
    rows = [
        ("state", mesh.state),
        ("why", mesh.why),
        ("public key", mesh.public_key),
        ("next public key", mesh.next_public_key or "-"),
        ("port", f"UDP {mesh.port} on link {mesh.link}"),
    ]
    print_table(("mesh", ""), rows)
    peers = [
        (one.name, one.state, one.endpoint or "-", str(one.received_bytes), str(one.sent_bytes), one.why)
        for one in mesh.peers
    ]
    print_table(("peer", "state", "endpoint", "bytes in", "bytes out", "why"), peers, "no peers")


def _in_words(rule: EgressRule) -> str:
    return ":".join(filter(None, (rule.to, rule.protocol, str(rule.port or ""))))
