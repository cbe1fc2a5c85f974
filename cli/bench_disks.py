"""What Core-0 adds to the file system: in making volumes, and in input and output inside a container.

A node with a pool, a volume and a container, and beside it in the same machine a process with bare file systems on
other disks (`bench_guest.py`) do the same in turn. Times are the guest's.
"""

import asyncio
import hashlib
import json
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from ci.qemu.accel import Acceleration
from ci.qemu.disk_files import make_blank
from ci.qemu.disks import Disk
from ci.qemu.machine import Machine
from ci.qemu.spec import MachineSpec
from cli import machines, operator, serving
from cli.connect import client_of
from cli.context import Context
from cli.image import cache_folder
from cli.image_report import TerminalReport
from cli.measure import Measure, ratios
from cli.outcome import Failure
from cli.tasks import ROOT
from core0.client.client import NodeClient
from core0.wire.storage import PoolSpec, Selector
from core0.wire.types import ContainerSpec, Limits, VolumeMount
from core0.wire.volumes import VolumeSpec
from corex.client.client import Client, Endpoint
from corex.wire.api import ExecRequest
from image import oci
from image.sources import Places
from image.tree import Entry, file, folder

_MANIFEST = ROOT / "initramfs" / "fio.toml"
_SHEBANG = b"#!/usr/bin/python3.13 -ISB\n"
_GUEST = Path(__file__).with_name("bench_guest.py")
_GIB = 1 << 30
_SECONDS, _LONG = 20.0, 120.0
_VERBS = 20
_MEMORY = 1024
_BARE_DISKS, _POOL_DISK = ("volumes", "fio"), "pool"
_JOBS = {
    "sequential writes": ("--rw=write", "--bs=1M", "--size=64M", "--end_fsync=1"),
    "sequential reads": ("--rw=read", "--bs=1M", "--size=64M"),
    "random writes of 4 KiB": ("--rw=randwrite", "--bs=4k", "--size=64M", "--io_size=8M"),
    "random reads of 4 KiB": ("--rw=randread", "--bs=4k", "--size=64M", "--io_size=8M"),
}
_FIO = ("--name=job", "--filename=/data/job", "--direct=1", "--ioengine=psync", "--output-format=json")


async def measure_disks(contexts: Path, image: Path, runs: int, *, counted: bool) -> list[Measure]:
    """Make volumes, then run each of fio's jobs `runs` times here and there, now this first and now that."""
    speeds: dict[str, dict[str, list[float]]] = {name: {"bare": [], "inside": []} for name in _JOBS}
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        acceleration = await machines.measured_by(image, counted=counted)
        async with _machine(contexts, image, Path(scratch), acceleration) as (machine, container):
            await machines.ask_guest(machine, _LONG, "prepare", *_BARE_DISKS)
            verbs = await machines.ask_guest(machine, _LONG, "volumes", max(runs, _VERBS))
            for run, (name, job) in product(range(runs), _JOBS.items()):
                places = {
                    "bare": partial(machines.ask_guest, machine, _LONG, "fio", *_FIO, *job),
                    "inside": partial(_run_inside, container, (*_FIO, *job)),
                }
                for place in sorted(places, reverse=run % 2 == 1):
                    # what the other one left is not to be written meanwhile
                    await machines.ask_guest(machine, _LONG, "settle")
                    speeds[name][place].append(await places[place]())
    return [*_of_verbs(verbs), *(_of_job(name, **samples) for name, samples in speeds.items())]


def _of_verbs(verbs: dict[str, list[float]]) -> list[Measure]:
    milliseconds = {name: tuple(1000 * one for one in samples) for name, samples in verbs.items()}
    bare = Measure("btrfs subvolume create, bare", "ms", milliseconds.pop("bare"))
    ours = [Measure(f"{name} of a volume", "ms", samples) for name, samples in milliseconds.items()]
    return [bare, *ours, *(ratios(f"{one.name} / bare", one, bare, goal=1.5) for one in ours)]


