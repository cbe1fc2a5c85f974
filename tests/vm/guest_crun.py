#!/usr/bin/python3.13 -ISB
"""Runs a container by crun as podman would, on a booted node, in mounts and a place of its own.

Lies beside `saboteur.py` on the initial root, with crun and its libraries below /saboteur.d/debian, the names of
the root's files in /saboteur.d/root.json, and the configuration that podman wrote in /saboteur.d/podman.json. Prints
what the program in the container prints. Arguments: the program and its arguments.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.init.phases import Boot, leave_initial_root, mount_kernel_files
from core0.linux import mounts, namespaces, netlink, tools
from core0.linux.netlink import End, Netlink
from core0.linux.nftables import Nftables

HOME = Path("/saboteur.d")
PLACE = Path("/mnt")
DEBIAN = HOME / "debian/usr"
LIBRARIES = DEBIAN / "lib/x86_64-linux-gnu"
LOADER = LIBRARIES / "ld-linux-x86-64.so.2"
# Where clouds tell machines their secrets; here the node itself answers in its place.
METADATA = "169.254.169.254"
ADDRESS, GATEWAY, SUBNET, LINK = "10.89.0.2", "10.89.0.1", "10.89.0.0/24", "podman0"
# netavark's rules for podman's default network, and what a host that filters nothing would let through.
RULES = f"""
add table ip podman
add chain ip podman hide {{ type nat hook postrouting priority srcnat; policy accept; }}
add rule ip podman hide ip saddr {SUBNET} ip daddr != {SUBNET} masquerade
insert rule inet zeronode forward iifname "{LINK}" accept
insert rule inet zeronode forward oifname "{LINK}" accept
"""


def main() -> None:
    """Run one container to its end."""
    namespaces.leave(namespaces.NEWNS)
    mounts.set_propagation_private()
    # a root that can be left for another: the initial one cannot (pivot_root(2))
    leave_initial_root(Boot())
    mount_kernel_files(Boot())
    tools.mount_tools()
    mounts.mount("tmpfs", str(PLACE), "tmpfs")
    network = make_network()
    bundle = PLACE / "bundle"
    copy_root(bundle / "rootfs")
    (bundle / "config.json").write_text(json.dumps(config(sys.argv[1:], network)))
    command = [LOADER, "--library-path", LIBRARIES, DEBIAN / "bin/crun"]
    command += ["--root", PLACE / "state", "--cgroup-manager", "cgroupfs", "run", "--bundle", bundle, "probe"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, pass_fds=[network]
    )
    own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in os.listdir("/proc/self/ns")}
    print(
        json.dumps({"code": done.returncode, "out": done.stdout, "errors": done.stderr[-2000:], "node": own})
    )


def copy_root(target: Path) -> None:
    """The node's own Python, and the program beside this one."""
    for name in json.loads((HOME / "root.json").read_text()):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if Path("/", name).is_dir() and not Path("/", name).is_symlink():
            place.mkdir(exist_ok=True)
        else:
            shutil.copy2(Path("/", name), place, follow_symlinks=False)
    shutil.copy2(HOME / "prober.py", target)
    (target / "tmp").mkdir(mode=0o1777)
    (target / "etc").mkdir()


def config(arguments: list[str], network: int) -> dict[str, Any]:
    """What podman wrote, for this root, program and network; its own files and limits are those of this host."""
    said: dict[str, Any] = json.loads((HOME / "podman.json").read_text())
    said["root"] = {"path": "rootfs"}
    said["process"]["args"] = arguments
    # as podman: as many as the node's processes may have
    said["process"]["rlimits"] = [
        {"type": f"RLIMIT_{name}", "soft": hard, "hard": hard}
        for name in ("NOFILE", "NPROC")
        for _, hard in [resource.prlimit(1, getattr(resource, f"RLIMIT_{name}"))]
    ]
    own = PLACE / "own"
    own.mkdir()
    for mount in said["mounts"]:
        if mount["type"] == "bind":
            source = own / Path(mount["destination"]).name
            source.mkdir() if source.name == "shm" else source.touch()
            mount["source"] = str(source)
    said["linux"]["cgroupsPath"] = "/podman/probe"
    for namespace in said["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = f"/proc/{os.getpid()}/fd/{network}"
    return said


def make_network() -> int:
    """A network namespace with a link to the node, as podman's default network has it; gives its descriptor."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    namespaces.leave(namespaces.NEWNET)
    away = os.open("/proc/self/ns/net", os.O_RDONLY)
    namespaces.enter(home, namespaces.NEWNET)
    with Netlink() as here:
        here.apply([netlink.add_veth(End(LINK), End("eth0"), away)])
        index = next(link.index for link in here.links() if link.name == LINK)
        own = next(link.index for link in here.links() if link.name == "lo")
        here.apply([netlink.add_address(index, f"{GATEWAY}/24"), netlink.add_address(own, f"{METADATA}/32")])
    namespaces.enter(away, namespaces.NEWNET)
    with Netlink() as there:
        links = {link.name: link.index for link in there.links()}
        there.apply([netlink.set_up(links["lo"]), netlink.set_up(links["eth0"])])
        there.apply([netlink.add_address(links["eth0"], f"{ADDRESS}/24")])
        there.apply([netlink.add_route("0.0.0.0/0", links["eth0"], GATEWAY)])
    namespaces.enter(home, namespaces.NEWNET)
    Nftables().run(RULES)
    return away


if __name__ == "__main__":
    main()
