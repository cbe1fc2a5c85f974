"""What a mesh costs: TCP from a container on one node to one on another, against WireGuard by hand; and on one node.

By hand it goes between two hosts, and between guests that the hosts route, without a filter. All are namespaces of a
booted machine (`bench_mesh_guest.py`): the kernel is the image's, and one processor does the cryptography for all.
"""

import tempfile
from pathlib import Path

from ci.qemu.machine import Machine
from ci.qemu.spec import MachineSpec
from cli import machines
from cli.measure import Measure, ratios
from image.tree import file

_SHEBANG = b"#!/usr/bin/python3.13 -ISB\n"
_GUEST = Path(__file__).with_name("bench_mesh_guest.py")
_SECONDS, _LONG = 20.0, 60.0
# Bytes that go each way; more where nothing is encrypted.
_SIZE, _PLAIN_SIZE = 16 << 20, 128 << 20
_SIZES = dict.fromkeys(("mesh", "routed", "bare"), _SIZE) | dict.fromkeys(
    ("beside", "within", "pair"), _PLAIN_SIZE
)
_GOAL, _PLAIN_GOAL = 1 / 0.9, 1 / 0.95
_WAYS = {
    "mesh": "container to container by a mesh",
    "routed": "guest to guest by bare WireGuard",
    "bare": "host to host by bare WireGuard",
    "beside": "container to container of one node",
    "within": "the same, in a network that nothing leaves",
    "pair": "over a bare pair of links",
}


async def measure_mesh(image: Path, runs: int, *, counted: bool) -> list[Measure]:
    """Send through both `runs` times, now this first and now that."""
    samples: dict[str, list[float]] = {way: [] for way in _SIZES}
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        acceleration = await machines.measured_by(image, counted=counted)
        program = file("bench", _SHEBANG + _GUEST.read_bytes(), "bench", 0o755)
        spec = MachineSpec("mesh", machines.guest_boot(image, Path(scratch), [program]))
        async with Machine(spec, acceleration, Path(scratch) / "node") as machine:
            await machine.wait_for_phase("storage", _SECONDS)
            await machines.ask_guest(machine, _LONG, "prepare")
            for way, size in _SIZES.items():
                # the handshake is not measured
                await machines.ask_guest(machine, _LONG, "throughput", way, size // 4)
            for run in range(runs):
                for way in sorted(samples, reverse=run % 2 == 1):
                    speed = await machines.ask_guest(machine, _LONG, "throughput", way, _SIZES[way])
                    samples[way].append(speed / 1e6)
    return _compared({way: Measure(_WAYS[way], "MB/s", tuple(some)) for way, some in samples.items()})


def _compared(ways: dict[str, Measure]) -> list[Measure]:
    meshes = (("routed", "mesh", _GOAL), ("bare", "mesh", _GOAL))
    pairs = (*meshes, ("pair", "beside", _PLAIN_GOAL), ("pair", "within", _PLAIN_GOAL))
    found = [
        ratios(f"{_WAYS[other]} / {_WAYS[own]}", ways[other], ways[own], goal) for other, own, goal in pairs
    ]
    return [*ways.values(), *found]
