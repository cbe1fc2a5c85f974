"""What Core-0 adds to fetching an image: its pull against wget, gzip and tar of the same layers.

Both run in one machine, in turn, from one server; the client is in the machine, too, and times are the guest's
(`bench_pull_guest.py`). The pull verifies what it gets and makes file systems of it; the others list it. Natively
(`--here`) the node runs in namespaces of this machine, as for `zn bench containers`.
"""

import asyncio
import datetime
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ci.qemu.spec import DirectBoot
from cli import machines
from cli.bench_containers import Ask, beside_node
from cli.image import cache_folder
from cli.image_report import TerminalReport
from cli.measure import Measure, ratios
from cli.tasks import ROOT
from core0.client.credentials import issue_certificate, public_hex
from image import oci
from image.sources import Places
from image.tree import file, folder

_SHEBANG = b"#!/usr/bin/python3.13 -ISB\n"
_HERE = Path(__file__).parent
_MEMORY = 1536
_MIB = 1 << 20
# What is pulled, and a smaller one beside which its memory is looked at.
_LARGE, _SMALL = "postgres", "plain"
_GOAL, _GOAL_MEMORY = 1.1, 1.2


async def measure_pull(image: Path, runs: int, *, here: bool, counted: bool) -> list[Measure]:
    """Pull an image `runs` times each way, in turn; then look at the puller's memory with that and a small one.

    The memory is not looked at here: there may be no controller of it.
    """
    seconds: dict[str, list[float]] = {"pull": [], "plain": []}
    memory: dict[str, list[float]] = {_LARGE: [], _SMALL: []}
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        async with _place(image, Path(scratch), here=here, counted=counted) as (ask, origin, layers):
            for _ in range(runs):
                seconds["pull"].append(await ask("pull", f"{origin}/{_LARGE}:latest"))
                seconds["plain"].append(await ask("plain", *(f"{origin}/v2/{layer}" for layer in layers)))
            for _ in range(0 if here else runs):
                for name, samples in memory.items():
                    samples.append(await ask("memory", f"{origin}/{name}:latest") / _MIB)
    ours = Measure(f"pull of {_LARGE}", "s", tuple(seconds["pull"]))
    plain = Measure("wget, gzip and tar of its layers", "s", tuple(seconds["plain"]))
    return [ours, plain, ratios("pull / wget, gzip and tar", ours, plain, _GOAL), *_of_memory(memory)]


def _of_memory(samples: dict[str, list[float]]) -> list[Measure]:
    if not samples[_LARGE]:
        return []
    large, small = (
        Measure(f"puller's memory, {name}", "MiB", tuple(samples[name])) for name in (_LARGE, _SMALL)
    )
    return [large, small, ratios(f"puller's memory, {_LARGE} / {_SMALL}", large, small, _GOAL_MEMORY)]


@asynccontextmanager
async def _place(
    image: Path, scratch: Path, *, here: bool, counted: bool
) -> AsyncIterator[tuple[Ask, str, list[str]]]:
    """A node, and a registry; yields the way to the program beside it, the registry, and what is measured."""
    layouts = scratch / "oci"
    layouts.mkdir()
    places = Places(ROOT, cache_folder())
    for name in (_LARGE, _SMALL):
        request = oci.Request(ROOT / "initramfs" / f"{name}.toml", "amd64", layouts / name, places)
        await asyncio.to_thread(oci.pack, request, TerminalReport())
    boot = await asyncio.to_thread(_boot, image, scratch, places)
    words = (str(image), "--oci", str(layouts))
    acceleration = None if here else await machines.measured_by(image, counted=counted)
    async with beside_node(boot, words, scratch, acceleration, _MEMORY) as (ask, origin):
        await ask("reach")
        yield ask, origin, _layers(layouts / _LARGE)


def _layers(layout: Path) -> list[str]:
    """Where a registry has the layers of an image, by its layout."""
    (image,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(_blob(layout, image["digest"]).read_text())
    return [f"{layout.name}/blobs/{layer['digest']}" for layer in manifest["layers"]]


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _boot(image: Path, scratch: Path, places: Places) -> DirectBoot:
    """The image with the guest's program before PID 1, a certificate of the operator's, and wget, gzip and tar."""
    key = Ed25519PrivateKey.generate()
    certificate = issue_certificate(key, "bench", now=datetime.datetime.now(datetime.UTC))
    manifest = ROOT / "initramfs" / f"{_SMALL}.toml"
    tree = oci.compose_root(manifest, "amd64", places, TerminalReport()).tree
    added = [
        file("bench", _SHEBANG + _program("pull"), "bench", 0o755),
        folder("bench.d", "bench"),
        folder("bench.d/cli", "bench"),
        file("bench.d/cli/bench_containers_guest.py", _program("containers"), "bench"),
        file("bench.d/node", (_HERE / "bench_containers_node.py").read_bytes(), "bench"),
        file("bench.d/client.pem", certificate, "bench", 0o600),
        folder("plain", "bench"),
        *(replace(entry, path=f"plain/{entry.path}") for entry in tree.values()),
    ]
    return machines.guest_boot(image, scratch, added, (f"zn.operator={public_hex(key)}",))


def _program(name: str) -> bytes:
    return (_HERE / f"bench_{name}_guest.py").read_bytes()
