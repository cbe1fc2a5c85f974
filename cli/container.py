"""`zn container`: the containers of a node."""

import asyncio
import hashlib
import re
import secrets
import time
from typing import Annotated

import msgspec
import typer

from cli import container_image
from cli import context as contexts
from cli.connect import call, reach
from cli.frame import Settings
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_table
from cli.sizes import bytes_of, size, traffic_text
from core0.wire.types import Container, ContainerSpec, Limits, PublishedPort, VolumeMount

app = typer.Typer(no_args_is_help=True)
app.add_typer(container_image.app, name="image")

# Seconds that the node lets a call wait; who waits longer asks again.
_LONGEST_WAIT = 20.0

# An IPv6 address is in brackets, as in an URL.
_PORT = re.compile(
    r"((\[(?P<address6>[^\]]+)\]|(?P<address>[0-9.]+)):(?=[0-9]+:))?"
    r"((?P<node>[0-9]+):)?(?P<container>[0-9]+)(/(?P<protocol>.*))?"
)

Wait = Annotated[float, typer.Option(help="Seconds to wait until it has settled (60 at most).")]


@app.command("ls")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the containers.

    Example: zn container ls
    """
    found = call(ctx.obj, lambda client: client.containers())
    if as_json:
        print_json(found)
        return
    rows = [(one.name, one.state, one.address or "-", _ports(one), one.spec.image, one.why) for one in found]
    print_table(("name", "state", "address", "ports", "image", "why"), rows, "no containers")


@app.command()
def show(ctx: typer.Context, name: str, as_json: Json = False) -> None:
    """Show one container.

    Example: zn container show demo
    """
    _print(call(ctx.obj, lambda client: client.container(name)), as_json)


@app.command()
def create(
    ctx: typer.Context,
    name: str,
    image: Annotated[
        str,
        typer.Option(
            help="An OCI layout's folder (http://host:port/path/) or a registry's repository "
            "(http://host:port/name:tag)."
        ),
    ],
    argv: Annotated[list[str] | None, typer.Argument(help="What to run instead of the image's own.")] = None,
    port: Annotated[
        list[str] | None,
        typer.Option(
            "--port", "-p", help="Publish NODE:CONTAINER, also as ADDRESS:NODE:CONTAINER, or with /udp."
        ),
    ] = None,
    volume: Annotated[
        list[str] | None, typer.Option("--volume", "-v", help="Show VOLUME:FOLDER[:ro] in it.")
    ] = None,
    network: Annotated[str, typer.Option(help="The network that it is in.")] = "default",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="Add NAME=VALUE.")] = None,
    user: Annotated[str | None, typer.Option(help="Run as this user of the image.")] = None,
    restart: Annotated[str, typer.Option(help="always, on-failure or never.")] = "always",
    memory: Annotated[int, typer.Option(help="MiB of memory at most.")] = Limits().memory_mib,
    cpus: Annotated[float, typer.Option(help="Processors at most.")] = Limits().cpus,
    processes: Annotated[int, typer.Option(help="Processes and threads at most.")] = Limits().processes,
    receive_bps: Annotated[
        str | None, typer.Option(help="Bytes per second from the network, as 10M.")
    ] = None,
    send_bps: Annotated[str | None, typer.Option(help="Bytes per second to the network.")] = None,
    wait: Wait = 60.0,
    update: Annotated[bool, typer.Option("--update", help="Make it anew as told, if there is one.")] = False,
    as_json: Json = False,
) -> None:
    """Create a container and start it.

    Example: zn container create web --image http://10.0.2.2:8080/oci/demo/ -p 8080:80
    """
    token = _token(ctx.obj, name)
    spec = _spec(
        image=image,
        token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        argv=tuple(argv or ()),
        env=dict(_pair(text) for text in env or ()),
        user=user,
        restart=restart,
        ports=[_port(text) for text in port or ()],
        mounts=[_mount(text) for text in volume or ()],
        limits={
            "memory_mib": memory,
            "cpus": cpus,
            "processes": processes,
            "receive_bps": bytes_of(receive_bps) if receive_bps else None,
            "send_bps": bytes_of(send_bps) if send_bps else None,
        },
        network=network,
    )
    made = call(ctx.obj, lambda client: client.put_container(name, spec, wait, new=not update))
    _remember(ctx.obj, made, token)
    _print(made, as_json)
    _fail_unless(made, "running")


@app.command()
def start(ctx: typer.Context, name: str, wait: Wait = 60.0, as_json: Json = False) -> None:
    """Start a stopped container.

    Example: zn container start demo
    """
    found = call(ctx.obj, lambda client: client.start_container(name, wait))
    _remember(ctx.obj, found, _token(ctx.obj, name))
    _print(found, as_json)
    _fail_unless(found, "running")


@app.command()
def stop(ctx: typer.Context, name: str, wait: Wait = 60.0, as_json: Json = False) -> None:
    """Stop a container: its processes in order, then itself. Its writable files end with it.

    Example: zn container stop demo
    """
    found = call(ctx.obj, lambda client: client.stop_container(name, wait))
    _print(found, as_json)
    _fail_unless(found, "stopped")


@app.command()
def limit(
    ctx: typer.Context,
    name: str,
    memory: Annotated[int | None, typer.Option(help="MiB of memory at most.")] = None,
    memory_high: Annotated[
        int | None, typer.Option(help="MiB over which it is slowed down, files included; 0 for none.")
    ] = None,
    cpus: Annotated[float | None, typer.Option(help="Processors at most.")] = None,
    cpu_weight: Annotated[
        int | None, typer.Option(help="Its share of processors that others want, too; 100 is usual.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="Processes and threads at most.")] = None,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Give a container other limits; one that runs goes on with them. What is not given stays as it is.

    Example: zn container limit demo --memory 256 --cpus 0.5
    """
    before = call(ctx.obj, lambda client: client.container(name)).spec.limits
    given = {
        "memory_mib": memory,
        "memory_high_mib": memory_high,
        "cpus": cpus,
        "cpu_weight": cpu_weight,
        "processes": processes,
    }
    limits = _limits(before, {field: value for field, value in given.items() if value is not None})
    _print(call(ctx.obj, lambda client: client.limit_container(name, limits, wait)), as_json)


