"""What a container costs: its start against other runtimes that run the same Core-X, its memory, many at once.

In a machine a node and, beside it, a process with crun, podman and systemd-nspawn (`bench_containers_guest.py`) make
containers in turn; the client is in the machine, too, and times are the guest's. Ours get a network, a volume in
memory, id-mapped layers and a certificate of their own each; the others' are in the node's network, and their root
file system, of the same files, is mounted before they begin.
"""

import asyncio
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from cli import machines, serving
from cli.bench_containers_here import MODULE, Start
from cli.image import cache_folder
from cli.image_report import TerminalReport
from cli.measure import Measure, ratios
from cli.outcome import Failure
from cli.tasks import ROOT
from core0.client.credentials import issue_certificate, public_hex
from core0.linux import cgroups
from image import oci
from image.files import write_folder
from image.sources import Places
from image.tree import Entry, file, folder

_MANIFEST = ROOT / "initramfs" / "peers.toml"
_SHEBANG = b"#!/usr/bin/python3.13 -ISB\n"
_HERE = Path(__file__).parent
_PEERS = ("crun", "podman", "systemd-nspawn")
_MEMORY = 2048
_LONG = 1800.0
_MIB = 1 << 20
# Of Core-0: seconds natively, a tenth of others' in a machine, MiB of a container, and beside a crowd.
_GOAL_START, _GOAL_RATIO, _GOAL_MEMORY, _GOAL_BESIDE = 10.0, 0.1, 4.5, 3.0
_GOAL_BURST, _BURST, _BURSTS = 0.01, 50, 5

Ask = Callable[..., Awaitable[Any]]


async def measure_containers(image: Path, runs: int, *, here: bool, counted: bool) -> list[Measure]:
    """Start a container `runs` times each way, in turn; here also many at once."""
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        async with _place(image, Path(scratch), _MEMORY, here=here, counted=counted) as ask:
            await ask("workshop")
            samples: dict[str, list[float]] = {"ours": [], **{name: [] for name in _PEERS}}
            for _ in range(runs):
                samples["ours"].append(1000 * await ask("ours"))
                for name in _PEERS:
                    samples[name].append(1000 * await ask("peer", name))
            bursts = [await ask("burst", _BURST) for _ in range(min(runs, _BURSTS))] if here else []
    ours = Measure(
        "container, from request to answer", "ms", tuple(samples["ours"]), _GOAL_START if here else None
    )
    others = [Measure(f"the same Core-X by {name}", "ms", tuple(samples[name])) for name in _PEERS]
    return [
        ours,
        *others,
        *(ratios(f"container / {one.name}", ours, one, _GOAL_RATIO) for one in others),
        *_of_bursts(bursts),
    ]


def _of_bursts(bursts: list[dict[str, float]]) -> list[Measure]:
    if not bursts:
        return []
    each = {name: tuple(1000 * one[name] / _BURST for one in bursts) for name in ("running", "gone")}
    return [
        Measure(f"each of {_BURST} containers at once", "ms", each["running"], 1000 * _GOAL_BURST),
        Measure(f"removal of each of {_BURST}", "ms", each["gone"]),
    ]


async def measure_crowd(image: Path, count: int, memory: int, *, here: bool, counted: bool) -> list[Measure]:
    """Have so many containers at once: what each takes, and how the API answers beside them."""
    with tempfile.TemporaryDirectory(prefix="zn-bench-") as scratch:
        async with _place(image, Path(scratch), memory, here=here, counted=counted, peers=False) as ask:
            found = await ask("crowd", count)
    if any(found["left"].values()):
        raise Failure(f"{count} containers left something behind when they were removed: {found['left']}")
    alone = Measure("99 of 100 answers of the API, alone", "ms", (1000 * found["alone"],))
    beside = Measure(f"the same beside {count} containers", "ms", (1000 * found["beside"],))
    of_cgroups = (found["cgroup"],) if found["cgroup"] else ()
    return [
        *(
            Measure(f"cgroup of each of {count} idle containers", "MiB", (one / _MIB,), _GOAL_MEMORY)
            for one in of_cgroups
        ),
        Measure("the machine's memory for each", "MiB", (found["machine"] / _MIB,)),
        alone,
        beside,
        ratios("the API beside them, against alone", beside, alone, _GOAL_BESIDE),
        Measure("the same while they are removed", "ms", (1000 * found["meanwhile"],)),
        Measure("removal of all", "s", (found["gone"],)),
    ]


