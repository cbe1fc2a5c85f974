"""A node on this machine for `zn bench containers --here`: the image's own processes, natively, in namespaces.

Run as a program, it becomes the one beside the node (`bench_containers_guest.py`). Needs root.
"""

import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cli import serving
from cli.outcome import ExitCode, Failure
from core0.linux import mounts, namespaces, netlink
from core0.linux.netlink import Netlink
from image import initramfs
from image.tree import Entry, Kind

MODULE = "cli.bench_containers_here"


class Start(NamedTuple):
    """What it is told.

    Attributes:
        initramfs: the image's, with the programs of the measurement.
        root: a folder for its files.
        command_line: what the kernel would have been told.
        server: the folder of the server of images.
        words: the server's arguments.
    """

    initramfs: str
    root: str
    command_line: str
    server: str
    words: Sequence[str]


def main() -> None:
    """Make the namespaces and the root, begin the program; says where the server is, and which cgroup to end."""
    start = Start(**json.loads(sys.argv[1]))
    namespaces.leave(namespaces.NEWNET)
    with Netlink() as rtnetlink:
        rtnetlink.apply([netlink.set_up(1)])
    server = serving.start(Path(start.server), start.words)
    group = _own_cgroup()
    namespaces.leave(namespaces.NEWNS)
    mounts.set_propagation_private()
    root = Path(start.root)
    root.mkdir()
    mounts.mount("ramfs", str(root), "ramfs")  # a machine has its initramfs in one
    for entry in initramfs.entries(Path(start.initramfs).read_bytes()):
        _place(root / entry.path, entry)
    sys.stdout.write("bench: " + json.dumps({"port": server.port, "group": str(group)}) + "\n")
    sys.stdout.flush()
    mounts.pivot_into(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
    os.execv("/bench", ["/bench", "--here", start.command_line])  # noqa: S606


def _own_cgroup() -> Path:
    """A cgroup of version 2 for everything that begins from here. Raises Failure."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    place = next((Path(fields[1]) for fields in lines if fields[2] == "cgroup2"), None)
    if place is None or os.geteuid() != 0:
        raise Failure(
            "cannot run a node here: run it as root, where cgroups of version 2 are", ExitCode.USAGE
        )
    own = place / f"zn-bench-{os.getpid()}"
    own.mkdir()
    (own / "cgroup.procs").write_text(str(os.getpid()))
    return own


def _place(path: Path, entry: Entry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match entry.kind:
        case Kind.FOLDER:
            path.mkdir(exist_ok=True)
        case Kind.LINK:
            path.symlink_to(entry.content.decode())
            return
        case Kind.FILE:
            path.write_bytes(entry.content)
        case Kind.DEVICE:
            os.mknod(path, stat.S_IFCHR, os.makedev(*entry.device))
    os.chown(path, entry.owner, entry.group)
    path.chmod(entry.mode & 0o7777)


if __name__ == "__main__":
    main()
