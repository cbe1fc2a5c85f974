#!/usr/bin/python3.13 -ISB
"""Makes system calls of the node's own processes fail, by Debian's strace, which lies beside `saboteur.py`.

begin SERVICE WORD ...   trace the processes of a service and what they fork, with these words for strace(1); says
                         once it does. --trace-path=netlink:PROTOCOL stands for their sockets of that protocol
end                      stop that
"""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.linux import mounts, namespaces

HOME = Path("/saboteur.d")
PROC = HOME / "proc"
LIBRARIES = HOME / "debian/usr/lib/x86_64-linux-gnu"
STRACE = [LIBRARIES / "ld-linux-x86-64.so.2", "--library-path", LIBRARIES, HOME / "debian/usr/bin/strace"]
TRACER = HOME / "strace.pid"
HAPPENED = re.compile("INJECTED|killed by")


def main() -> None:
    """Obey."""
    verb, *words = sys.argv[1:]
    print(begin(*words) if verb == "begin" else end())


def begin(service: str, *words: str) -> str:
    """Start a tracer that outlives this program."""
    show_processes()
    traced = list(processes(service))
    pids = [f"--attach={pid}" for pid in traced]
    meant = [one for word in words for one in meanings(word, traced)]
    said = (HOME / "strace.err").open("wb")
    command = [*STRACE, "-f", *pids, "-o", HOME / "strace.out", *meant]
    tracer = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
    )
    TRACER.write_text(str(tracer.pid))
    while tracer.poll() is None:
        if (HOME / "strace.err").read_text().count("attached") >= len(pids):
            return "begun"
        os.sched_yield()
    return (HOME / "strace.err").read_text()


def end() -> str:
    """End it, and say what calls failed by it."""
    pid = int(TRACER.read_text())
    tracer = os.pidfd_open(pid)
    os.kill(pid, signal.SIGINT)
    select.select([tracer], [], [])
    return " | ".join(
        line for line in (HOME / "strace.out").read_text().splitlines() if HAPPENED.search(line)
    )


def show_processes() -> None:
    """Have /proc where strace(1) looks up what a descriptor is; nobody else sees it."""
    namespaces.leave(namespaces.NEWNS)
    mounts.set_propagation_private()
    mounts.mount("proc", "/proc", "proc")


def meanings(word: str, pids: list[int]) -> list[str]:
    """What a word is to strace(1)."""
    option, _, protocol = word.partition("netlink:")
    return (
        [f"{option}socket:[{one}]" for pid in pids for one in sockets(pid, protocol)] if protocol else [word]
    )


def sockets(pid: int, protocol: str) -> Iterator[str]:
    """The numbers of a process's netlink sockets of a protocol that are in no group, as only talks are."""
    open_now = {os.readlink(one) for one in (PROC / str(pid) / "fd").iterdir()}
    for line in (PROC / str(pid) / "net/netlink").read_text().splitlines()[1:]:
        _, its_protocol, _, groups, *_, number = line.split()
        if its_protocol == protocol and int(groups, 16) == 0 and f"socket:[{number}]" in open_now:
            yield number


def processes(name: str) -> Iterator[int]:
    """The living processes of one of the node's services."""
    for folder in PROC.glob("[1-9]*"):
        if (folder / "cgroup").read_text().strip() == f"0::/system/{name}":
            yield int(folder.name)


if __name__ == "__main__":
    main()
