"""What Core-X costs as a manager of processes: beside supervisord, s6 and runit, and by itself.

A node and, beside it, the program that measures (`bench_corex_guest.py`) run in a machine, or natively in namespaces
of this one. Each manager runs in a container of the same image (`initramfs/managers.toml`): the same filter of
system calls, the same root. The others need not collect output here; Core-X does.
"""

import asyncio
import datetime
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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

_MANIFEST = ROOT / "initramfs" / "managers.toml"
_SHEBANG = b"#!/usr/bin/python3.13 -ISB\n"
_HERE = Path(__file__).parent
_MEMORY = 4096
_KIB, _MIB = 1 << 10, 1 << 20
_OURS, _PEERS = "ours", ("s6", "runit", "supervisord")
# Seconds that managers are looked at while nothing happens.
_IDLE = 20.0
_KEYS = 500
# Containers beside the one whose Core-X is looked at: what all share counts less for each.
_OTHERS = 20
# Seconds and KiB with many services; seconds, milliseconds and part of a processor, in percent; MiB and milliseconds.
_GOAL_STOP, _GOAL_EACH = 1.0, 25.0
_GOAL_LINES, _GOAL_ECHO, _GOAL_BUSY = 0.5, 10.0, 0.1
_GOAL_OWN, _GOAL_ANSWER = 6.0, 50.0


async def measure_corex(image: Path, runs: int, count: int, *, here: bool, counted: bool) -> list[Measure]:
    """Run `count` services by each manager, in turn, `runs` times; then what only Core-X does."""
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        async with _place(image, Path(scratch), here=here, counted=counted) as ask:
            many: dict[str, list[Any]] = {name: [] for name in (_OURS, *_PEERS)}
            for run in range(runs):
                for name, found in many.items():
                    found.append(await ask("many", name, count, 0 if run else _IDLE))
            own = [await ask("own", _OTHERS) for _ in range(runs)]
            lines = [await ask("lines") for _ in range(runs)]
            echoes = {
                flood: [await ask("echo", _KEYS, flood) for _ in range(runs)] for flood in (False, True)
            }
    return [*_of_many(many, count), *_of_own(own), *_of_lines(lines), *_of_echoes(echoes)]


def _of_many(many: dict[str, list[Any]], count: int) -> list[Measure]:
    def all_of(what: str, key: str, unit: str, scale: float, goal: float | None) -> list[Measure]:
        return [
            Measure(
                f"{what}, {name}",
                unit,
                tuple(one[key] * scale for one in found if key in one),
                goal if name == _OURS else None,
            )
            for name, found in many.items()
        ]

    starts = all_of(f"{count} services started", "start", "s", 1, None)
    ours, s6 = starts[0], starts[1]
    return [
        *starts,
        ratios("their start, ours / s6", ours, s6, 1.0),
        *all_of("all of them stopped", "stop", "s", 1, _GOAL_STOP),
        *all_of("manager's memory for each", "each", "KiB", 1 / _KIB, _GOAL_EACH),
        *all_of("manager's processor time at rest", "busy", "%", 100, _GOAL_BUSY),
        *all_of("times it got a processor at rest", "switches", "per s", 1, None),
    ]


def _of_own(own: list[Any]) -> list[Measure]:
    memory = tuple(one["memory"] / _MIB for one in own)
    among = tuple(one["among"] / _MIB for one in own)
    answers = tuple(1000 * one["answer"] for one in own)
    return [
        Measure("Core-X's own memory, as the node's only one", "MiB", memory),
        Measure(f"Core-X's own memory, among {_OTHERS} others", "MiB", among, _GOAL_OWN),
        Measure("container, from request to Core-X's answer", "ms", answers, _GOAL_ANSWER),
    ]


def _of_lines(lines: list[Any]) -> list[Measure]:
    lost = tuple(float(one["written"] - one["received"] - one["declared"]) for one in lines)
    received = tuple(100 * one["received"] / one["written"] for one in lines)
    return [
        Measure(
            "1,000,000 lines of 84 bytes, with a follower",
            "s",
            tuple(one["seconds"] for one in lines),
            _GOAL_LINES,
        ),
        Measure("lines that were lost without a word", "lines", lost, 0.0),
        Measure("lines that the follower got", "%", received),
    ]


def _of_echoes(echoes: dict[bool, list[list[float]]]) -> list[Measure]:
    def part(found: list[list[float]], hundredths: int) -> tuple[float, ...]:
        return tuple(1000 * sorted(one)[len(one) * hundredths // 100] for one in found)

    return [
        Measure("keystroke's echo, 50 of 100", "ms", part(echoes[False], 50)),
        Measure("keystroke's echo, 99 of 100", "ms", part(echoes[False], 99)),
        Measure("the same beside a flood of lines, 50 of 100", "ms", part(echoes[True], 50)),
        Measure("the same beside a flood of lines, 99 of 100", "ms", part(echoes[True], 99), _GOAL_ECHO),
    ]


@asynccontextmanager
async def _place(image: Path, scratch: Path, *, here: bool, counted: bool) -> AsyncIterator[Ask]:
    """A node that has the managers' image; yields the way to the program beside it."""
    layouts = scratch / "oci"
    layouts.mkdir()
    places = Places(ROOT, cache_folder())
    request = oci.Request(_MANIFEST, "amd64", layouts / _MANIFEST.stem, places)
    await asyncio.to_thread(oci.pack, request, TerminalReport())
    boot = await asyncio.to_thread(_boot, image, scratch)
    acceleration = None if here else await machines.measured_by(image, counted=counted)
    async with beside_node(boot, (str(image), "--oci", str(layouts)), scratch, acceleration, _MEMORY) as (
        ask,
        origin,
    ):
        await ask("prepare", f"{origin}/{_MANIFEST.stem}:latest")
        yield ask


def _boot(image: Path, scratch: Path) -> DirectBoot:
    """The image with the guest's programs before PID 1, and a certificate of the operator's."""
    key = Ed25519PrivateKey.generate()
    certificate = issue_certificate(key, "bench", now=datetime.datetime.now(datetime.UTC))
    added = [
        file("bench", _SHEBANG + _program("corex_guest"), "bench", 0o755),
        folder("bench.d", "bench"),
        folder("bench.d/cli", "bench"),
        file("bench.d/cli/bench_containers_guest.py", _program("containers_guest"), "bench"),
        file("bench.d/node", _program("containers_node"), "bench"),
        file("bench.d/client.pem", certificate, "bench", 0o600),
    ]
    return machines.guest_boot(image, scratch, added, (f"zn.operator={public_hex(key)}",))


def _program(name: str) -> bytes:
    return (_HERE / f"bench_{name}.py").read_bytes()
