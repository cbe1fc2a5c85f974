"""Deaths on a booted node: of its own processes, one at a time and together, and of everything but PID 1.

The node has no shell and no agent, so the deaths come from outside the product: from `saboteur.py`, which a segment
before the image's own brings, and from the kernel's magic SysRq key.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
from msgspec.structs import replace

from ci.pytest_machines import Machines, check_console, restored
from ci.qemu import ports
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient
from core0.wire.secrets import SecretValue
from core0.wire.types import Container, ContainerSpec, Limits, Node, PublishedPort, SecretFile
from corex.wire.api import ExecRequest
from corex.wire.health import HealthCheck
from tests.vm.inside import answers, gone, inside, running, runs, until
from tests.vm.sabotage import sabotage

Connect = Callable[[Machine], Awaitable[NodeClient]]
SECONDS = 10.0
SERVICE = 8080


@pytest.fixture(scope="module")
def spec(spec: Callable[..., ContainerSpec]) -> ContainerSpec:
    """A container whose service answers on a port of the node."""
    return spec(ports=(PublishedPort(node=SERVICE, container=80),))


@pytest.fixture(scope="module")
def sabotaged_boot(direct_boot: DirectBoot, tmp_path_factory: pytest.TempPathFactory) -> DirectBoot:
    """The image with the saboteur before PID 1."""
    return sabotage(direct_boot, tmp_path_factory.mktemp("sabotaged"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def inhabited(
    sabotaged_boot: DirectBoot,
    acceleration: Acceleration,
    spec: ContainerSpec,
    connect: Connect,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Machine]:
    """A machine with a saboteur and a running container, booted once; tests take `victim`."""
    wanted = MachineSpec("victim", sabotaged_boot, snapshots=True)
    async with Machine(wanted, acceleration, tmp_path_factory.mktemp("victim")) as machine:
        await machine.wait_for_line("saboteur: listens", SECONDS)
        await machine.wait_for_phase("ready", SECONDS)
        async with await connect(machine) as node:
            await running(node, "steady", spec)
        await machine.wait_for_port(SERVICE, SECONDS)
        await machine.snapshot("inhabited")
        yield machine
    check_console(machine.console, wanted.name)


@pytest_asyncio.fixture(loop_scope="session")
async def victim(inhabited: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    """The machine with the running container as it was when nobody had died yet."""
    async with restored(inhabited, "inhabited", request.node) as machine:
        yield machine


@dataclass(frozen=True)
class Life:
    """What deaths of the node's own processes must not change."""

    node: Node
    container: Container
    main: tuple[int | None, float, int]


async def life(machine: Machine, node: NodeClient) -> Life:
    """The node's identity and leases, the container, and its process; fails unless its service answers, too."""
    container = await node.container("steady", wait=60)
    assert container.state == "running", container.why
    await served(machine)
    async with inside(machine, container) as corex:
        (process,) = await corex.processes()
    container = replace(container, traffic=None)  # which grows
    return Life(constant(await node.node()), container, (process.pid, process.since, process.restarts))


def constant(node: Node) -> Node:
    """What a node says of itself without what grows."""
    return replace(node, uptime_seconds=0.0)


async def served(machine: Machine) -> None:
    """Fail unless the container's service answers through its published port."""
    port = await machine.wait_for_port(SERVICE, SECONDS)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/") as answer:
        assert await answer.text() == "served from a container\n"


async def kill(machine: Machine, *names: str) -> int:
    """End processes of the node by SIGKILL, at the same moment; returns the console line to look from."""
    start = len(machine.console.lines)
    await machine.type(f"kill {' '.join(names)}\n")
    killed = "; ".join(rf"killed {name} \[[\d, ]+\]" for name in names)  # the node has its worker, too
    await machine.wait_for_line(f"saboteur: {killed}", SECONDS, start)
    return start


async def back(
    machine: Machine, node: NodeClient, start: int, names: tuple[str, ...], fingerprint: str
) -> None:
    """Wait until those who died run again, and the node answers the same client: by the certificate it has pinned."""
    if names != ("api",):
        await machine.wait_for_line(rf"zn: phase identity done .*: sha256:{fingerprint}$", SECONDS, start)
    if names != ("node",):
        await machine.wait_for_line("zn: phase ready done", SECONDS, start)
    await until(answers(node))


