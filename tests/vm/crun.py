"""Debian's crun for a booted node: what a segment brings along, and how a test runs a container by it.

`podman.json` is what Debian's podman 5.4.2 (with golang-github-containers-common 0.62.2, for its filter) wrote as
config.json for `podman --cgroup-manager=cgroupfs create --network none --rootfs ROOT /bin/sh` and `podman init`, as
root on a host without AppArmor and SELinux, its container's name and limits of that host aside.
"""

import base64
import json
import zlib
from pathlib import Path
from typing import NamedTuple

from ci.qemu.machine import Machine
from image.tree import Entry, file
from tests.vm import python_root
from tests.vm.sabotage import brought, order

HERE = Path(__file__).parent


class Ran(NamedTuple):
    """What a program in a container by crun printed, and the node's own namespaces."""

    out: str
    node: dict[str, str]


def files(image: Path, program: str) -> list[Entry]:
    """What `guest_crun.py` needs beside it, besides crun, to run a program of this folder."""
    listing = json.dumps([entry.path for entry in python_root.taken(image)]).encode()
    programs = [brought(HERE / name) for name in ("guest_crun.py", "podman.json", program)]
    return [file("root.json", listing, "tests"), *programs]


async def run(machine: Machine, *words: str) -> Ran:
    """Run a program in a container by crun, to its end."""
    said = await order(machine, "run", "guest_crun.py", *words)
    assert said.startswith("{"), said
    done = json.loads(said)
    assert done["code"] == 0, done["errors"]
    return Ran(done["out"], done["node"])


def unpacked(rows: str) -> dict[str, list[str]]:
    """What `prober.py` printed."""
    found: dict[str, list[str]] = json.loads(zlib.decompress(base64.b64decode(rows)))
    return found