def _limits(before: Limits, given: dict[str, float]) -> Limits:
    """The limits with some of them as they were given. Raises Failure (usage)."""
    wanted = {**msgspec.structs.asdict(before), **given}
    try:
        return msgspec.convert({**wanted, "memory_high_mib": wanted["memory_high_mib"] or None}, Limits)
    except msgspec.ValidationError as error:
        raise Failure(
            f"cannot limit the container: {error}; see zn container limit --help", ExitCode.USAGE
        ) from None


@app.command()
def wait(
    ctx: typer.Context,
    name: str,
    seconds: Annotated[float | None, typer.Option("--for", help="Seconds to wait at most.")] = None,
    as_json: Json = False,
) -> None:
    """Wait until a container does not run, and show how it ended.

    Example: zn container wait job --for 3600
    """
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = _LONGEST_WAIT if end is None else min(_LONGEST_WAIT, max(0.0, end - time.monotonic()))
        found = call(ctx.obj, lambda client, left=left: client.container_end(name, left))  # type: ignore[misc]
        ended = found.state in ("stopped", "failed")
        if ended or left < _LONGEST_WAIT:
            break
    _print(found, as_json)
    if not ended:
        raise Failure(f"container {name} is {found.state} after {seconds:g} s: {found.why}")


@app.command()
def stats(ctx: typer.Context, name: str, as_json: Json = False) -> None:
    """Show what a container uses.

    Example: zn container stats demo
    """
    found = call(ctx.obj, lambda client: client.container_stats(name))
    if as_json:
        print_json(found)
        return
    memory = f"{size(found.memory_bytes)} of {size(found.memory_limit_bytes)}"
    rows = [
        ("memory", f"{memory}, {size(found.memory_peak_bytes)} at most, {found.memory_kills} killed for it"),
        ("processor", f"{found.processor_seconds:.2f} s, held back for {found.throttled_seconds:.2f} s"),
        ("processes", f"{found.processes} of {found.processes_limit}"),
        ("read", f"{size(found.read_bytes)} by {found.reads} operations"),
        ("written", f"{size(found.written_bytes)} by {found.writes} operations"),
        ("traffic", traffic_text(found.traffic)),
    ]
    print_table((name, ""), rows)


@app.command()
def pause(ctx: typer.Context, name: str, wait: Wait = 60.0, as_json: Json = False) -> None:
    """Halt a container's processes where they are. They keep their memory and connections, and use no processor.

    Example: zn container pause demo
    """
    found = call(ctx.obj, lambda client: client.pause_container(name, wait))
    _print(found, as_json)
    _fail_unless(found, "paused")


@app.command()
def resume(ctx: typer.Context, name: str, wait: Wait = 60.0, as_json: Json = False) -> None:
    """Let a paused container's processes go on.

    Example: zn container resume demo
    """
    found = call(ctx.obj, lambda client: client.resume_container(name, wait))
    _print(found, as_json)
    _fail_unless(found, "running")


@app.command()
def rm(ctx: typer.Context, name: str) -> None:
    """Stop and remove a container with its files.

    Example: zn container rm demo
    """
    call(ctx.obj, lambda client: client.delete_container(name))
    _forget(ctx.obj, name)


