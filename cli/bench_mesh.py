"""What a mesh costs: TCP from a container on one node to one on another, against WireGuard by hand.

By hand it goes between two hosts, and between guests that the hosts route, without a filter. All are namespaces of a
booted machine (`bench_mesh_guest.py`): the kernel is the image's, and one processor does the cryptography for all.
"""

import tempfile
from pathlib import Path

from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from cli import machines
from cli.measure import Measure, ratios
from image import contents, initramfs
from image.tree import file

_SHEBANG = b"#!/usr/bin/python3.13 -ISB\n"
_GUEST = Path(__file__).with_name("bench_mesh_guest.py")
_SECONDS, _LONG = 20.0, 60.0
_SIZE = 16 << 20
_GOAL = 1 / 0.9


async def measure_mesh(image: Path, runs: int, *, counted: bool) -> list[Measure]:
    """Send through both `runs` times, now this first and now that."""
    samples: dict[str, list[float]] = {"mesh": [], "routed": [], "bare": []}
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        acceleration = await machines.measured_by(image, counted=counted)
        spec = MachineSpec("mesh", _boot(image, Path(scratch)))
        async with Machine(spec, acceleration, Path(scratch) / "node") as machine:
            await machine.wait_for_phase("storage", _SECONDS)
            await machines.ask_guest(machine, _LONG, "prepare")
            for pair in samples:
                # the handshake is not measured
                await machines.ask_guest(machine, _LONG, "throughput", pair, _SIZE // 4)
            for run in range(runs):
                for pair in sorted(samples, reverse=run % 2 == 1):
                    samples[pair].append(
                        await machines.ask_guest(machine, _LONG, "throughput", pair, _SIZE) / 1e6
                    )
    mesh = Measure("container to container by a mesh", "MB/s", tuple(samples["mesh"]))
    bare = Measure("host to host by bare WireGuard", "MB/s", tuple(samples["bare"]))
    routed = Measure("guest to guest behind them, no filter", "MB/s", tuple(samples["routed"]))
    found = [ratios(f"{name} / mesh", one, mesh, _GOAL) for name, one in (("routed", routed), ("bare", bare))]
    return [mesh, routed, bare, *found]


def _boot(image: Path, scratch: Path) -> DirectBoot:
    """The image with the guest's program before PID 1."""
    own = machines.direct_boot(image, ("rdinit=/bench",))
    assert own.initramfs  # noqa: S101 — a build has one
    program = file("bench", _SHEBANG + _GUEST.read_bytes(), "bench", 0o755)
    whole = scratch / "initramfs"
    whole.write_bytes(initramfs.put_before(own.initramfs.read_bytes(), [program], contents.load(image).epoch))
    return DirectBoot(own.kernel, whole, own.arguments)
