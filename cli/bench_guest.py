"""The first program of the machine of `zn bench disks`: it leaves a process behind and becomes the real /init.

That process has mounts of its own, and nothing that the node made. It does what is typed at the console: a line is a
JSON list of a verb and its arguments, the answer is one line of JSON. Nothing here is imported by `zn`.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.init.phases import Boot, mount_kernel_files
from core0.linux import mounts, namespaces, tools
from core0.linux.worker import Worker
from core0.node.operations import OperationTable
from core0.volumes.manager import Volumes
from core0.volumes.memory import Memory
from core0.wire.volumes import Origin, VolumeSpec

_POOL, _FIO = "/pools/bench", "/fio"
_SIZE = 64 << 20


def main() -> None:
    """Leave the process behind, become /init."""
    if os.fork() == 0:
        serve()
    os.execv("/init", ["/init", *sys.argv[1:]])  # noqa: S606 — the node's own first program


def serve() -> None:
    """Obey for ever."""
    os.setsid()
    namespaces.leave(namespaces.NEWNS)
    mount_kernel_files(Boot())
    console = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
    verbs: dict[str, Callable[..., Any]] = {
        "prepare": prepare,
        "volumes": volumes,
        "settle": settle,
        "fio": fio,
    }
    with os.fdopen(console, "rb") as lines:
        for line in lines:
            verb, *rest = json.loads(line)
            os.write(console, f"bench: {json.dumps(verbs[verb](*rest))}\n".encode())


def prepare(*serials: str) -> str:
    """Make a bare file system on each of two disks: for volumes, and for fio."""
    tools.mount_tools()
    tools.all_modules().load("btrfs")
    for device, target in zip(map(_device, serials), (_POOL, f"{_FIO}/data"), strict=True):
        _run("mkfs.btrfs", "--quiet", device)
        Path(target).mkdir(parents=True, exist_ok=True)
        mounts.mount(device, target, "btrfs", mounts.MS_NOATIME)
    return "prepared"


def _device(serial: str) -> str:
    """The kernel numbers disks as it finds them, which is another order now and then."""
    found = next(one for one in Path("/sys/block").glob("vd*") if (one / "serial").read_text() == serial)
    return f"/dev/{found.name}"


def _run(name: str, *arguments: str) -> None:
    subprocess.run([tools.tool(name), *arguments], env=tools.environment(), check=True)


class _Pools:
    """One pool, which is always there."""

    def folders(self) -> Mapping[str, str]:
        return {"bench": _POOL}

    def devices(self) -> Mapping[str, frozenset[str]]:
        return {"bench": frozenset()}

    async def wait_changed(self) -> None:
        await asyncio.Event().wait()


def volumes(runs: int) -> dict[str, list[float]]:
    """Seconds for a bare `btrfs subvolume create`, and for what the manager does, in turn.

    What a clone leaves to be done behind its answer, which is to count what it shares, has ended before the next one.
    """
    return asyncio.run(_volumes(Worker(), runs))


async def _volumes(worker: Worker, runs: int) -> dict[str, list[float]]:
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
    standing = asyncio.all_tasks()
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
            found[name].append(round(time.perf_counter() - begun, 6))
            while left := asyncio.all_tasks() - standing:
                await asyncio.wait(left)
    running.cancel()
    return found


def settle() -> None:
    """Let every file system write what it has not written yet."""
    os.sync()


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