def _print(container: Container, as_json: bool) -> None:
    if as_json:
        print_json(container)
        return
    rows = [
        ("name", container.name),
        ("state", container.state),
        ("why", container.why),
        ("image", container.spec.image),
        ("digest", container.image_digest or "-"),
        ("network", container.spec.network),
        ("addresses", ", ".join(filter(None, (container.address, container.address6))) or "-"),
        ("traffic", traffic_text(container.traffic)),
        ("limits", _limits_text(container.spec.limits)),
        ("volumes", ", ".join(_mount_text(one) for one in container.spec.mounts) or "-"),
        ("ports", _ports(container)),
        ("Core-X", f"port {container.corex.port}" if container.corex else "-"),
        ("fingerprint", f"sha256:{container.corex.fingerprint}" if container.corex else "-"),
    ]
    print_table(("container", ""), rows)


def _limits_text(limits: Limits) -> str:
    high = f" (slower from {limits.memory_high_mib})" if limits.memory_high_mib else ""
    memory = f"{limits.memory_mib} MiB of memory{high}, {limits.storage_mib} MiB of files"
    return f"{memory}, {limits.cpus:g} processors at weight {limits.cpu_weight}, {limits.processes} processes"


def _fail_unless(container: Container, state: str) -> None:
    if container.state != state:
        raise Failure(f"container {container.name} is {container.state}, not {state}: {container.why}")


def _ports(container: Container) -> str:
    ports = container.spec.ports
    return ", ".join(f"{_at(port)}{port.node}→{port.container}/{port.protocol}" for port in ports) or "-"


def _at(port: PublishedPort) -> str:
    if port.address is None:
        return ""
    return f"[{port.address}]:" if ":" in port.address else f"{port.address}:"


def _spec(**given: object) -> ContainerSpec:
    """The spec, checked here as the node will check it. Raises Failure (usage)."""
    try:
        return msgspec.convert(given, ContainerSpec)
    except msgspec.ValidationError as error:
        raise Failure(
            f"cannot create the container: {error}; see zn container create --help", ExitCode.USAGE
        ) from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Failure(f"cannot set {text!r}: it is not NAME=VALUE", ExitCode.USAGE)
    return name, value


def _mount_text(mount: VolumeMount) -> str:
    return f"{mount.volume}:{mount.target}{':ro' if mount.read_only else ''}"


def _mount(text: str) -> VolumeMount:
    volume, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    try:
        if mode not in ("", "ro"):
            raise ValueError(mode)
        return msgspec.convert({"volume": volume, "target": target, "read_only": bool(mode)}, VolumeMount)
    except (ValueError, msgspec.ValidationError):
        raise Failure(
            f"cannot mount {text!r}: it is not VOLUME:FOLDER[:ro], as in data:/var/lib/db", ExitCode.USAGE
        ) from None


def _port(text: str) -> PublishedPort:
    known = _PORT.fullmatch(text)
    try:
        given = known.groupdict() if known else {}
        node = int(given["node"] or given["container"])
        wanted = {
            "node": node,
            "container": int(given["container"]),
            "protocol": given["protocol"] or "tcp",
            "address": given["address6"] or given["address"],
        }
        return msgspec.convert(wanted, PublishedPort)
    except (KeyError, ValueError, msgspec.ValidationError):
        raise Failure(
            f"cannot publish {text!r}: it is not NODE:CONTAINER, as in 8080:80, 192.168.1.10:8080:80 or 53:53/udp",
            ExitCode.USAGE,
        ) from None


def _token(settings: Settings, name: str) -> str:
    """The container's token: the one that is kept, so that creating again changes nothing, or a fresh one."""
    chosen = contexts.choose(settings.contexts, settings.context)
    file = settings.contexts.parent / f"{_token_name(settings, name)}.token"
    known = chosen.container.get(name)
    if known:
        return contexts.read_token(settings.contexts, known)
    return file.read_text("ascii").strip() if file.exists() else secrets.token_hex(32)


def _context_name(settings: Settings) -> str:
    return settings.context or contexts.load(settings.contexts).current or ""


def _token_name(settings: Settings, name: str) -> str:
    return f"{_context_name(settings)}-{name}"


def _remember(settings: Settings, container: Container, token: str) -> None:
    """Keep the token, and where the container's Core-X answers once it does."""
    file = contexts.write_token(settings.contexts, _token_name(settings, container.name), token)
    if container.corex is None:
        return
    chosen = contexts.choose(settings.contexts, settings.context)
    address = asyncio.run(reach(chosen, container.corex.port))
    endpoint = contexts.CoreXEndpoint(address, container.corex.fingerprint, file)
    known = {**chosen.container, container.name: endpoint}
    contexts.put(settings.contexts, _context_name(settings), msgspec.structs.replace(chosen, container=known))


def _forget(settings: Settings, name: str) -> None:
    chosen = contexts.choose(settings.contexts, settings.context)
    (settings.contexts.parent / f"{_token_name(settings, name)}.token").unlink(missing_ok=True)
    known = {key: value for key, value in chosen.container.items() if key != name}
    contexts.put(settings.contexts, _context_name(settings), msgspec.structs.replace(chosen, container=known))