@asynccontextmanager
async def _place(
    image: Path, scratch: Path, memory: int, *, here: bool, counted: bool, peers: bool = True
) -> AsyncIterator[Ask]:
    """A node with the image of containers, and maybe with other runtimes; yields the way to the program beside it."""
    key = Ed25519PrivateKey.generate()
    places = Places(ROOT, cache_folder())
    wanted, lock, tree = await asyncio.to_thread(
        oci.compose_root, _MANIFEST, "amd64", places, TerminalReport()
    )
    small = [entry for entry in tree.values() if entry.path in ("usr", "usr/bin", "usr/bin/busybox")]
    layouts = scratch / "oci"
    layouts.mkdir()
    write_folder(layouts / wanted.name, oci.layout(wanted, small, lock))
    added = _added(key, tree.values() if peers else ())
    own = machines.guest_boot(image, scratch, added, (f"zn.operator={public_hex(key)}",))
    words = (str(image), "--oci", str(layouts))
    acceleration = None if here else await machines.measured_by(image, counted=counted)
    async with beside_node(own, words, scratch, acceleration, memory) as (ask, origin):
        await ask("prepare", f"{origin}/{wanted.name}:{wanted.tag}")
        yield ask


@asynccontextmanager
async def beside_node(
    boot: DirectBoot, words: tuple[str, ...], scratch: Path, acceleration: Acceleration | None, memory: int
) -> AsyncIterator[tuple[Ask, str]]:
    """A node and a server, in a machine or, without one, natively.

    Args:
        boot: the image, with a program that is typed at before PID 1.
        words: of the server's command line.
        scratch: a folder for what they leave.
        acceleration: how the machine runs; None for this one.
        memory: of the machine, in MiB.

    Yields:
        The way to that program, and the server's address as the node has it.
    """
    server = scratch / "server"
    assert boot.initramfs  # noqa: S101 — it has the program
    try:
        if acceleration is None:
            start = Start(str(boot.initramfs), str(scratch / "root"), boot.arguments, str(server), words)
            async with _here(start) as (ask, port):
                yield ask, f"http://127.0.0.1:{port}"
        else:
            port = serving.start(server, words).port
            spec = MachineSpec("beside", boot, memory)
            async with Machine(spec, acceleration, scratch / "node") as machine:
                await machines.wait_ready(machine)

                async def ask_machine(*line: object) -> Any:
                    return await machines.ask_guest(machine, _LONG, *line)

                yield ask_machine, f"http://{machines.HOST}:{port}"
    finally:
        await serving.stop(server)


def _added(key: Ed25519PrivateKey, tree: Iterable[Entry]) -> list[Entry]:
    """The guest's programs, a certificate of the operator's, and the other runtimes in a folder."""
    certificate = issue_certificate(key, "bench", now=datetime.datetime.now(datetime.UTC))
    programs = {
        name: (_HERE / f"bench_containers_{name}.py").read_bytes() for name in ("guest", "alone", "node")
    }
    return [
        file("bench", _SHEBANG + programs["guest"], "bench", 0o755),
        folder("bench.d", "bench"),
        file("bench.d/alone", programs["alone"], "bench"),
        file("bench.d/node", programs["node"], "bench"),
        file("bench.d/client.pem", certificate, "bench", 0o600),
        folder("bench.d/peers", "bench"),
        *(replace(entry, path=f"bench.d/peers/{entry.path}") for entry in tree),
    ]


@asynccontextmanager
async def _here(start: Start) -> AsyncIterator[tuple[Ask, int]]:
    """The node in namespaces of this machine; yields the way to the program beside it, and the server's port."""
    command = [sys.executable, "-P", "-m", MODULE, json.dumps(start._asdict())]
    log = Path(start.root).with_name("log")
    with log.open("wb") as said:
        program = subprocess.Popen(  # noqa: ASYNC220 — nothing else waits in this loop
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
    asked, answered = program.stdin, program.stdout
    assert asked  # noqa: S101 — they are pipes
    assert answered  # noqa: S101

    def read() -> Any:
        line = answered.readline()
        if not line.startswith("bench: "):
            raise Failure(f"cannot measure here: {log.read_text()[-4000:]}")
        return json.loads(line.removeprefix("bench: "))

    async def ask(*line: object) -> Any:
        asked.write(json.dumps(line) + "\n")
        asked.flush()
        return read()

    group = None
    try:
        begun = read()
        group = begun["group"]
        yield ask, begun["port"]
    finally:
        asked.close()
        if group:
            cgroups.kill(group)
        program.wait()
        if group:
            cgroups.remove(group)
