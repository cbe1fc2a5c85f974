"""Faults at each step of making a container on a booted node: the step and the cause are told, and nothing stays.

strace(1), which a segment before the image's own brings, makes one system call of the node daemon, of the template or
of the container's own first process fail, or the process end. What other programs could have in the way is there.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from ci.pytest_machines import watched_during
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient
from core0.wire.secrets import SecretValue
from core0.wire.types import ContainerSpec, Exit, Limits, PublishedPort, SecretFile, TmpfsMount, VolumeMount
from core0.wire.volumes import VolumeSpec
from corex.wire.health import HealthCheck
from image.tree import Entry
from tests.vm.inside import gone, insist, running, runs, settled, until
from tests.vm.sabotage import brought, order, sabotage

Spec = Callable[..., ContainerSpec]
Connect = Callable[[Machine], Awaitable[NodeClient]]
HERE = Path(__file__).parent
SECONDS = 10.0
ROUNDS = 2
# What a machine needs for itself, and for each of many containers, in MiB.
MEMORY, EACH = 512, 6
PROGRAMS = ("guest_count.py", "guest_strace.py", "guest_conflict.py")
Counted = dict[str, list[str]]


class Ward(NamedTuple):
    """A node, and what it had before there was any container."""

    machine: Machine
    node: NodeClient
    before: Counted


async def count(machine: Machine) -> Counted:
    """Everything on the node that a container could leave behind."""
    found: Counted = json.loads(await order(machine, "run", "guest_count.py"))
    return found


def more(after: Counted, before: Counted) -> Counted:
    """What is there now and was not."""
    found = {what: sorted({*after[what]} - {*names}) for what, names in before.items()}
    return {what: names for what, names in found.items() if names}


@pytest.fixture(scope="module")
def many(request: pytest.FixtureRequest) -> int:
    """How many containers come and go at a time."""
    count: int = request.config.getoption("--containers")
    return count


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ward(
    debian: list[Entry],
    direct_boot: DirectBoot,
    acceleration: Acceleration,
    spec: Spec,
    connect: Connect,
    many: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Ward]:
    """One for all tests here: each leaves it as it was."""
    files = [*debian, *(brought(HERE / name) for name in PROGRAMS)]
    boot = sabotage(direct_boot, tmp_path_factory.mktemp("ward"), files=files)
    async with Machine(
        MachineSpec("ward", boot, memory=MEMORY + EACH * many),
        acceleration,
        tmp_path_factory.mktemp("machine"),
    ) as machine:
        await machine.wait_for_line("saboteur: listens", SECONDS)
        await machine.wait_for_phase("ready", SECONDS)
        await machine.wait_for_phase("storage", SECONDS)
        async with await connect(machine) as node:
            await node.put_volume("data", VolumeSpec(16 << 20))
            await node.put_secret("key", SecretValue(b"secret"))
            await running(node, "f", spec(**FULL))
            await node.delete_container("f")
            await until(gone(node, "f"))
            yield Ward(machine, node, await count(machine))


# Everything that a container is made with.
FULL: dict[str, Any] = {
    "mounts": (VolumeMount("data", "/data"),),
    "tmpfs": (TmpfsMount("/cache"),),
    "secrets": (SecretFile("key"),),
    "health": HealthCheck(port=80),
    "read_only": True,
}


@pytest.fixture(autouse=True)
def watched(ward: Ward, request: pytest.FixtureRequest) -> Iterator[None]:
    with watched_during(request.node, ward.machine):
        yield


def fault(service: str, call: str, how: str, said: str, path: str = "") -> Any:
    """A call of a service, or of what it forks, that fails or ends its process, and what the node says of it."""
    return pytest.param(
        service, call, how, path, said, id=" ".join((service, call, how.replace(":", " "), path))
    )


GROUP, FOLDER = "/sys/fs/cgroup/containers/f", "/run/zn/containers/f"
NOT_PERMITTED, NO_SPACE, NO_MEMORY = (
    "Operation not permitted",
    "No space left on device",
    "Cannot allocate memory",
)
# NETLINK_ROUTE and NETLINK_NETFILTER
ROUTES, FILTER = "netlink:0", "netlink:12"
FAULTS = [
    fault("node", "mkdir", "error=ENOSPC", f"step cgroup: {GROUP}: {NO_SPACE}", GROUP),
    fault(
        "node", "openat", "error=EIO", "step cgroup: cannot set memory.max of cgroup f", f"{GROUP}/memory.max"
    ),
    fault("node", "open_tree", "error=EPERM", f"step volumes: cannot clone the mount at .*: {NOT_PERMITTED}"),
    fault("node", "openat", "error=EIO", "step secrets: .*Input/output error", "/run/zn/secrets/key"),
    fault("node", "openat", "error=ENOSPC", f"step health: .*{NO_SPACE}", f"{FOLDER}/health"),
    fault("node", "bind", "error=EADDRINUSE", "step port: .*Address already in use"),
    fault("node", "openat", "error=ENOSPC", f"step descriptors: .*{NO_SPACE}", f"{FOLDER}/corex.log"),
    fault("template", "clone3", "error=ENOMEM", f"step first process: cannot fork: {NO_MEMORY}"),
    fault(
        "template",
        "gettid",
        "signal=KILL:when=1",
        "step (first process|image|link): its first process ended while it was built",
    ),
    fault(
        "node",
        "open_tree",
        "error=EPERM:when=2",
        f"step image: cannot clone the mount at .*/mounted/.*: {NOT_PERMITTED}",
    ),
    fault(
        "node",
        "fsopen",
        "error=ENOMEM:when=1",
        f"step image: cannot open file system type tmpfs: {NO_MEMORY}",
    ),
    fault("node", "move_mount", "error=EINVAL:when=2", "step image: cannot attach a mount at .*/layer0"),
    fault("node", "fsmount", "error=ENOMEM:when=2", f"step image: cannot mount overlay: {NO_MEMORY}"),
    fault("node", "openat", "error=EMFILE", "step image: .*Too many open files", f"{FOLDER}/writable/work"),
    fault("node", "sendto", "error=ENOBUFS:when=1", "step link: No buffer space available", ROUTES),
    # what was asked for is done all the same
    fault("node", "recvfrom", "error=ENOBUFS:when=1", "step link: No buffer space available", ROUTES),
    fault("node", "sendto", "error=ENOBUFS:when=1", "step link: No buffer space available", FILTER),
    fault("node", "recvfrom", "error=ENOBUFS:when=1", "step link: No buffer space available", FILTER),
    fault("node", "setns", "error=EPERM:when=1", f"step link: cannot enter the namespace: {NOT_PERMITTED}"),
    fault("template", "memfd_create", "error=ENOMEM", f"step certificate: {NO_MEMORY}"),
    fault("template", "setresuid", "error=EAGAIN", "step user: Resource temporarily unavailable"),
    fault("template", "sethostname", "error=EPERM", f"step network: {NOT_PERMITTED}"),
    fault("template", "move_mount", "error=EINVAL:when=1", "step root: cannot attach a mount at /newroot"),
    fault("template", "sendfile", "error=EIO", "step root: .*Input/output error"),
    fault("template", "pivot_root", "error=EBUSY", "step root: cannot pivot into the new root"),
    fault(
        "template",
        "chroot",
        "error=EPERM:when=1",
        f"step privileges: cannot enter the runtime: {NOT_PERMITTED}",
    ),
    fault("template", "capset", "error=EPERM", "step privileges: cannot reduce capabilities"),
    fault("template", "seccomp", "error=EACCES", "step privileges: cannot install seccomp filter"),
    fault("template", "seccomp", "signal=KILL", "its first process ended while it was built"),
    fault("node", "openat", "error=ENOSPC", f"step record: .*{NO_SPACE}", f"{FOLDER}/record.json.new"),
]


@pytest.mark.parametrize(("service", "call", "how", "path", "said"), FAULTS)
async def test_a_step_that_fails_is_told_and_leaves_nothing(
    ward: Ward, spec: Spec, service: str, call: str, how: str, path: str, said: str
) -> None:
    machine, _, before = ward
    words = ["-e", f"trace={call}", "-e", f"inject={call}:{how}", *([f"--trace-path={path}"] if path else [])]
    assert await order(machine, "run", "guest_strace.py", "begin", service, *words) == "begun"
    try:
        await refused(ward, spec(**FULL), said)
    finally:
        assert await order(machine, "run", "guest_strace.py", "end"), "nothing was made to fail"
    assert more(await count(machine), before) == {}


async def refused(ward: Ward, wanted: ContainerSpec, said: str) -> None:
    """Want a container, see why there is none, and want it no more."""
    machine, node, _ = ward
    start = len(machine.console.lines)
    await node.put_container("f", wanted)
    try:
        why = f"zn: container f: Failed: cannot create container f: {said}.*; trying again in 0.5 s"
        await machine.wait_for_line(why, SECONDS, start)
    finally:
        await node.delete_container("f")
        await until(gone(node, "f"))


IN_THE_WAY = {
    "a link": ("link zc1", "step link: cannot create link zc1: File exists"),
    "an element": (
        "element published4 { tcp . 8080 : 10.88.0.77 . 1 }",
        "step ports: cannot change packet filter: .*File exists",
    ),
}


@pytest.mark.parametrize(("what", "said"), IN_THE_WAY.values(), ids=IN_THE_WAY)
async def test_what_is_in_the_way_is_told_and_stays_the_only_thing(
    ward: Ward, spec: Spec, what: str, said: str
) -> None:
    assert await order(ward.machine, "run", "guest_conflict.py", "make", *what.split()) == "done"
    wanted = spec(**FULL, ports=(PublishedPort(8080, 80),))
    await refused(ward, wanted, said)
    if not what.startswith("link"):  # the node took it for its own
        assert await order(ward.machine, "run", "guest_conflict.py", "take", *what.split()) == "done"
    assert more(await count(ward.machine), ward.before) == {}


async def test_the_next_one_is_made(ward: Ward, spec: Spec) -> None:
    await running(ward.node, "f", spec(**FULL, ports=(PublishedPort(8080, 80),)))
    await removed(ward, "f")


async def removed(ward: Ward, *names: str) -> None:
    """Remove containers and see that nothing of them is left."""
    for name in names:
        await ward.node.delete_container(name)
    await until(gone(ward.node, *names))
    assert more(await count(ward.machine), ward.before) == {}


EATS = "x=x; while :; do x=$x$x; done"
FORKS = "f() { f | f & }; f; while :; do sleep 1; done"


async def test_a_container_out_of_memory_ends_as_a_whole_and_the_others_go_on(ward: Ward, spec: Spec) -> None:
    other = await running(ward.node, "other", spec())
    small = Limits(memory_mib=16, storage_mib=8)
    await ward.node.put_container("f", spec(argv=("/bin/sh", "-c", EATS), limits=small, restart="never"))
    ended = await ward.node.container_end("f", wait=60)
    assert (ended.state, ended.exit) == ("failed", Exit(signal=9, out_of_memory=True)), ended.why
    assert (await ward.node.container("other")).pid == other.pid
    assert (await ward.node.health()).ok
    await removed(ward, "f", "other")


async def test_a_fork_bomb_stays_within_its_limit_and_goes(ward: Ward, spec: Spec) -> None:
    few = Limits(memory_mib=64, processes=50)
    await running(ward.node, "f", spec(argv=("/bin/sh", "-c", FORKS), limits=few))
    stats = await ward.node.container_stats("f")
    assert stats.processes <= 50
    await running(ward.node, "other", spec())
    assert (await ward.node.health()).ok
    await removed(ward, "f", "other")


async def test_many_come_and_go_and_leave_nothing(ward: Ward, spec: Spec, many: int) -> None:
    names = [f"one{number}" for number in range(many)]
    wanted = spec(limits=Limits(memory_mib=16, storage_mib=4))
    kept = {what: found for what, found in ward.before.items() if what != "descriptors"}
    few = asyncio.Semaphore(8)  # more at a time wait for each other's TLS until they give up

    async def asked(question: Awaitable[object]) -> None:
        async with few:
            await question

    for _ in range(ROUNDS):
        begun = time.monotonic()
        await asyncio.gather(*(asked(ward.node.put_container(name, wanted)) for name in names))
        found = [await settled(ward.node, name) for name in names]
        assert {one.state for one in found} == {"running"}, [
            one.why for one in found if one.state != "running"
        ]
        made = time.monotonic()
        await asyncio.gather(*(asked(ward.node.delete_container(name)) for name in names))
        await until(gone(ward.node, *names), ward.machine.acceleration.seconds(SECONDS + many))
        after = await count(ward.machine)
        assert more(after, kept) == {}
        kept = after  # with the connections of so many questions at a time, which stay
        print(f"{many} containers: made in {made - begun:.1f} s, removed in {time.monotonic() - made:.1f} s")  # noqa: T201


MORTAL = ("node", "template", "api", "names", *(f"containers/w{number}" for number in range(4)))
DEATHS, SEED = 12, 20_261_122


async def test_deaths_at_random_under_load_leave_what_is_wanted_and_nothing_else(
    ward: Ward, spec: Spec
) -> None:
    machine, node, before = ward
    chance, wanted = random.Random(SEED), set[str]()
    said = []
    for _ in range(DEATHS):
        name, victim = f"w{chance.randrange(4)}", chance.choice(MORTAL)
        if name in wanted:
            await insist(partial(node.delete_container, name))
            wanted.remove(name)
        else:
            await insist(partial(node.put_container, name, spec()))
            wanted.add(name)
        said.append(f"{name} {'made' if name in wanted else 'removed'}, {victim} killed")
        start = len(machine.console.lines)
        await machine.type(f"kill {victim}\n")
        await machine.wait_for_line(r"saboteur: (killed|found no)", SECONDS, start)
    await insist(node.containers)
    for name in wanted:
        await until(runs(node, name))
    await until(gone(node, *({f"w{number}" for number in range(4)} - wanted)))
    for name in wanted:
        await insist(partial(node.delete_container, name))
    await until(gone(node, *wanted))
    kept = {
        what: found for what, found in before.items() if what != "descriptors"
    }  # of processes that are no more
    assert more(await count(machine), kept) == {}, said
