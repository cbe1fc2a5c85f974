"""`zn container`: the containers of a node."""

import asyncio
import hashlib
import secrets
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cli import container_image
from cli import context as contexts
from cli.bundle import read_bundle
from cli.connect import call, reach
from cli.container_export import write_export
from cli.container_import import pack_root, print_report, refuse_losses, volumes_of
from cli.container_spec import (
    after_of,
    capability_of,
    health_of,
    mount_of,
    pair_of,
    plan_of,
    port_of,
    secret_of,
    spec_of,
    tmpfs_of,
)
from cli.frame import Settings
from cli.operation import Detach, follow
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json, print_rows
from cli.sizes import bytes_of, size, traffic_text
from core0.wire.types import Container, Limits, PublishedPort, VolumeMount
from corex.wire.health import HealthCheck

app = typer.Typer(no_args_is_help=True)
app.add_typer(container_image.app, name="image")

# Limits that a container may be without.
_ENDED_BY_ZERO = (
    "memory_high_mib",
    "receive_bps",
    "send_bps",
    "read_bps",
    "write_bps",
    "read_iops",
    "write_iops",
)
# Seconds that the node lets a call wait; who waits longer asks again.
_LONGEST_WAIT = 20.0

Wait = Annotated[float, typer.Option(help="Seconds to wait until it has settled (60 at most).")]