# Who is killed. With the template the processes that it supervises end, too, before the next template starts them.
ALONE, TOGETHER = (("api",), ("node",), ("template",)), ("template", "node", "api")


@pytest.mark.parametrize("names", [*ALONE, TOGETHER], ids=" ".join)
async def test_a_container_outlives_the_nodes_own_processes_and_the_operator_is_answered_again(
    victim: Machine, connect: Connect, names: tuple[str, ...]
) -> None:
    async with await connect(victim) as node:
        before = await life(victim, node)

        start = await kill(victim, *names)
        said = rf"zn: Process {names[0]} ended: killed by SIGKILL; starting it again in 0\.1 s"
        await victim.wait_for_line(said, SECONDS, start)
        await back(victim, node, start, names, before.node.fingerprint)
        assert await life(victim, node) == before
        assert (await node.health()).ok
        limited = await node.limit_container("steady", Limits(storage_mib=32), wait=60)
        assert (limited.state, limited.pid) == ("running", before.container.pid), limited.why
        lines = victim.console.lines[start:]
        assert not [line for line in lines if "No lease" in line or "phase network" in line], lines

        assert (await node.stop_container("steady", wait=60)).state == "stopped"
        again = await node.start_container("steady", wait=60)
        assert again.state == "running", again.why
        assert again.pid != before.container.pid
        await served(victim)
        assert not [line for line in victim.console.lines[start:] if "Pulling" in line], "its image was there"
        await node.delete_container("steady")
        await until(gone(node, "steady"))
        assert not await ports.is_accepting(victim.monitor, await victim.forward(SERVICE))


async def test_a_paused_container_outlives_the_node_daemon_as_it_is_and_ends_when_told(
    victim: Machine, connect: Connect
) -> None:
    async with await connect(victim) as node:
        before = await life(victim, node)
        paused = await node.pause_container("steady", wait=60)
        assert (paused.state, paused.pid) == ("paused", before.container.pid), paused.why
        port = await victim.forward(SERVICE)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            with pytest.raises(TimeoutError):  # the kernel connects, nobody answers
                await session.get(f"http://127.0.0.1:{port}/")

        start = await kill(victim, "node")
        await back(victim, node, start, ("node",), before.node.fingerprint)
        still = await node.container("steady", wait=60)
        assert (still.state, still.pid) == ("paused", before.container.pid), still.why
        assert (await node.resume_container("steady", wait=60)).state == "running"
        assert await life(victim, node) == before

        assert (await node.pause_container("steady", wait=60)).state == "paused"
        assert (await node.stop_container("steady", wait=60)).state == "stopped"
        assert (await node.start_container("steady", wait=60)).state == "running"
        assert (await node.pause_container("steady", wait=60)).state == "paused"
        await node.delete_container("steady")
        await until(gone(node, "steady"))


@pytest.mark.parametrize("names", [("node",), ("template",), TOGETHER], ids=" ".join)
async def test_a_container_whose_makers_die_while_it_is_built_runs_in_the_end(
    victim: Machine, connect: Connect, spec: ContainerSpec, names: tuple[str, ...]
) -> None:
    async with await connect(victim) as node:
        before = await life(victim, node)
        start = len(victim.console.lines)
        await node.put_container("second", replace(spec, ports=()))
        await victim.wait_for_line("zn: container second: Creating", SECONDS, start)
        assert not [line for line in victim.console.lines[start:] if "second: Running" in line]
        start = await kill(victim, *names)
        await back(victim, node, start, names, before.node.fingerprint)
        await until(runs(node, "second"))
        async with inside(victim, await node.container("second")) as corex:
            assert [process.state for process in await corex.processes()] == ["running"]
        assert await life(victim, node) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("names", "zn: network names: Failed: the process that answers ended; starting it again in 0.1 s"),
        ("node", "zn: Process node ended: killed by SIGKILL"),
        ("template", "zn: Process template ended: killed by SIGKILL"),
    ],
    ids=["names", "node", "template"],
)
async def test_containers_questions_are_answered_again(
    victim: Machine, connect: Connect, name: str, said: str
) -> None:
    question = ("/bin/busybox", "nslookup", "-type=a", "steady.default.internal")
    async with await connect(victim) as node:
        container = await node.container("steady", wait=60)
        fingerprint = (await node.node()).fingerprint
        before = {one.pid for one in (await node.health()).processes if one.name == "names"}
        start = await kill(victim, name)
        await victim.wait_for_line(said, SECONDS, start)
        if name != "names":
            await back(victim, node, start, (name,), fingerprint)

        async def replaced() -> bool:
            now = {one.pid for one in (await node.health()).processes if one.name == "names"}
            return bool(now) and now != before

        await until(replaced)
        async with inside(victim, container) as corex:
            done = await corex.execute(ExecRequest(question))
        assert f"Address: {container.address}" in done.stdout.data


