"""`zn up`: from source to a running container, step by step; a second run finds everything there.

What this run started is stopped again if a step fails, so nothing is left half-made.
"""

import asyncio
import hashlib
import secrets
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import msgspec
import typer

from ci.qemu import detached
from ci.qemu.console import ConsoleError
from ci.qemu.machine import Machine
from cli import context, machines, operator, serving
from cli.connect import client_of
from cli.context import Context, CoreXEndpoint
from cli.image import cache_folder
from cli.image_report import TerminalReport
from cli.outcome import ExitCode, Failure
from cli.output import Json, print_json
from cli.sizes import bytes_of
from cli.tasks import ROOT
from core0.client.client import NodeClient
from core0.wire.types import Container, ContainerSpec, PublishedPort
from image import build, contents, oci
from image.sources import Places

app = typer.Typer()

NODE = "node1"
DEMO = "demo"
CONTEXT = "local"
SERVER = machines.RUN
_IMAGE = ROOT / "build" / "amd64-virt"
_LAYOUTS = ROOT / "build" / "oci"
# Where the demo service listens in its container and on the node.
_SERVICE = PublishedPort(node=8080, container=80)
_CONTAINER_SECONDS = 60.0
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Reached:
    """All that a person needs to go on, and that the next step of the run needs.

    Attributes:
        api: host address of the node's API.
        fingerprint: SHA-256 of the node's certificate.
        corex: host address of the demo container's Core-X.
        corex_fingerprint: SHA-256 of Core-X's certificate.
        token: the bearer token for it.
        service: URL of the demo service.
    """

    api: str
    fingerprint: str
    corex: str
    corex_fingerprint: str
    token: str
    service: str