def _of_job(name: str, bare: list[float], inside: list[float]) -> Measure:
    """How many times as long as on the bare file system it takes in a container."""
    times = tuple(one / two for one, two in zip(bare, inside, strict=True))
    return Measure(f"{name}: bare / container", "times", times, goal=1 / 0.95)


def _added() -> list[Entry]:
    """The guest's program, and the container image's files below /fio."""
    tree = oci.compose_root(_MANIFEST, "amd64", Places(ROOT, cache_folder()), TerminalReport()).tree
    below = [replace(entry, path=f"fio/{entry.path}") for entry in tree.values()]
    root = [file("bench", _SHEBANG + _GUEST.read_bytes(), "bench", 0o755), folder("fio", "bench")]
    return [*root, *below]


def _disk(scratch: Path, name: str) -> Disk:
    return Disk(name, make_blank(scratch / f"{name}.raw", 4 * _GIB))


@asynccontextmanager
async def _machine(
    contexts: Path, image: Path, scratch: Path, acceleration: Acceleration
) -> AsyncIterator[tuple[Machine, Client]]:
    """The node with a container that has a volume; yields its machine and the way to the container's Core-X."""
    layouts = scratch / "oci"
    layouts.mkdir()
    request = oci.Request(_MANIFEST, "amd64", layouts / "fio", Places(ROOT, cache_folder()))
    await asyncio.to_thread(oci.pack, request, TerminalReport())
    disks = tuple(_disk(scratch, name) for name in (*_BARE_DISKS, _POOL_DISK))
    boot = machines.guest_boot(image, scratch, _added(), (operator.kernel_argument(contexts),))
    spec = MachineSpec("disks", boot, _MEMORY, disks=disks)
    server = serving.start(scratch / "server", (str(image), "--oci", str(layouts)))
    try:
        async with Machine(spec, acceleration, scratch / "node") as machine:
            fingerprint, address = await machines.wait_ready(machine)
            async with client_of(contexts, Context(address, fingerprint, operator.KEY_FILE)) as client:
                reference = f"http://{machines.HOST}:{server.port}/fio:latest"
                endpoint = await _container(machine, client, reference)
            async with Client(endpoint) as corex:
                yield machine, corex
    finally:
        await serving.stop(scratch / "server")


async def _container(machine: Machine, client: NodeClient, reference: str) -> Endpoint:
    pool = await client.put_pool(
        "bench", PoolSpec(Selector(serials=(_POOL_DISK,)), format_blank=True), wait=60
    )
    if pool.state != "online":
        raise Failure(f"cannot measure: pool bench is {pool.state}: {pool.why}")
    await client.put_volume("data", VolumeSpec(2 * _GIB, "bench"))
    token = secrets.token_urlsafe(32)
    spec = ContainerSpec(
        image=reference,
        token_sha256=hashlib.sha256(token.encode()).hexdigest(),
        mounts=(VolumeMount("data", "/data"),),
        limits=Limits(memory_mib=320),
    )
    await client.put_container("fio", spec)
    container = await client.container("fio", wait=60)
    if container.state != "running" or not container.corex:
        raise Failure(f"cannot measure: container fio is {container.state}: {container.why}")
    port = await machine.wait_for_port(container.corex.port, _SECONDS)
    return Endpoint(f"127.0.0.1:{port}", container.corex.fingerprint, token)


async def _run_inside(container: Client, arguments: tuple[str, ...]) -> float:
    """Bytes per second that fio moved in the container."""
    done = await container.execute(ExecRequest(argv=("/usr/bin/fio", *arguments), timeout=_LONG))
    if done.exit.code != 0:
        raise Failure(f"cannot measure: fio failed: {done.stderr.data.strip()}")
    job = json.loads(done.stdout.data)["jobs"][0]
    return float(job["read"]["bw_bytes"] or job["write"]["bw_bytes"])
