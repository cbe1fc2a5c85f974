"""Networks on a booted node: names, rates, counters, and policies that change (test_isolation.py has the matrix)."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from ci.pytest_machines import restored
from ci.qemu.machine import Machine
from core0.client.client import NodeClient
from core0.wire.networks import EgressRule, NetworkSpec
from core0.wire.types import Container, ContainerSpec, Limits
from corex.wire.api import ExecRequest
from image.server import Running
from tests.vm.inside import inside, running

Spec = Callable[..., ContainerSpec]
LAN = "10.0.2.2"
WEB = 80


@pytest_asyncio.fixture(loop_scope="session")
async def machine(stocked: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    """The shared machine with the image: what a test is not about takes most of its time else."""
    async with restored(stocked, "stocked", request.node) as machine:
        yield machine


@dataclass(frozen=True)
class Probe:
    """A try to reach an address or a name by TCP; all at once, as what is dropped is waited for."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address} {self.port}"


async def reached(machine: Machine, source: Container, probes: list[Probe]) -> set[str]:
    """Those of the probes that got through, from a shell in a container."""
    tries = (f"nc -w 4 {probe} -e /bin/busybox true 2>/dev/null && echo {probe} &" for probe in probes)
    script = "\n".join((*tries, "wait"))
    async with inside(machine, source) as corex:
        request = ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"})
        done = await corex.execute(request)
    return set(done.stdout.data.splitlines())


async def addresses(machine: Machine, source: Container, names: list[str]) -> dict[str, str]:
    """What a container's resolver has of names: the first address, or how it failed."""
    script = 'for name; do echo "$name" $(nslookup -type=a "$name" 2>&1 | tail -n +3); done'
    async with inside(machine, source) as corex:
        command = ("/bin/sh", "-c", script, "sh", *names)
        done = await corex.execute(ExecRequest(command, env={"PATH": "/bin"}))
    told = dict(line.split(" ", 1) for line in done.stdout.data.splitlines())
    return {name: said.split()[-1] for name, said in told.items()}


async def test_containers_know_each_other_by_name_within_their_network(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    await node.put_network("walled", NetworkSpec(egress="none"))
    await node.put_network("blue", NetworkSpec())
    there = {
        name: await running(node, name, spec(network=network))
        for name, network in (("a", "default"), ("b", "default"), ("c", "blue"), ("w", "walled"))
    }
    names = ["b.default.internal", "c.blue.internal", "www.example.org"]
    found = await addresses(machine, there["a"], names)
    assert found["b.default.internal"] == there["b"].address
    assert found["c.blue.internal"] == "NXDOMAIN"
    assert (await addresses(machine, there["w"], names)) == {
        "b.default.internal": "NXDOMAIN",
        "c.blue.internal": "NXDOMAIN",
        "www.example.org": "REFUSED",
    }
    assert await reached(machine, there["a"], [Probe("b", WEB), Probe("c", WEB)]) == {"b 80"}
    (names_process,) = [one for one in (await node.health()).processes if one.name == "names"]
    assert names_process.proportional_bytes < 16 << 20


# Sends so much to a container, which sends it back, and says how long that took by the guest's clock.
ECHO = """
now() { cut -d" " -f1 /proc/uptime | tr -d .; }
begun=$(now)
head -c $1 /dev/zero | nc $2 7000 | wc -c
echo $(($(now) - begun))
ip link set eth0 mtu 1400 2>&1
"""
SIZE, RATE = 384 << 10, 256 << 10


@pytest.mark.parametrize(
    ("made", "limits"),
    [
        pytest.param(Limits(send_bps=RATE), Limits(send_bps=RATE), id="sends"),
        pytest.param(Limits(), Limits(receive_bps=RATE), id="receives, later"),
        pytest.param(Limits(receive_bps=RATE // 8), Limits(send_bps=RATE), id="sends, later"),
    ],
)
async def test_a_container_is_no_faster_than_it_may_be_and_what_it_moves_is_counted(
    machine: Machine, node: NodeClient, spec: Spec, made: Limits, limits: Limits
) -> None:
    echo = ("/bin/nc", "-ll", "-p", "7000", "-e", "/bin/busybox", "head", "-c", str(SIZE))
    quick = await running(node, "quick", spec(argv=echo))
    before = await running(node, "slow", spec(limits=made))
    slow = await node.limit_container("slow", limits, wait=60)
    assert (slow.state, slow.pid, slow.spec.limits) == ("running", before.pid, limits), slow.why
    assert quick.address
    async with inside(machine, slow) as corex:
        command = ("/bin/sh", "-c", ECHO, "sh", str(SIZE), quick.address)
        done = await corex.execute(ExecRequest(command, env={"PATH": "/bin"}))
    back, hundredths, *refused = done.stdout.data.splitlines()
    assert int(back) == SIZE
    # all but what may pass at once, twice as much at most as the kernel's clock is coarse
    assert int(hundredths) >= 100 * (SIZE - RATE / 20) / RATE
    assert int(hundredths) < 100 * SIZE / (RATE // 8), "no limit of before is left"
    assert "Operation not permitted" in refused[-1], "it cannot change its own link"
    traffic = (await node.container("slow")).traffic
    assert traffic
    assert traffic.sent_bytes > SIZE
    assert traffic.received_bytes > SIZE
    members = (await node.network("default")).containers
    assert {one.container for one in members if one.traffic and one.traffic.sent_bytes > SIZE} == {
        "quick",
        "slow",
    }


async def test_a_network_that_changes_is_in_force_for_what_runs(
    machine: Machine, node: NodeClient, spec: Spec, server: Running
) -> None:
    await node.put_network("blue", NetworkSpec())
    container = await running(node, "c", spec(network="blue"))
    lan = Probe(LAN, server.port)
    assert await reached(machine, container, [lan]) == set()
    async with inside(machine, container) as corex:
        groups = await corex.execute(ExecRequest(("/bin/cat", "/proc/sys/net/ipv4/ping_group_range")))
    assert groups.stdout.data.split() == ["0", "65535"], "programs may ping without making raw packets"
    await node.put_network("blue", NetworkSpec(egress_allow=(EgressRule(f"{LAN}/32"),)))
    assert await reached(machine, container, [lan]) == {str(lan)}