@app.command()
def up(
    ctx: typer.Context,
    memory: Annotated[int, typer.Option(help="RAM of the node in MiB, if it is not up yet.")] = 512,
    disk: Annotated[
        list[str], typer.Option("--disk", help="A disk of that size, if it is not up yet; may be repeated.")
    ] = ["8G", "8G"],  # noqa: B006 — typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """From source to a running container: build, serve, boot, deploy. Runs again in seconds.

    Example: zn up
    """
    sizes = [bytes_of(one) for one in disk]
    make_images()
    reached = asyncio.run(_until_told(bring_up(ctx.obj.contexts, TerminalReport(), memory, sizes)))
    if as_json:
        print_json(reached)
    else:
        show(reached)


class _Part(TerminalReport):
    """The steps of one part of the work, with its name before each."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show the part and the step."""
        with super().step(f"{self._part}: {name}"):
            yield


def make_images() -> None:
    """Build the node's image and pack the demo container's."""
    places, manifests = Places(ROOT, cache_folder()), ROOT / "initramfs"
    build.build(build.Request(manifests / "virt.toml", "amd64", _IMAGE, places), _Part("image"))
    oci.pack(oci.Request(manifests / "demo.toml", "amd64", _LAYOUTS / DEMO, places), _Part("demo"))


async def _until_told(work: Coroutine[Any, Any, Reached]) -> Reached:
    """Run the work; SIGTERM and SIGHUP end it as Ctrl-C does, so that what it started ends with it."""
    task = asyncio.create_task(work)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise Failure("interrupted: what this run had started has ended", ExitCode.INTERRUPTED) from None


async def bring_up(contexts: Path, report: TerminalReport, memory: int, disks: Sequence[int]) -> Reached:
    """From the images to the answering service. What was started here ends again if a step fails."""
    async with AsyncExitStack() as undo:
        with report.step("server"):
            server = await _serve(contexts, undo)
        with report.step("machine"):
            folder = await _boot(server, memory, disks, report, undo)
        async with detached.attach(folder) as machine, _console_told(machine):
            with report.step("ready"):
                fingerprint, api = await machines.wait_ready(machine)
                _remember_node(contexts, Context(api, fingerprint, operator.KEY_FILE, str(folder)))
            async with client_of(contexts, context.choose(contexts, CONTEXT)) as node:
                with report.step("container"):
                    await _deploy(contexts, node, server.port)
                with report.step("service"):
                    reached = await _reach(contexts, machine, node)
        undo.pop_all()  # all is well: let it run
    return reached


@asynccontextmanager
async def _console_told(machine: Machine) -> AsyncIterator[None]:
    """Add the console's end to what fails in the body, unless the message has it already."""
    try:
        yield
    except ConsoleError:
        raise
    except Exception as error:
        error.add_note(f"the console of {machine.spec.name} ends with\n{machine.console.tail()}")
        raise


def show(reached: Reached) -> None:
    """Print the box at the end."""
    from rich.console import Console
    from rich.panel import Panel

    lines = (
        f"Node API          https://{reached.api}",
        f"  fingerprint     {reached.fingerprint}",
        f"Core-X of {DEMO}    https://{reached.corex}  (the console, in a browser)",
        f"  fingerprint     {reached.corex_fingerprint}",
        f"  token           {reached.token}",
        f"Service           {reached.service}",
        "",
        "Try next:",
        f"  curl {reached.service}",
        "  ./zn node show",
        "  ./zn container ls",
        f"  ./zn process ls {DEMO}",
        f"  ./zn exec -it {DEMO} -- sh",
        "  ./zn disk ls",
        f"  ./zn vm console {NODE}",
        "  ./zn down",
    )
    # never narrower than its lines: a wrapped fingerprint cannot be copied
    width = max(map(len, lines)) + 4
    Console(highlight=False, width=width).print(Panel("\n".join(lines), title="Zeronode is up"))


async def _serve(contexts: Path, undo: AsyncExitStack) -> serving.Server:
    """The server with our words; one with others (an older key) is replaced."""
    _LAYOUTS.mkdir(parents=True, exist_ok=True)
    arguments = (operator.kernel_argument(contexts), f"zn.hostname={NODE}")
    words = (str(_IMAGE), "--oci", str(_LAYOUTS), *(f"--argument={argument}" for argument in arguments))
    server = serving.find(SERVER)
    if server and server.words == words:
        return server
    await serving.stop(SERVER)
    undo.push_async_callback(serving.stop, SERVER)
    return serving.start(SERVER, words)


async def _boot(
    server: serving.Server, memory: int, disks: Sequence[int], report: TerminalReport, undo: AsyncExitStack
) -> Path:
    """The node: the one that runs, if it booted from this server, else a new one."""
    folder = machines.folder_of(NODE)
    boot = machines.network_boot(server.port)
    record = detached.find(folder)
    if record and record.spec.boot == boot:
        _warn_if_older(folder, report)
        return folder
    await machines.stop(folder)
    undo.push_async_callback(machines.stop, folder)
    started = await machines.start(NODE, boot, _IMAGE, memory=memory, cpus=1, disks=disks)
    (folder / "build-id").write_text(contents.load(_IMAGE).build_id)
    return started


def _warn_if_older(folder: Path, report: TerminalReport) -> None:
    if (folder / "build-id").read_text() != contents.load(_IMAGE).build_id:
        report.warn("the node runs an older build; to boot the new one: ./zn down && ./zn up")


def _remember_node(contexts: Path, found: Context) -> None:
    """Write the context; the Core-X endpoints of the same boot stay, those of an earlier one are gone with it."""
    known = context.load(contexts).context.get(CONTEXT)
    same_boot = known is not None and known.fingerprint == found.fingerprint
    kept = known.container if known and same_boot else {}
    context.put(contexts, CONTEXT, msgspec.structs.replace(found, container=kept))


async def _deploy(contexts: Path, node: NodeClient, server_port: int) -> None:
    """The demo container, running; made with a fresh token unless it is there."""
    known = context.choose(contexts, CONTEXT).container
    if not (DEMO in known and DEMO in {container.name for container in await node.containers()}):
        token = secrets.token_urlsafe(32)
        context.write_token(contexts, f"{CONTEXT}-{DEMO}", token)
        spec = ContainerSpec(
            image=f"http://{machines.HOST}:{server_port}/{DEMO}:latest",
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
            ports=(_SERVICE,),
        )
        await node.put_container(DEMO, spec)
    container = await node.container(DEMO, wait=_CONTAINER_SECONDS)
    if container.state == "stopped":
        container = await node.start_container(DEMO, wait=_CONTAINER_SECONDS)
    if container.state != "running":
        raise Failure(f"cannot run the demo container: it is {container.state}: {container.why}")


async def _reach(contexts: Path, machine: Machine, node: NodeClient) -> Reached:
    """Forward the container's ports, write them down, and check that the service answers."""
    chosen = context.choose(contexts, CONTEXT)
    endpoint = await _corex_endpoint(machine, await node.container(DEMO))
    known = {**chosen.container, DEMO: endpoint}
    context.put(contexts, CONTEXT, msgspec.structs.replace(chosen, container=known))
    service = f"http://127.0.0.1:{await machine.wait_for_port(_SERVICE.node, _ANSWER_SECONDS)}/"
    await _check_service(service)
    token = context.read_token(contexts, endpoint)
    return Reached(chosen.address, chosen.fingerprint, endpoint.address, endpoint.fingerprint, token, service)


async def _corex_endpoint(machine: Machine, container: Container) -> CoreXEndpoint:
    if container.corex is None:
        raise Failure(f"cannot find Core-X of {container.name}: {container.why}")
    host_port = await machine.wait_for_port(container.corex.port, _ANSWER_SECONDS)
    return CoreXEndpoint(f"127.0.0.1:{host_port}", container.corex.fingerprint, f"{CONTEXT}-{DEMO}.token")


async def _check_service(url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            answer.raise_for_status()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Failure(
            f"cannot reach the demo service at {url}: {error or 'no answer'}; see zn process ls {DEMO}"
        ) from error
