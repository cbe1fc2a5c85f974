"""How much memory the node's own processes take: alone, and with a container, whose questions for names one answers.

Their proportional shares (PSS), which `zn node health` tells: what they share with Core-X counts in part.
"""

import asyncio
import hashlib
import secrets
import tempfile
from pathlib import Path

from ci.qemu.machine import Machine
from ci.qemu.spec import MachineSpec
from cli import machines, operator, serving
from cli.connect import client_of
from cli.context import Context
from cli.image import cache_folder
from cli.image_report import TerminalReport
from cli.measure import Measure
from cli.outcome import Failure
from cli.tasks import ROOT
from core0.client.client import NodeClient
from core0.wire.types import ContainerSpec
from image import oci
from image.sources import Places

_MANIFEST = ROOT / "initramfs" / "demo.toml"
_MIB = 1 << 20
_GOAL = 60
# Seconds of the node until what no boot waits for has begun, chronyd too, and what a container takes has settled.
_CALM = 20.0
_AGAIN = 1.0


async def measure_memory(
    contexts: Path, image: Path, runs: int, memory: int, *, counted: bool
) -> list[Measure]:
    """Boot a node `runs` times, and look before and after it makes its first container."""
    acceleration = await machines.measured_by(image, counted=counted)
    boot = machines.direct_boot(image, (operator.kernel_argument(contexts),))
    found = []
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        layouts = await asyncio.to_thread(_pack, Path(scratch, "oci"))
        server = serving.start(Path(scratch, "server"), (str(image), "--oci", str(layouts)))
        try:
            for run in range(runs):
                spec = MachineSpec("memory", boot, memory)
                async with Machine(spec, acceleration, Path(scratch, str(run))) as machine:
                    found.append(
                        await _look(machine, contexts, f"http://{machines.HOST}:{server.port}/demo:latest")
                    )
        finally:
            await serving.stop(Path(scratch, "server"))
    alone, beside = zip(*found, strict=True)
    return [
        Measure("the node's own processes", "MiB", alone, _GOAL),
        Measure("with a container", "MiB", beside, _GOAL),
    ]


def _pack(layouts: Path) -> Path:
    layouts.mkdir()
    places = Places(ROOT, cache_folder())
    oci.pack(oci.Request(_MANIFEST, "amd64", layouts / "demo", places), TerminalReport())
    return layouts


async def _look(machine: Machine, contexts: Path, reference: str) -> tuple[float, float]:
    """MiB of a node's own processes, without a container and with one."""
    fingerprint, address = await machines.wait_ready(machine)
    async with client_of(contexts, Context(address, fingerprint, operator.KEY_FILE)) as client:
        alone = await _taken(client)
        token = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
        await client.put_container("demo", ContainerSpec(reference, token))
        container = await client.container("demo", wait=60)
        if container.state != "running":
            raise Failure(f"cannot measure: container demo is {container.state}: {container.why}")
        return alone, await _taken(client)


async def _taken(client: NodeClient) -> float:
    until = (await client.node()).uptime_seconds + _CALM
    while (await client.node()).uptime_seconds < until:
        await client.events((await client.events()).cursor, _AGAIN)
    return sum(process.proportional_bytes for process in (await client.health()).processes) / _MIB
