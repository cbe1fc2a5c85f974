"""What attaching a container costs: Core-0's way against `ip` and `nft` commands, in namespaces of this machine.

Both make the same of it: a pair of links, addresses, routes and neighbours at both ends, and elements of the packet
filter.
The thousandth container is measured beside the first, because it must not cost more. Then bytes between two
containers, against a bare pair of links.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cli.bench_throughput import measure_throughput
from cli.measure import Measure, ratios
from cli.outcome import ExitCode, Failure
from core0.linux import namespaces
from core0.names.manager import Names
from core0.networks.manager import Networks

_GOAL, _GOAL_RATIO, _GOAL_THOUSANDTH = 3.0, 0.5, 1.5
_MANY = 1000


@dataclass
class StateInMemory:
    """A node's state that is nowhere: what is measured comes after it."""

    node: str = "0" * 32
    sections: dict[str, bytes] = field(default_factory=dict)

    def get(self, section: str) -> bytes | None:
        """A section of the state."""
        return self.sections.get(section)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """The sections whose names begin so."""
        return tuple(sorted(name for name in self.sections if name.startswith(prefix)))

    async def put(self, section: str, value: bytes) -> None:
        """Write a section."""
        self.sections[section] = value

    async def remove(self, section: str) -> None:
        """Take a section away."""
        self.sections.pop(section, None)


def measure_network(runs: int) -> list[Measure]:
    """Attach and detach `runs` times each way, in turn, with no other container and with a thousand."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("nft")):
        raise Failure(
            "cannot make network namespaces: run it as root, with iproute2 and nftables", ExitCode.USAGE
        )
    with _namespace():
        return asyncio.run(_measure(runs))


@contextmanager
def _namespace() -> Iterator[None]:
    """This thread in a network namespace of its own, which is the node's; it ends with it."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.leave(namespaces.NEWNET)
    try:
        yield
    finally:
        namespaces.enter(before, namespaces.NEWNET)
        os.close(before)


def _container() -> int:
    """A network namespace without a process."""
    with _namespace():
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _names() -> Names:
    """Who answers for names, as far as an attach waits for it: the process is never asked for."""

    async def fork(_: int) -> None:
        raise OSError("no template is there")

    return Names(lambda *_: None, tuple, fork)


async def _measure(runs: int) -> list[Measure]:
    def users(_: str) -> Mapping[str, int]:
        return {}

    networks = Networks(StateInMemory(), lambda *_: None, _names(), users)
    try:
        networks.attach(1, "one", "default", 2, _container())  # makes the ruleset
        networks.detach(1)
        first, commands, detach = _in_turn(networks, runs)
        many = [_container() for _ in range(_MANY)]
        for number, namespace in enumerate(many, 3):
            networks.attach(number, f"c{number}", "default", number, namespace)
        last = _timed(networks, runs, 2)
        for number, namespace in enumerate(many, 3):
            networks.detach(number)
            os.close(namespace)
        throughput = measure_throughput(networks, _container, runs)
    finally:
        networks.close()
    ours = Measure("attach of a container", "ms", tuple(first), _GOAL)
    theirs = Measure("the same by ip -batch and nft", "ms", tuple(commands))
    thousandth = Measure("attach beside 1,000 containers", "ms", tuple(last), _GOAL)
    return [
        ours,
        theirs,
        ratios("attach, against the commands", ours, theirs, _GOAL_RATIO),
        thousandth,
        ratios("attach beside 1,000, against the first", thousandth, ours, _GOAL_THOUSANDTH),
        # a thread waits for the kernel meanwhile (Networks.remove)
        Measure("detach of a container, the kernel's wait included", "ms", tuple(detach)),
        *throughput,
    ]


def _in_turn(networks: Networks, runs: int) -> tuple[list[float], list[float], list[float]]:
    first, commands, detach = [], [], []
    for _ in range(runs):
        namespace = _container()
        first.append(_clock(networks.attach, 1, "one", "default", 2, namespace))
        detach.append(_clock(networks.detach, 1))
        os.close(namespace)
        other = _container()
        commands.append(_clock(_by_commands, other))
        networks.detach(1)
        _run("nft", "-f", "-", text=_ELEMENTS.format(verb="delete"))
        os.close(other)
    return first, commands, detach


def _timed(networks: Networks, runs: int, number: int) -> list[float]:
    taken = []
    for _ in range(runs):
        namespace = _container()
        taken.append(_clock(networks.attach, number, "one", "default", 2, namespace))
        networks.detach(number)
        os.close(namespace)
    return taken


def _clock(work: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    work(*arguments)
    return 1000 * (time.perf_counter() - begun)


_LINKS = """link add zc1 address 02:5a:4e:00:00:01 type veth peer name eth0 address 02:5a:4e:01:00:01 netns {pid}
link set zc1 up
link set zc1 addrgenmode none
route add 10.88.0.2/32 dev zc1
route add fd00::2/128 dev zc1
neighbour add 10.88.0.2 lladdr 02:5a:4e:01:00:01 dev zc1
neighbour add fd00::2 lladdr 02:5a:4e:01:00:01 dev zc1
"""
_INSIDE = """link set lo up
link set eth0 up
address add 10.88.0.2/32 dev eth0
address add fd00::2/128 dev eth0 nodad
neighbour add 169.254.1.1 lladdr 02:5a:4e:00:00:01 dev eth0
neighbour add fe80::1 lladdr 02:5a:4e:00:00:01 dev eth0
route add 169.254.1.1/32 dev eth0
route add default via 169.254.1.1 dev eth0
route add default via fe80::1 dev eth0
"""
_ELEMENTS = """{verb} element inet zeronode origins4 {{ "zc1" . 02:5a:4e:01:00:01 . 10.88.0.2 }}
{verb} element inet zeronode origins6 {{ "zc1" . 02:5a:4e:01:00:01 . fd00::2 }}
"""


def _by_commands(namespace: int) -> None:
    """The same as a tool would do it: `ip` takes a namespace by a path, and one of our descriptors is one."""
    path = f"/proc/{os.getpid()}/fd/{namespace}"
    _run("ip", "-batch", "-", text=_LINKS.format(pid=path))
    _run("nsenter", f"--net={path}", "ip", "-batch", "-", text=_INSIDE)
    _run("nft", "-f", "-", text=_ELEMENTS.format(verb="add"))


def _run(*command: str, text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"cannot measure {command[0]}: {done.stderr.strip()}")