async def test_secrets_health_and_order_outlive_the_node_daemon(
    victim: Machine, connect: Connect, spec: ContainerSpec
) -> None:
    loop = ("/bin/sh", "-c", "while :; do sleep 1; done")
    check = HealthCheck(("/bin/busybox", "test", "-e", "/tmp/well"), interval=0.5, start_period=600)
    idle = replace(spec, argv=loop, ports=())
    async with await connect(victim) as node:
        before = await life(victim, node)
        await node.put_secret("key", SecretValue(b"a secret"))
        guarded = await running(node, "guarded", replace(idle, health=check, secrets=(SecretFile("key"),)))
        await node.put_container("behind", replace(idle, after={"guarded": "healthy"}))
        await until(waits(node, "behind"))
        start = await kill(victim, "node")
        await back(victim, node, start, ("node",), before.node.fingerprint)
        assert [(one.name, one.containers) for one in await node.secrets()] == [("key", ("guarded",))]
        again = await node.container("guarded", wait=60)
        assert again.health
        assert (again.pid, again.health.state) == (guarded.pid, "starting")
        await until(waits(node, "behind"))
        async with inside(victim, again) as corex:
            await corex.execute(ExecRequest(("/bin/busybox", "touch", "/tmp/well")))
        assert (await node.container("behind", wait=60)).state == "running"
        assert (await node.container("guarded")).health.state == "healthy"
        for name in ("behind", "guarded"):
            await node.delete_container(name)
            await until(gone(node, name))
        assert await life(victim, node) == before


def waits(node: NodeClient, name: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await node.container(name)).state == "waiting"

    return check


async def test_a_process_that_dies_again_and_again_is_started_later_each_time(
    victim: Machine, connect: Connect
) -> None:
    async with await connect(victim) as node:
        before = await life(victim, node)
        for name in ("node", "template"):
            for delay in ("0.1", "0.2", "0.4"):
                start = await kill(victim, name)
                said = f"zn: Process {name} ended: killed by SIGKILL; starting it again in {delay} s"
                await victim.wait_for_line(said, SECONDS, start)
                await back(victim, node, start, (name,), before.node.fingerprint)
        assert await life(victim, node) == before


async def test_after_the_death_of_everything_but_pid_1_containers_go_by_their_restart_policy(
    machines: Machines, direct_boot: DirectBoot, spec: ContainerSpec, connect: Connect
) -> None:
    arguments = f"{direct_boot.arguments} sysrq_always_enabled"
    boot = DirectBoot(direct_boot.kernel, direct_boot.initramfs, arguments)
    machine = await machines.start(MachineSpec("massacre", boot))
    await machine.wait_for_phase("ready", SECONDS)
    async with await connect(machine) as node:
        before = await running(node, "steady", spec)
        once = replace(spec, argv=("/bin/sh", "-c", "while :; do sleep 1; done"), ports=(), restart="never")
        await running(node, "once", once)
        fingerprint = (await node.node()).fingerprint

        start = len(machine.console.lines)
        await machine.press_sysrq("i")
        await machine.wait_for_line("sysrq: Kill All Tasks", SECONDS, start)
        await machine.wait_for_line("zn: Process template ended: killed by SIGKILL", SECONDS, start)
        await back(machine, node, start, TOGETHER, fingerprint)

        ended = await node.container("once", wait=60)
        assert (ended.state, ended.pid) == ("failed", None)
        assert ended.why == "it ended: killed by signal 9"
        said = r"zn: container steady: Failed: it ended: killed by signal 9.*; trying again in 0\.5 s"
        await machine.wait_for_line(said, SECONDS, start)
        await until(runs(node, "steady"))
        after = await node.container("steady")
        assert after.pid != before.pid
        assert after.address == before.address
        await served(machine)
        assert (await node.health()).ok
        for name in ("steady", "once"):
            await node.delete_container(name)
            await until(gone(node, name))