@app.command("ls")
def list_(
    ctx: typer.Context,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="Only those labelled KEY, or KEY=VALUE.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the containers.

    Example: zn container ls --label app=shop
    """
    found = call(ctx.obj, lambda client: client.containers(label or ()))
    rows = [
        (one.name, _state(one), one.address or "-", _ports(one), one.spec.image, one.why) for one in found
    ]
    print_rows(
        found, ("name", "state", "address", "ports", "image", "why"), rows, "no containers", as_json=as_json
    )


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
    ipv4: Annotated[str | None, typer.Option(help="Its IPv4 address there; else the node's choice.")] = None,
    ipv6: Annotated[str | None, typer.Option(help="Its IPv6 address there.")] = None,
    hostname: Annotated[str | None, typer.Option(help="What it takes itself for, instead of NAME.")] = None,
    dns_name: Annotated[
        list[str] | None, typer.Option(help="A name that your name servers have for its Core-X.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Let nobody write to its root.")] = False,
    tmpfs: Annotated[
        list[str] | None, typer.Option(help="Have files in memory at FOLDER[:size=16M,mode=1777,exec].")
    ] = None,
    cap_drop: Annotated[
        list[str] | None, typer.Option(help="Let its processes go without a capability, or without all.")
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Have Core-X run the processes and checks of this JSON file, instead of one program."
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="Show SECRET[:file=FILE,mode=0400,uid=0,gid=0] below /run/secrets."),
    ] = None,
    after: Annotated[
        list[str] | None, typer.Option(help="Begin after CONTAINER runs, or with :healthy once it is that.")
    ] = None,
    health_command: Annotated[
        str | None, typer.Option(help="It is healthy if this command ends with 0 in it.")
    ] = None,
    health_port: Annotated[int | None, typer.Option(help="… if this TCP port takes connections.")] = None,
    health_path: Annotated[str | None, typer.Option(help="… and answers a GET for this path well.")] = None,
    health_interval: Annotated[
        float, typer.Option(help="Seconds between two looks.")
    ] = HealthCheck().interval,
    health_timeout: Annotated[float, typer.Option(help="Seconds for a look.")] = HealthCheck().timeout,
    health_retries: Annotated[
        int, typer.Option(help="Failures before it is unhealthy.")
    ] = HealthCheck().retries,
    health_start: Annotated[float, typer.Option(help="Seconds before failures count.")] = 0.0,
    health_restart: Annotated[
        bool, typer.Option("--health-restart", help="Restart its process when it is unhealthy.")
    ] = False,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="Note KEY=VALUE.")] = None,
    priority: Annotated[int, typer.Option(help="From -100 to 100: the higher, the later it has to go.")] = 0,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="Add NAME=VALUE.")] = None,
    user: Annotated[str | None, typer.Option(help="Run as this user of the image.")] = None,
    restart: Annotated[str, typer.Option(help="always, on-failure or never.")] = "always",
    memory: Annotated[int, typer.Option(help="MiB of memory at most.")] = Limits().memory_mib,
    cpus: Annotated[float, typer.Option(help="Processors at most.")] = Limits().cpus,
    processes: Annotated[int, typer.Option(help="Processes and threads at most.")] = Limits().processes,
    storage: Annotated[
        int, typer.Option(help="MiB of files at most, which are in memory, too.")
    ] = Limits().storage_mib,
    receive_bps: Annotated[
        str | None, typer.Option(help="Bytes per second from the network, as 10M.")
    ] = None,
    send_bps: Annotated[str | None, typer.Option(help="Bytes per second to the network.")] = None,
    read_bps: Annotated[
        str | None, typer.Option(help="Bytes per second from each disk of its volumes.")
    ] = None,
    write_bps: Annotated[str | None, typer.Option(help="Bytes per second to each.")] = None,
    read_iops: Annotated[int | None, typer.Option(help="Reads per second from each.")] = None,
    write_iops: Annotated[int | None, typer.Option(help="Writes per second to each.")] = None,
    wait: Wait = 60.0,
    update: Annotated[bool, typer.Option("--update", help="Make it anew as told, if there is one.")] = False,
    as_json: Json = False,
) -> None:
    """Create a container and start it.

    Example: zn container create web --image http://10.0.2.2:8080/oci/demo/ -p 8080:80
    """
    token = _token(ctx.obj, name)
    spec = spec_of(
        image=image,
        token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        argv=tuple(argv or ()),
        env=dict(pair_of(text) for text in env or ()),
        user=user,
        restart=restart,
        ports=[port_of(text) for text in port or ()],
        mounts=[mount_of(text) for text in volume or ()],
        limits={
            "memory_mib": memory,
            "cpus": cpus,
            "processes": processes,
            "storage_mib": storage,
            "receive_bps": bytes_of(receive_bps) if receive_bps else None,
            "send_bps": bytes_of(send_bps) if send_bps else None,
            "read_bps": bytes_of(read_bps) if read_bps else None,
            "write_bps": bytes_of(write_bps) if write_bps else None,
            "read_iops": read_iops,
            "write_iops": write_iops,
        },
        network=network,
        ipv4=ipv4,
        ipv6=ipv6,
        hostname=hostname,
        dns_names=dns_name or (),
        read_only=read_only,
        tmpfs=[tmpfs_of(text) for text in tmpfs or ()],
        drop_capabilities=[capability_of(text) for text in cap_drop or ()],
        after=dict(after_of(text) for text in after or ()),
        health=health_of(
            health_command,
            health_port,
            health_path,
            interval=health_interval,
            timeout=health_timeout,
            retries=health_retries,
            start_period=health_start,
            restart=health_restart,
        ),
        secrets=[secret_of(text) for text in secret or ()],
        labels=dict(pair_of(text) for text in label or ()),
        priority=priority,
        plan=plan_of(plan) if plan else None,
    )
    made = call(ctx.obj, lambda client: client.put_container(name, spec, wait, new=not update))
    _remember(ctx.obj, made, token)
    _print(made, as_json)
    _fail_unless(made, "running")


@app.command("import")
def import_(
    ctx: typer.Context,
    name: str,
    bundle: Annotated[Path, typer.Argument(help="An OCI bundle's folder, or its config.json.")],
    image: Annotated[
        str | None,
        typer.Option(help="The image that has its files, as for create; without it only the report."),
    ] = None,
    pack: Annotated[
        Path | None, typer.Option(help="Pack the bundle's root as that image into this new folder first.")
    ] = None,
    arch: Annotated[str, typer.Option(help="The architecture of what is packed.")] = "amd64",
    volume: Annotated[
        list[str] | None, typer.Option("--volume", "-v", help="Let VOLUME stand for a folder: FOLDER=VOLUME.")
    ] = None,
    network: Annotated[str, typer.Option(help="The network that it is in.")] = "default",
    restart: Annotated[str, typer.Option(help="always, on-failure or never.")] = "always",
    strict: Annotated[bool, typer.Option("--strict", help="Refuse what is not honoured as a whole.")] = False,
    wait: Wait = 60.0,
    update: Annotated[bool, typer.Option("--update", help="Make it anew as told, if there is one.")] = False,
    as_json: Json = False,
) -> None:
    """Create a container of an OCI bundle, and say of each field of its config.json what becomes of it.

    Example: zn container import web ./bundle --image http://10.0.2.2:8080/oci/web/ --pack oci/web --strict
    """
    found, folder = read_bundle(bundle, volumes_of(volume or ()))
    if not as_json:
        print_report(found.report)
    elif image is None:
        print_json(found.report)
    if strict:
        refuse_losses(found)
    if image is None:
        return
    if pack:
        pack_root(found, folder, pack, arch)
    token = _token(ctx.obj, name)
    digest = hashlib.sha256(token.encode()).hexdigest()
    given = {**found.spec, "image": image, "token_sha256": digest, "network": network, "restart": restart}
    spec = spec_of(**given)
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
    storage: Annotated[
        int | None, typer.Option(help="MiB of files at most, which are in memory, too.")
    ] = None,
    receive_bps: Annotated[
        str | None, typer.Option(help="Bytes per second from the network; 0 for no limit.")
    ] = None,
    send_bps: Annotated[
        str | None, typer.Option(help="Bytes per second to the network; 0 for no limit.")
    ] = None,
    read_bps: Annotated[
        str | None, typer.Option(help="Bytes per second from each disk of its volumes; 0 for no limit.")
    ] = None,
    write_bps: Annotated[str | None, typer.Option(help="Bytes per second to each; 0 for no limit.")] = None,
    read_iops: Annotated[int | None, typer.Option(help="Reads per second from each; 0 for no limit.")] = None,
    write_iops: Annotated[int | None, typer.Option(help="Writes per second to each; 0 for no limit.")] = None,
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
        "storage_mib": storage,
        "receive_bps": bytes_of(receive_bps) if receive_bps else None,
        "send_bps": bytes_of(send_bps) if send_bps else None,
        "read_bps": bytes_of(read_bps) if read_bps else None,
        "write_bps": bytes_of(write_bps) if write_bps else None,
        "read_iops": read_iops,
        "write_iops": write_iops,
    }
    limits = _limits(before, {field: value for field, value in given.items() if value is not None})
    _print(call(ctx.obj, lambda client: client.limit_container(name, limits, wait)), as_json)


def _limits(before: Limits, given: dict[str, float]) -> Limits:
    """The limits with some of them as they were given. Raises Failure (usage)."""
    wanted = {**msgspec.structs.asdict(before), **given}
    absent = {name: wanted[name] or None for name in _ENDED_BY_ZERO}
    try:
        return msgspec.convert({**wanted, **absent}, Limits)
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
    memory = f"{size(found.memory_bytes)} of {size(found.memory_limit_bytes)}"
    rows = [
        ("memory", f"{memory}, {size(found.memory_peak_bytes)} at most, {found.memory_kills} killed for it"),
        ("processor", f"{found.processor_seconds:.2f} s, held back for {found.throttled_seconds:.2f} s"),
        ("processes", f"{found.processes} of {found.processes_limit}"),
        ("read", f"{size(found.read_bytes)} by {found.reads} operations"),
        ("written", f"{size(found.written_bytes)} by {found.writes} operations"),
        ("traffic", traffic_text(found.traffic)),
    ]
    print_rows(found, (name, ""), rows, as_json=as_json)


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
def rename(ctx: typer.Context, name: str, new: str, as_json: Json = False) -> None:
    """Call a container that does not run something else.

    Example: zn container rename demo shop
    """
    found = call(ctx.obj, lambda client: client.rename_container(name, new))
    _move_token(ctx.obj, name, new)
    _print(found, as_json)


@app.command()
def commit(
    ctx: typer.Context,
    name: str,
    image: Annotated[str, typer.Argument(help="The image's name: others say local:IMAGE.")],
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Make an image of a container that runs: its image, and what it wrote. It is halted meanwhile.

    Example: zn container commit demo shop:1
    """
    follow(ctx.obj, lambda client: client.commit_container(name, image), detach, as_json)


@app.command()
def export(
    ctx: typer.Context,
    name: str,
    file: Annotated[Path, typer.Argument(help="Where to; '-' is the output.")],
) -> None:
    """Write the files of a container that runs to a tar, as it sees them, without its volumes.

    Example: zn container export demo demo.tar
    """
    write_export(ctx.obj, name, file)


@app.command()
def rm(ctx: typer.Context, name: str) -> None:
    """Stop and remove a container with its files.

    Example: zn container rm demo
    """
    call(ctx.obj, lambda client: client.delete_container(name))
    contexts.forget(ctx.obj.contexts, _context_name(ctx.obj), name)


def _print(container: Container, as_json: bool) -> None:
    rows = [
        ("name", container.name),
        ("state", _state(container)),
        ("why", container.why),
        ("health", container.health.why if container.health else "-"),
        ("image", container.spec.image),
        ("digest", container.image_digest or "-"),
        ("network", container.spec.network),
        ("addresses", ", ".join(filter(None, (container.address, container.address6))) or "-"),
        ("traffic", traffic_text(container.traffic)),
        ("limits", _limits_text(container.spec.limits)),
        ("volumes", ", ".join(_mount_text(one) for one in container.spec.mounts) or "-"),
        ("ports", _ports(container)),
        ("labels", ", ".join(f"{key}={value}" for key, value in container.spec.labels.items()) or "-"),
        ("Core-X", f"port {container.corex.port}" if container.corex else "-"),
        ("fingerprint", f"sha256:{container.corex.fingerprint}" if container.corex else "-"),
    ]
    print_rows(container, ("container", ""), rows, as_json=as_json)


def _state(container: Container) -> str:
    return f"{container.state} ({container.health.state})" if container.health else container.state


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


def _mount_text(mount: VolumeMount) -> str:
    return f"{mount.volume}:{mount.target}{':ro' if mount.read_only else ''}"


def _token(settings: Settings, name: str) -> str:
    """The container's token: the one that is kept, so that creating again changes nothing, or a fresh one."""
    chosen = contexts.choose(settings.contexts, settings.context)
    file = settings.contexts.parent / f"{_token_name(settings, name)}.token"
    known = chosen.container.get(name)
    if known:
        return contexts.read_token(settings.contexts, known)
    return file.read_text("ascii").strip() if file.exists() else secrets.token_hex(32)


def _context_name(settings: Settings) -> str:
    return contexts.name_of(settings.contexts, settings.context)


def _token_name(settings: Settings, name: str) -> str:
    return contexts.token_name(_context_name(settings), name)


def _remember(settings: Settings, container: Container, token: str) -> None:
    """Keep the token, and where the container's Core-X answers once it does."""
    file = contexts.write_token(settings.contexts, _token_name(settings, container.name), token)
    if container.corex is None:
        return
    chosen = contexts.choose(settings.contexts, settings.context)
    address = asyncio.run(reach(chosen, container.corex.port))
    endpoint = contexts.CoreXEndpoint(address, container.corex.fingerprint, file)
    contexts.remember(settings.contexts, _context_name(settings), container.name, endpoint)


def _move_token(settings: Settings, name: str, new: str) -> None:
    """Keep the token by the container's other name; where its Core-X answers is known when it runs again."""
    chosen = contexts.choose(settings.contexts, settings.context)
    if (
        name in chosen.container
        or (settings.contexts.parent / f"{_token_name(settings, name)}.token").exists()
    ):
        contexts.write_token(settings.contexts, _token_name(settings, new), _token(settings, name))
        contexts.forget(settings.contexts, _context_name(settings), name)
