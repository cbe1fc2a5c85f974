"""The boot of PID 1 as a table: each phase is a name and a function that does one thing.

A phase that fails is printed with its cause, and the boot goes on, unless the phase is essential: a node
with an odd device stays reachable.
"""

import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from typing import NamedTuple

from core0.linux import cgroups, files, modules, mounts, uevents
from core0.wire import cmdline, paths, room

_SAFE = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

# Modules that no device announces: the packet socket of DHCP. The kernel would ask modprobe for them, which
# this image does not have.
_NEEDED_FIRST = ("af_packet",)
# Loaded some seconds later: checking a module's signature takes an emulated processor 0.12 s, and
# nobody waits for these (random numbers are there since before PID 1: docs/node.md, Entropy).
_NEEDED_LAST = ("virtio_rng", "virtio_balloon")
# With its driver the kernel reads a disk, and it waits for these without end: nothing here may wait for the driver.
# While one hangs since the boot, ATA disks do not appear (drivers/ata/libata-core.c, async_port_probe): machines with
# both are rare.
_OF_DISKS = ("virtio_blk", "nvme")

# Of each process, containers' included (the kernel's own hard limit for PID 1 is 4,096).
_OPEN_FILES = 65536

SYSCTLS = {
    "kernel/core_pattern": "|/dev/null",
    "kernel/dmesg_restrict": "1",
    "kernel/kptr_restrict": "2",
    "kernel/panic_on_oops": "1",
    "kernel/unprivileged_bpf_disabled": "1",
    "kernel/yama/ptrace_scope": "1",
    "fs/protected_fifos": "2",
    "fs/protected_hardlinks": "1",
    "fs/protected_regular": "2",
    "fs/protected_symlinks": "1",
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    # Several cards may be on one network: each takes what comes in by it though answers leave by another (RFC 3704
    # section 2.4), and answers for its own addresses only (core0.links.apply has more of it).
    "net/ipv4/conf/all/rp_filter": "2",
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/conf/all/arp_announce": "2",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/all/forwarding": "1",
}
_IPV6_LINKS = "net/ipv6/conf"


# MiB that the kernel manages; a machine has some 45 more. With 128 MiB the node's processes are killed for memory
# soon after boot, with 176 MiB it works.
_LEAST_MEMORY = 110
# Seconds after an image was built in which it may be booted: a clock that is further on is broken.
_LONGEST_SERVICE = 15 * 365 * 86400
# Of PID 1 and the node's own processes, which inherit it: the kernel ends any container before one of them. It can
# end one all the same: a daemon that eats all memory starts again then, and the machine goes on.
_OOM_SCORE = "-900"
_REMEDY = "give the machine at least 256 MiB"


class BootError(Exception):
    """The node cannot go on: the message has the cause and the remedy."""


class Boot:
    """What the phases find out for those after them."""

    def __init__(self) -> None:
        self.command_line = cmdline.CommandLine()
        self.modules = modules.Modules()
        self.hotplug: uevents.UeventSocket | None = None
        self.later: list[str] = []


class Step(NamedTuple):
    """One phase of the boot."""

    name: str
    run: Callable[[Boot], str]
    essential: bool = False


def check_image(_: Boot) -> str:
    """Refuse what cannot work: a truncated root, or so little memory that the node would die a little later.

    The kernel unpacks only a part of the archive when memory runs out while it does; the sentinel is its last file.
    """
    memory = _memory() >> 20
    if not os.path.exists(paths.SENTINEL):
        raise BootError(f"the image was not unpacked whole: {memory} MiB of memory are too little; {_REMEDY}")
    if memory < _LEAST_MEMORY:
        raise BootError(
            f"{memory} MiB of memory are left beside the kernel, too little for a node; {_REMEDY}"
        )
    return ""


