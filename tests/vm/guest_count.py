#!/usr/bin/python3.13 -ISB
"""What containers make of a booted node, as one JSON object of lists: two of them tell what was left behind.

Run beside `saboteur.py` as root of the node; it sees what PID 1 sees.
"""

import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]
GROUPS, SYSTEM = "/sys/fs/cgroup/containers", "0::/system/"
# Files that come and go without containers: what was said, and whom the clock asks.
PASSING = ("/run/zn/boot.log", "/run/zn/clock")
COUNTED = ("node", "template")


def main() -> None:
    """Print all of it."""
    os.chroot("/saboteur.d/proc/1/root")
    os.chdir("/")
    print(json.dumps({what: sorted(counted()) for what, counted in COUNTS.items()}))


def cgroups() -> Iterator[str]:
    """Folders of containers."""
    for place, _, _ in os.walk(GROUPS):
        yield place


def mounts() -> Iterator[str]:
    """Places of mounts, with their file systems."""
    for line in lines("/proc/1/mountinfo"):
        words = line.split()
        yield f"{words[4]} {words[words.index('-') + 1]}"


def links() -> Iterator[str]:
    """Network links."""
    for _, name in socket.if_nameindex():
        yield name


def rules() -> Iterator[str]:
    """Lines of the packet filter, elements included, without the time that some of them have left."""
    from core0.linux.nftables import Nftables

    for line in Nftables().ask("list ruleset").splitlines():
        for part in line.partition("expires")[0].strip().split(", "):
            if not part.startswith(("limit rate", "size")):
                yield part


def descriptors() -> Iterator[str]:
    """Open files of the node's own processes, by what they are."""
    for pid, name in services():
        kinds = Counter(kind_of(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd"))
        for kind, count in kinds.items():
            yield f"{name} {pid} {kind}: {count}"


def kind_of(path: str) -> str:
    """What a descriptor leads to, without its number."""
    try:
        return os.readlink(path).partition("[")[0]
    except OSError:
        return "gone"


def services() -> Iterator[tuple[str, str]]:
    """Processes of the node's services that deal with containers."""
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            for line in lines(f"/proc/{pid}/cgroup"):
                if line.removeprefix(SYSTEM) in COUNTED:
                    yield pid, line.removeprefix(SYSTEM)


def files() -> Iterator[str]:
    """Files and folders below /run."""
    for place, _, names in os.walk("/run"):
        for path in (place, *(f"{place}/{name}" for name in names)):
            if not path.startswith(PASSING):
                yield path


def processes() -> Iterator[str]:
    """Those that have ended and nobody has asked for, and those of containers."""
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            words = "".join(lines(f"/proc/{pid}/stat")).rpartition(") ")[2]
            group = "".join(lines(f"/proc/{pid}/cgroup"))
            if words.startswith("Z") or "/containers" in group:
                yield f"{pid} {words[:1]} {group}"


def namespaces() -> Iterator[str]:
    """Network namespaces that a process has."""
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            yield kind_of(f"/proc/{pid}/ns/net")


def lines(path: str) -> list[str]:
    """A file's lines; none of a process that has just ended."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


COUNTS = {one.__name__: one for one in (cgroups, mounts, links, rules, descriptors, files, processes)}

if __name__ == "__main__":
    main()
