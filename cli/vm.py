"""`zn vm`: machines under QEMU, without root."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ci.qemu import detached
from ci.qemu.spec import Boot
from cli import machines, operator
from cli.keyboard import LEAVE, raw_terminal
from cli.output import Json, print_json, print_line, print_rows
from cli.sizes import bytes_of
from cli.tasks import ROOT

app = typer.Typer(help="Run machines under QEMU.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The machine's name.")]
_IMAGE = ROOT / "build" / "amd64-virt"


@app.command()
def run(
    ctx: typer.Context,
    name: Name = "vm1",
    image: Annotated[
        Path, typer.Option(help="Output folder of a build.", show_default="build/amd64-virt")
    ] = _IMAGE,
    memory: Annotated[int, typer.Option(help="RAM in MiB.")] = 512,
    cpus: Annotated[int, typer.Option(help="Virtual CPUs.")] = 1,
    disk: Annotated[
        list[str] | None, typer.Option("--disk", help="A disk of that size; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Boot a build, straight from its files, and wait until it is ready.

    Its disks outlive it: run again, a machine of that name has them with what they hold.

    Example: zn vm run node2 --memory 256 --disk 20G
    """
    operator_argument = operator.kernel_argument(ctx.obj.contexts)
    boot = machines.direct_boot(image, (operator_argument, f"zn.hostname={name}"))
    disks = [bytes_of(one) for one in disk or ()]
    facts = asyncio.run(_run(name, boot, image, memory, cpus, disks))
    if as_json:
        print_json(facts)
    else:
        print_line(
            f"Machine {name} is ready; its API answers at {facts['api']}, fingerprint {facts['fingerprint']}"
        )


@app.command("ls")
def list_machines(as_json: Json = False) -> None:
    """List the machines that run.

    Example: zn vm ls
    """
    found = [
        {
            "name": record.spec.name,
            "pid": record.identity.pid,
            "memory": record.spec.memory,
            "cpus": record.spec.cpus,
            "acceleration": record.acceleration.name,
            "console": str(machines.console_log(folder)),
        }
        for folder, record in machines.running()
    ]
    columns = ("name", "pid", "memory", "cpus", "acceleration", "console")
    rows = [[row[column] for column in columns] for row in found]
    print_rows(found, columns, rows, "no machine runs", as_json=as_json)


@app.command()
def console(name: Name) -> None:
    """Show a machine's console and type into it; Ctrl-] leaves.

    Example: zn vm console node1
    """
    folder = machines.find(name)
    sys.stdout.write(machines.console_log(folder).read_text("utf-8", "replace"))
    sys.stdout.flush()
    if sys.stdin.isatty():
        with raw_terminal():
            asyncio.run(_talk(folder))


@app.command()
def forward(
    name: Name, port: Annotated[int, typer.Argument(help="TCP port of the guest.")], as_json: Json = False
) -> None:
    """Make a TCP port of a machine reachable on the host's loopback.

    Example: zn vm forward node1 8080
    """
    host_port = asyncio.run(_forward(machines.find(name), port))
    if as_json:
        print_json({"guest": port, "host": host_port})
    else:
        print_line(f"127.0.0.1:{host_port} leads to port {port} of {name}")


@app.command()
def stop(name: Name) -> None:
    """End a machine, as if its power were cut.

    Example: zn vm stop node2
    """
    asyncio.run(machines.stop(machines.find(name)))
    print_line(f"Machine {name} has ended")


async def _run(
    name: str, boot: Boot, image: Path, memory: int, cpus: int, disks: Sequence[int]
) -> dict[str, str]:
    folder = await machines.start(name, boot, image, memory=memory, cpus=cpus, disks=disks)
    try:
        async with detached.attach(folder) as machine:
            fingerprint, address = await machines.wait_ready(machine)
    except BaseException:
        await machines.stop(folder)
        raise
    return {"name": name, "api": address, "fingerprint": fingerprint}


async def _forward(folder: Path, port: int) -> int:
    async with detached.attach(folder) as machine:
        return await machine.forward(port)


async def _talk(folder: Path) -> None:
    """Copy the console to the terminal and the keyboard to the console."""
    keys = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(keys), sys.stdin)
    reader, writer = await asyncio.open_unix_connection(detached.console_socket(folder))
    output = asyncio.create_task(_show(reader))
    while not output.done() and (typed := await keys.read(1024)) and LEAVE not in typed:
        writer.write(typed)
        await writer.drain()
    output.cancel()
    writer.close()


async def _show(reader: asyncio.StreamReader) -> None:
    while data := await reader.read(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