def leave_initial_root(_: Boot) -> str:
    """Move to a real, read-only mount of the same files: pivot_root refuses to leave the initial root.

    Source: Documentation/filesystems/ramfs-rootfs-initramfs.rst; pivot_root(2), EINVAL.
    """
    mounts.mount("/", "/newroot", flags=mounts.MS_BIND)
    os.chdir("/newroot")
    mounts.mount(".", "/", flags=mounts.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    mounts.mount("/", "/", flags=mounts.MS_BIND | mounts.MS_REMOUNT | mounts.MS_RDONLY | mounts.MS_NODEV)
    return ""


def mount_kernel_files(_: Boot) -> str:
    """The kernel's file systems, and /run and /tmp in memory."""
    nosuid_exec = mounts.MS_NOSUID | mounts.MS_NOEXEC
    for kind, target, flags, options in (
        ("proc", "/proc", _SAFE, None),
        ("sysfs", "/sys", _SAFE, None),
        ("devtmpfs", "/dev", nosuid_exec, "mode=0755"),
        ("tmpfs", "/run", _SAFE, "mode=0755"),
        ("tmpfs", "/tmp", _SAFE, "mode=1777,size=25%"),  # noqa: S108 — this makes it
        ("cgroup2", paths.CGROUP, _SAFE, "nsdelegate,memory_recursiveprot"),
    ):
        mounts.mount(kind, target, kind, flags, options)
    for folder in (paths.RUN, paths.EXITS, paths.CONTAINERS, paths.IMAGES):
        os.mkdir(folder, 0o755)
    mounts.mount("ramfs", paths.IMAGES, "ramfs", _SAFE, "mode=0755")
    return ""


def set_clock(_: Boot) -> str:
    """Never run before the image was built, nor long after: a broken clock must not fail the first TLS.

    In 1970 no certificate would be valid yet, in 2099 none any more; time servers are asked later (core0.clock).
    """
    built = os.stat(paths.IMAGE).st_mtime  # of every file of an image
    if built <= time.time() < built + _LONGEST_SERVICE:
        return ""
    said = time.strftime("%Y-%m-%d", time.gmtime())
    time.clock_settime(time.CLOCK_REALTIME, built)
    return f"clock set to the image's build time: the machine's own clock said {said}"


def make_cgroups(_: Boot) -> str:
    """One branch for the node's own processes, one for containers, which leaves room for the other."""
    controllers = ("cpu", "memory", "pids", "io")
    cgroups.delegate(paths.CGROUP, controllers)
    threads = int(files.read_text("/proc/sys/kernel/threads-max"))
    of_containers = {
        "memory.max": str(room.memory_of_containers(_memory())),
        "pids.max": str(room.processes_of_containers(threads)),
    }
    branches = {
        paths.CGROUP_SYSTEM: {"memory.min": str(room.NODE_MEMORY)},
        paths.CGROUP_CONTAINERS: of_containers,
    }
    for branch, limits in branches.items():
        cgroups.create(branch, limits)
        cgroups.delegate(branch, controllers)
    files.write("/proc/self/oom_score_adj", _OOM_SCORE)
    return ""


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load_drivers(boot: Boot) -> str:
    """Load the modules of the devices that are there, and listen for those to come."""
    boot.hotplug = uevents.UeventSocket()
    wanted = dict.fromkeys((*_NEEDED_FIRST, *_of_present_devices(boot.modules)))
    boot.later = [name for name in wanted if name in _NEEDED_LAST]
    now = [name for name in wanted if name not in boot.later]
    boot.modules.waits = True  # network cards get their names in the order of their places
    failures = boot.modules.load_all(name for name in now if name not in _OF_DISKS)
    boot.modules.waits = False
    failures += boot.modules.load_all(name for name in now if name in _OF_DISKS)
    return f"{len(boot.modules.loaded)} modules" + "".join(f"; {failure}" for failure in failures)


def _of_present_devices(known: modules.Modules) -> Iterator[str]:
    for modalias in uevents.present_modaliases(known.buses):
        yield from known.matching(modalias)


def has_card() -> bool:
    """Whether the kernel has a network card; without one, what comes late is what everybody waits for."""
    root = "/sys/class/net"
    return any(os.path.exists(f"{root}/{name}/device") for name in os.listdir(root))


def load_late_drivers(boot: Boot) -> str:
    """Load the modules that no boot waits for: of the root, then of the storage part, network cards first.

    What a disk's controller brings forth is announced by uevents, as a disk that is plugged in later.
    """
    from core0.linux import tools

    before = len(boot.modules.loaded)
    failures = boot.modules.load_all(boot.later)
    tools.mount_tools(boot.modules)
    boot.modules.add(paths.STORAGE + modules.ROOT)
    wanted = dict.fromkeys(_of_present_devices(boot.modules))
    cards = [name for name in wanted if boot.modules.is_of_cards(name)]
    boot.modules.waits = True  # they get their names in the order of their places
    failures += boot.modules.load_all(cards)
    boot.modules.waits = False
    failures += boot.modules.load_all(name for name in wanted if name not in cards)
    return f"{len(boot.modules.loaded) - before} modules" + "".join(f"; {failure}" for failure in failures)


def tune_kernel(boot: Boot) -> str:
    """Sysctls, host name, loopback, limits. What this kernel does not have is named."""
    absent = [name for name, value in SYSCTLS.items() if not _write_sysctl(name, value)]
    _obey_routers()
    socket.sethostname(boot.command_line.hostname or "zeronode")
    _set_loopback_up()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    return f"not in this kernel: {', '.join(absent)}" if absent else ""


def _obey_routers() -> None:
    """Take addresses and routes from router advertisements though this node forwards for its containers.

    For links that come later it goes by `default`; `all` means nothing here (kernel: networking/ip-sysctl.rst).
    """
    folder = f"/proc/sys/{_IPV6_LINKS}"
    links = os.listdir(folder) if os.path.exists(folder) else []
    for link in links:
        if link not in ("all", "lo"):
            _write_sysctl(f"{_IPV6_LINKS}/{link}/accept_ra", "2")


def forbid_sysrq() -> list[str]:
    """Take the magic keys from the console; returns a line to log if the kernel has none.

    The kernel waits 25 ms for it, so it comes after the first forks.
    """
    return [] if _write_sysctl("kernel/sysrq", "0") else ["Sysctl kernel/sysrq is not in this kernel"]


def _write_sysctl(name: str, value: str) -> bool:
    try:
        files.write(f"/proc/sys/{name}", value)
    except OSError:
        return False
    return True


def _set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("=16sH14x", b"lo", 0)
        flags = struct.unpack("=16xH14x", ioctl(control, _SIOCGIFFLAGS, request))[0]
        ioctl(control, _SIOCSIFFLAGS, struct.pack("=16sH14x", b"lo", flags | _IFF_UP))


STEPS = (
    Step("image", check_image, essential=True),
    Step("root", leave_initial_root, essential=True),
    Step("mounts", mount_kernel_files, essential=True),
    Step("clock", set_clock),
    Step("cgroups", make_cgroups, essential=True),
    Step("drivers", load_drivers),
    Step("kernel", tune_kernel),
)
LATE = Step("storage", load_late_drivers)
