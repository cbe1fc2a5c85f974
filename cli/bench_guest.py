"""The first program of a machine of `zn bench disks`: the image's kernel and tools, without Core-0.

It makes a bare btrfs on each of two disks, and does what is typed: a line is a JSON list of a verb and its arguments,
the answer is one line of JSON. It runs on the node's Python; nothing here is imported by `zn`.
"""

import asyncio
import json
import os
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.linux import mounts, tools, uevents
from core0.linux.worker import Worker
from core0.node.operations import OperationTable
from core0.volumes.manager import Volumes
from core0.volumes.memory import Memory
from core0.wire.volumes import Origin, VolumeSpec

_POOL, _FIO = "/pools/bench", "/fio"
_SIZE = 64 << 20


def main() -> None:
    """Prepare the machine, then obey for ever."""
    for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")):
        mounts.mount(kind, target, kind)
    console = os.open("/dev/ttyS0", os.O_RDWR)
    attributes = termios.tcgetattr(console)
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(console, termios.TCSANOW, attributes)
    worker = Worker()
    _make_file_systems()
    os.write(console, b"bench: ready\n")
    with os.fdopen(console, "rb", buffering=0) as lines:
        for line in lines:
            verb, *rest = json.loads(line)
            found = asyncio.run(volumes(worker, *rest)) if verb == "volumes" else fio(*rest)
            os.write(console, f"bench: {json.dumps(found)}\n".encode())


def _make_file_systems() -> None:
    tools.mount_tools()
    known = tools.all_modules()
    found = [name for alias in uevents.present_modaliases(known.buses) for name in known.matching(alias)]
    known.load_all(dict.fromkeys((*found, "btrfs")))
    for device, target in (("/dev/vda", _POOL), ("/dev/vdb", f"{_FIO}/data")):
        _run("mkfs.btrfs", "--quiet", device)
        Path(target).mkdir(parents=True, exist_ok=True)
        mounts.mount(device, target, "btrfs")


def _run(name: str, *arguments: str) -> None:
    subprocess.run([tools.tool(name), *arguments], env=tools.environment(), check=True)


class _Pools:
    """One pool, which is always there."""

    def folders(self) -> Mapping[str, str]:
        return {"bench": _POOL}

    async def wait_changed(self) -> None:
        await asyncio.Event().wait()


async def volumes(worker: Worker, runs: int) -> dict[str, list[float]]:
    """Seconds for a bare `btrfs subvolume create`, and for what the manager does, in turn."""
    taken = asyncio.Event()

    def report(kind: str, subject: str, message: str) -> None:
        if message.startswith("Its volumes"):
            taken.set()

    operations = OperationTable(report)
    manager = Volumes(_Pools(), worker, report, Memory("/run/volumes"), lambda _: (), operations)
    running = asyncio.create_task(manager.run())
    await taken.wait()
    found: dict[str, list[float]] = {"bare": [], "create": [], "snapshot": [], "clone": []}
    spec = VolumeSpec(_SIZE, "bench")
    for run in range(runs):
        origin = VolumeSpec(_SIZE, "bench", origin=Origin(f"v{run}"))
        steps: dict[str, Any] = {
            "bare": asyncio.to_thread(_run, "btrfs", "subvolume", "create", f"{_POOL}/bare{run}"),
            "create": manager.put(f"v{run}", spec),
            "snapshot": manager.take_snapshot(f"v{run}", "s"),
            "clone": manager.put(f"c{run}", origin),
        }
        for name, step in steps.items():
            begun = time.perf_counter()
            await step
            found[name].append(time.perf_counter() - begun)
    running.cancel()
    return found


def fio(*arguments: str) -> Any:
    """Bytes per second that fio moved, run in its own root on the bare file system."""
    done = subprocess.run(
        ["/usr/bin/fio", *arguments],
        env={},
        capture_output=True,
        check=True,
        preexec_fn=lambda: os.chroot(_FIO),
    )
    job = json.loads(done.stdout)["jobs"][0]
    return job["read"]["bw_bytes"] or job["write"]["bw_bytes"]


if __name__ == "__main__":
    main()
