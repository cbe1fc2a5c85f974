"""A thousand networks that come and go leave nothing: neither in the kernel nor in the daemon."""

import ctypes.util
import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from core0.linux import namespaces, netlink
from core0.linux.netlink import Netlink
from core0.networks.manager import Networks
from core0.wire.networks import NetworkSpec
from core0.wire.subnets import parse_interface
from core0.wire.types import PublishedPort
from tests.core0.networks.kept import KeptInMemory
from tests.core0.networks.site import kernel_rules, unasked_names

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not ctypes.util.find_library("nftables"), reason="needs Debian's libnftables1"),
]
# So many are there at the same time: libnftables reads what there is before each change.
AT_ONCE = 250
COMMANDS = (
    "ip -o link",
    "ip address",
    "ip route show table all",
    "ip -6 route show table all",
    "ip neighbour",
)


@pytest.fixture
def node() -> Iterator[None]:
    """This thread in a network namespace of its own, which is the node's."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.leave(namespaces.NEWNET)
    with Netlink() as rtnetlink:
        rtnetlink.apply([netlink.set_up(1)])
    yield
    namespaces.enter(before, namespaces.NEWNET)
    os.close(before)


def container() -> int:
    """A network namespace without a process; the thread stays where it is."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.leave(namespaces.NEWNET)
    made = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.enter(before, namespaces.NEWNET)
    os.close(before)
    return made


def seen() -> tuple[str, ...]:
    """All that the kernel has of the node's networks."""
    shown = [subprocess.run(one.split(), capture_output=True, text=True, check=True) for one in COMMANDS]
    return (*(one.stdout for one in shown), kernel_rules())


def held(networks: Networks, keep: KeptInMemory) -> dict[str, int]:
    """How much the daemon has: open descriptors, and entries of all that the managers keep."""
    keep.told.clear()
    parts = (networks, networks._filter, networks._names, keep)
    sizes = {
        f"{type(part).__name__}.{name}": len(value)
        for part in parts
        for name, value in vars(part).items()
        if isinstance(value, dict | list | tuple | set)
    }
    return {**sizes, "descriptors": len(os.listdir("/proc/self/fd"))}  # noqa: PTH208


def blocks() -> int:
    """The blocks of memory that Python has given out, but for what is kept of subnets' texts, of which are few."""
    parse_interface.cache_clear()
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.parametrize("many", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_networks_that_come_and_go_leave_nothing(node: None, many: int) -> None:
    keep = KeptInMemory()
    users: dict[str, dict[str, int]] = {}
    networks = Networks(keep, keep.report, unasked_names(), lambda name: users.get(name, {}))
    first = container()
    networks.attach(1, "first", "default", 2, first)  # makes the ruleset
    rounds = []
    for count in (20, many):  # what is made once for all is there after the first
        for first_number in range(2, count + 2, AT_ONCE):
            numbers = range(first_number, min(first_number + AT_ONCE, count + 2))
            await come_and_go(networks, users, numbers)
        rounds.append((seen(), held(networks, keep), blocks()))
    networks.close()
    os.close(first)
    (there, had, before), (left, has, after) = rounds
    assert left == there
    assert has == had
    assert len(left[0].splitlines()) == 2, "the loopback and the first container's link"
    # some hundreds come and go with everything else in this process; a thousand networks tell
    assert after - before < 300 + many / 2, "not one block for each network"


async def come_and_go(networks: Networks, users: dict[str, dict[str, int]], numbers: range) -> None:
    """A network with each of these numbers, a container in each, and the end of all of them."""
    spaces = {}
    for number in numbers:
        name = f"n{number}"
        subnet = f"10.{number >> 8}.{number & 255}.0/24"
        await networks.put(name, NetworkSpec(subnet, f"fd00:{number:x}::/64"))
        spaces[number] = container()
        users[name] = {"c": 2}
        networks.attach(number, "c", name, 2, spaces[number])
        if number % 10 == 0:
            networks.publish(number, [PublishedPort(20_000 + number, 80)])
    assert len(seen()[0].splitlines()) == 2 + len(numbers)
    for space in spaces.values():
        os.close(space)
    for number in spaces:
        await networks.remove(number)
        del users[f"n{number}"]
        await networks.delete(f"n{number}")
