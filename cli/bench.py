"""`zn bench`: the measures of README.md, each taken at least five times."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cli import measure
from cli.output import Json
from cli.tasks import ROOT

app = typer.Typer(help="Measure: medians of at least five, ratios within one run.", no_args_is_help=True)

Runs = Annotated[int, typer.Option(min=measure.RUNS, help="How often to measure.")]
Image = Annotated[Path, typer.Option(help="Output folder of a build.", show_default="build/amd64-virt")]
Memory = Annotated[int, typer.Option(help="RAM of the machines in MiB.")]
Counted = Annotated[
    bool,
    typer.Option("--by-instructions", help="Let the machines' clocks count instructions (QEMU's -icount)."),
]
Here = Annotated[bool, typer.Option("--here", help="Natively, in namespaces of this machine. Needs root.")]
_IMAGE = ROOT / "build" / "amd64-virt"


@app.command()
def boot(
    ctx: typer.Context,
    image: Image = _IMAGE,
    runs: Runs = measure.RUNS,
    memory: Memory = 512,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """From the kernel's entry to Core-0's answer, against the same kernel with busybox as init.

    Example: zn bench boot --runs 7
    """
    from cli.bench_boot import measure_boot

    measure.report(asyncio.run(measure_boot(ctx.obj.contexts, image, runs, memory, counted=counted)), as_json)


@app.command()
def memory(
    ctx: typer.Context,
    image: Image = _IMAGE,
    runs: Runs = measure.RUNS,
    memory: Memory = 512,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """What the node's own processes take of the machine's memory, alone and with a container.

    Example: zn bench memory
    """
    from cli.bench_memory import measure_memory

    found = asyncio.run(measure_memory(ctx.obj.contexts, image, runs, memory, counted=counted))
    measure.report(found, as_json)


@app.command("disks-boot")
def disks_boot(
    ctx: typer.Context,
    image: Image = _IMAGE,
    runs: Runs = measure.RUNS,
    memory: Memory = 512,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """From the kernel's entry to Core-0's answer with 24 disks on three buses, against the same with one.

    Example: zn bench disks-boot
    """
    from cli.bench_boot import measure_disks_boot

    measure.report(
        asyncio.run(measure_disks_boot(ctx.obj.contexts, image, runs, memory, counted=counted)), as_json
    )


@app.command()
def build(runs: Runs = measure.RUNS, as_json: Json = False) -> None:
    """A rebuild after editing a Python file, and a cold build from a filled cache.

    Example: zn bench build
    """
    from cli.bench_build import measure_builds

    measure.report(measure_builds(runs), as_json)


@app.command("image")
def image_size(image: Image = _IMAGE, as_json: Json = False) -> None:
    """The bytes that a machine fetches. They are the same each time, so one look is enough.

    Example: zn bench image
    """
    from cli.bench_build import measure_size

    measure.report(measure_size(image), as_json)


@app.command()
def quota(runs: Runs = measure.RUNS, as_json: Json = False) -> None:
    """Btrfs's two kinds of quota against none, on file systems in files of this machine. Needs root.

    Example: zn bench quota
    """
    from cli.bench_quota import measure_quota

    measure.report(measure_quota(runs), as_json)


@app.command()
def network(runs: Runs = 21, as_json: Json = False) -> None:
    """Attaching a container, against `ip` and `nft`; bytes between two, against a bare pair of links. Needs root.

    Example: zn bench network
    """
    from cli.bench_network import measure_network

    measure.report(measure_network(runs), as_json)


@app.command()
def mesh(
    image: Image = _IMAGE, runs: Runs = measure.RUNS, counted: Counted = False, as_json: Json = False
) -> None:
    """TCP from container to container over a mesh against bare WireGuard by hand, both in one booted machine.

    Example: zn bench mesh
    """
    from cli.bench_mesh import measure_mesh

    measure.report(asyncio.run(measure_mesh(image, runs, counted=counted)), as_json)


@app.command()
def disks(
    ctx: typer.Context,
    image: Image = _IMAGE,
    runs: Runs = measure.RUNS,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """Volumes made against bare subvolumes, and fio in a container against fio on the bare file system.

    Example: zn bench disks
    """
    from cli.bench_disks import measure_disks

    measure.report(asyncio.run(measure_disks(ctx.obj.contexts, image, runs, counted=counted)), as_json)


@app.command()
def containers(
    image: Image = _IMAGE,
    runs: Runs = 20,
    here: Here = False,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """The start of a container, from the request to its Core-X's answer, against crun, podman and systemd-nspawn.

    Example: zn bench containers --runs 20
    """
    from cli.bench_containers import measure_containers

    measure.report(asyncio.run(measure_containers(image, runs, here=here, counted=counted)), as_json)


@app.command()
def crowd(
    image: Image = _IMAGE,
    count: Annotated[int, typer.Option(min=2, max=1999, help="How many containers.")] = 200,
    memory: Memory = 1024,
    here: Here = False,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """Many idle containers at once: what each takes of the memory, and how the API answers beside them.

    Example: zn bench crowd --count 200 --memory 1024
    """
    from cli.bench_containers import measure_crowd

    measure.report(asyncio.run(measure_crowd(image, count, memory, here=here, counted=counted)), as_json)


@app.command()
def pull(
    image: Image = _IMAGE,
    runs: Runs = measure.RUNS,
    here: Here = False,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """The pull of an image, verified and made file systems of, against wget, gzip and tar of the same layers.

    Example: zn bench pull
    """
    from cli.bench_pull import measure_pull

    measure.report(asyncio.run(measure_pull(image, runs, here=here, counted=counted)), as_json)


@app.command()
def corex(
    image: Image = _IMAGE,
    runs: Runs = measure.RUNS,
    count: Annotated[int, typer.Option(min=2, max=4000, help="How many services.")] = 1000,
    here: Here = False,
    counted: Counted = False,
    as_json: Json = False,
) -> None:
    """Core-X as a manager of many processes, beside supervisord, s6 and runit; its logs, terminals and memory.

    Example: zn bench corex --here
    """
    from cli.bench_corex import measure_corex

    measure.report(asyncio.run(measure_corex(image, runs, count, here=here, counted=counted)), as_json)
