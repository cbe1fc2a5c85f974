#!/usr/bin/python3.13 -ISB
"""The first program of a test's machine (`rdinit=/saboteur`): it leaves a process behind and becomes the real /init.

That process stays on the initial root, below everything that PID 1 mounts, reads lines from the serial console, and
on `kill NAME ...` ends the node's own processes of these names, all at the same moment. Nothing of the product knows.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("/saboteur.d")
SYSTEM = "/system"  # the branch of core0.wire.paths.CGROUP_SYSTEM, as /proc/PID/cgroup shows it


def main() -> None:
    """Leave the saboteur behind, become /init."""
    if os.fork() == 0:
        serve()
    os.execv("/init", ["/init", *sys.argv[1:]])


def serve() -> None:
    """Obey lines for ever. Real-time priority: on one CPU nobody else runs between the first kill and the last."""
    os.setsid()
    mount("proc")
    mount("devtmpfs")
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    console = os.open(FOLDER / "devtmpfs" / "ttyS0", os.O_RDWR | os.O_NOCTTY)
    tell(console, "listens")
    with os.fdopen(console, "rb") as lines:
        for line in lines:
            command, *names = line.decode(errors="replace").split() or [""]
            if command == "kill":
                tell(console, kill(names))


def tell(console: int, text: str) -> None:
    """Print a line."""
    os.write(console, f"saboteur: {text}\n".encode())


def kill(names: list[str]) -> str:
    """SIGKILL to every process of these names; returns what became of each."""
    found = {name: list(processes(name)) for name in names}
    for pids in found.values():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    return "; ".join(f"killed {name} {pids}" if pids else f"found no {name}" for name, pids in found.items())


def processes(name: str) -> Iterator[int]:
    """The living processes of one of the node's services."""
    for folder in (FOLDER / "proc").glob("[1-9]*"):
        try:
            group = (folder / "cgroup").read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
        if group == f"0::{SYSTEM}/{name}":
            yield int(folder.name)


def mount(kind: str) -> None:
    """Mount a file system of the kernel's own in the folder of its name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(kind.encode(), bytes(FOLDER / kind), kind.encode(), 0, None) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount {kind}")


if __name__ == "__main__":
    main()
