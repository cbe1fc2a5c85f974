"""Containers on a booted node: their life, what they may not do, and what bad images and requests get."""

import io
import shutil
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from ci.pytest_machines import restored
from ci.qemu.machine import Machine
from cli.bundle import read_bundle
from cli.container_import import pack_root
from core0.client.client import NodeClient, RefusedError
from core0.wire.config import ContainersConfig, NodeConfig
from core0.wire.secrets import SecretValue
from core0.wire.types import ContainerSpec, Exit, Limits, PublishedPort, SecretFile, TmpfsMount
from corex.client.client import RefusedError as CorexRefusedError
from corex.client.session import UnreachableError
from corex.wire.api import ExecRequest
from corex.wire.api import Exit as ProcessExit
from corex.wire.health import HealthCheck
from corex.wire.plan import Layer, TargetLayer
from corex.wire.process import ProcessSpec
from corex.wire.sessions import SessionSpec, Window
from tests.vm.inside import gone, inside, running, runs, settled, until
from tests.vm.layouts import BUSYBOX, layer_of_busybox, write_layout

SHELL = ("/bin/sh", "-c", "while :; do sleep 1; done")
SECONDS = 10.0
CRUN = Path(__file__).parents[1] / "cli" / "bundles" / "crun.json"
DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
STREAMS = ("stdin", "stdout", "stderr")
Spec = Callable[..., ContainerSpec]


@pytest_asyncio.fixture(loop_scope="session")
async def machine(stocked: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    """The shared machine with the image: what a test is not about takes most of its time else."""
    async with restored(stocked, "stocked", request.node) as machine:
        yield machine


async def test_a_service_answers_through_its_published_port_and_its_process_obeys(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    container = await running(node, "web", spec(ports=(PublishedPort(node=8080, container=80),)))
    assert container.address == "10.88.0.2"
    assert container.image_digest.startswith("sha256:")
    service = await machine.wait_for_port(8080, SECONDS)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{service}/") as answer:
        assert await answer.text() == "served from a container\n"
    async with inside(machine, container) as corex:
        (process,) = await corex.processes()
        assert (process.name, process.state) == ("main", "running")
        assert process.spec.env["COLOUR"] == "green"
        await corex.stop("main")
        assert (await corex.process("main")).state in ("stopped", "exited", "stopping")


async def test_a_plan_runs_in_its_order_and_a_tree_has_its_own_cgroup(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    brood = "setsid /bin/sh -c 'setsid sleep 1000 & echo up; exec sleep 1000' & exec sleep 1000"
    plan = {
        "processes": {
            "init": {"argv": ["/bin/sh", "-c", "sleep 1; echo done > /tmp/done"], "kind": "one-shot"},
            "work": {
                "argv": ["/bin/sh", "-c", f"cat /tmp/done; {brood}"],
                "after": {"init": "succeeded"},
                "scope": "tree",
                "limits": {"nofile": [64, 128]},
                "nice": 5,
            },
            "noon": {
                "argv": ["/bin/true"],
                "kind": "scheduled",
                "schedule": {"cron": "0 12 * * *"},
                "enabled": False,
            },
        },
        "checks": {
            "work": {"process": "work", "argv": ["/bin/sh", "-c", "test -e /tmp/done"], "interval": 0.5}
        },
    }
    with pytest.raises(RefusedError, match="which of them would be the main process"):
        await node.put_container("plan", spec(argv=SHELL, plan=plan))
    container = await running(node, "plan", spec(plan=plan, restart="never"))
    async with inside(machine, container) as corex:

        async def shell(script: str) -> str:
            done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
            return done.stdout.data + done.stderr.data

        async def is_up() -> bool:
            texts = [getattr(one, "text", "") for one in (await corex.logs("work")).records]
            return texts == ["done", "up"] and (await corex.process("work")).health == "healthy"

        await until(is_up)
        assert (await corex.process("init")).state == "exited"
        work = await corex.process("work")
        assert work.usage
        assert work.usage.memory_bytes
        assert work.usage.tasks == 3
        group = "/sys/fs/cgroup/process-work"
        assert len((await shell(f"cat {group}/cgroup.procs")).split()) == 3
        assert "Read-only" in await shell(f"echo 1 > {group}/cgroup.kill")
        assert "Read-only" in await shell(f"mkdir {group}/own")
        limits = await shell(f"cat /proc/$(head -n 1 {group}/cgroup.procs)/limits")
        assert limits.partition("Max open files")[2].split()[:3] == ["64", "128", "files"]
        assert (await shell(f"cat {group}/pids.current")).strip() == "3"
        await corex.stop("work", 30)
        assert await shell(f"cat {group}/cgroup.procs") == "", "nothing is left of it"
        await corex.start("noon", 10)
        noon = await corex.process("noon")
        assert noon.next_start is not None
        assert noon.next_start % 86400 == 12 * 3600
    used = (await node.container_stats("plan")).memory_bytes
    assert used > 1 << 20, "what is in the cgroups below counts"
    await node.stop_container("plan", wait=60)
    assert (await settled(node, "plan")).state == "stopped"
    await node.delete_container("plan")
    await until(gone(node, "plan"))


async def test_the_registry_way_leads_to_the_same_image(node: NodeClient, spec: Spec) -> None:
    by_layout = await running(node, "one", spec(argv=SHELL))
    by_registry = await running(node, "two", spec("busybox:latest", argv=SHELL))
    assert by_layout.image_digest == by_registry.image_digest
    assert by_layout.address != by_registry.address


async def test_a_terminal_in_a_container_belongs_to_its_user_and_outlives_its_connection(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    container = await running(node, "shell", spec(argv=SHELL, user="33:7"))
    script = "b=busybox; $b tty; $b stty size; $b ls -ln $($b tty); read line; echo got $line; exit 4"
    terminal = SessionSpec(("/bin/sh", "-c", script), {"PATH": "/bin"}, user="33:7", window=Window(40, 120))
    async with inside(machine, container) as corex:
        session = await corex.create_session(terminal)
        seen = b""
        async with corex.attach(session.id) as first:
            async for _, data in first.output():
                seen += data
                if b" 33 " in seen and seen.endswith(b"/dev/pts/0\r\n"):
                    break
        assert b"/dev/pts/0\r\n40 120\r\ncrw--w----" in seen
        async with corex.attach(session.id, after=first.offset) as again:
            await again.write(b"hello\r")
            rest = b"".join([data async for _, data in again.output()])
        assert (rest, again.exit and again.exit.code) == (b"hello\r\ngot hello\r\n", 4)


async def test_files_and_terminals_of_processes_are_the_containers_own(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    """With the rights, the filter of system calls, the /proc and the devpts that Core-X has on a node."""
    names = ("shop.example",)
    container = await running(node, "files", spec(argv=SHELL, dns_names=names, drop_capabilities=("CHOWN",)))
    async with inside(machine, container) as corex:
        made = await corex.write_file("/etc/new", b"one\n", mode="0640")
        assert (made.uid, made.gid, made.mode, await corex.read_file("/etc/new")) == (0, 0, "0640", b"one\n")
        with pytest.raises(CorexRefusedError, match=r"Operation not permitted; Core-X has the rights"):
            await corex.write_file("/etc/other", b"", owner="33")
        for path in ("/proc/self/environ", "/proc/1/mem", "/sys/kernel/notes"):
            with pytest.raises(CorexRefusedError, match="is the kernel's, not the container's"):
                await corex.read_file(path)
        for path in ("/proc/1/root/etc/passwd", "/proc/self/fd/0"):
            with pytest.raises(CorexRefusedError, match=r"Too many levels|is the kernel's"):
                await corex.read_file(path)
        async with corex.open_archive("/etc") as pieces:
            packed = b"".join([piece async for piece in pieces])
        await corex.make_folder("/tmp/copy")
        assert (await corex.unpack("/tmp/copy", packed)).entries > 2
        assert await corex.read_file("/tmp/copy/new") == b"one\n"
        assert (await corex.delete_folder("/tmp/copy", recursive=True)).entries > 2
        script = "busybox tty; read line; echo got $line; exit 4"
        await corex.put("repl", ProcessSpec(("/bin/sh", "-c", script), {"PATH": "/bin"}, tty=True))
        await corex.start("repl", 10)
        async with corex.attach_process("repl") as viewer:
            await viewer.write(b"hello\r")
            seen = b"".join([data async for _, data in viewer.output()])
        assert seen.startswith((b"/dev/pts/", b"hello"))
        assert b"got hello\r\n" in seen
        assert viewer.exit == ProcessExit(code=4)
        done = [event.event for event in (await corex.audit()).events]
        assert done[:2] == ["sys_startup", "sensitive_create"]
    assert container.corex
    pin = aiohttp.Fingerprint(bytes.fromhex(container.corex.fingerprint))
    port = await machine.forward(container.corex.port)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{port}") as session:
        for name, status in (("shop.example", 200), ("files.default.internal", 200), ("evil.example", 421)):
            async with session.get("/v1/health", headers={"Host": name}, ssl=pin) as answer:
                assert (name, answer.status) == (name, status)


async def test_lines_are_sent_to_a_name_that_the_nodes_resolver_knows(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    """Core-X looks names up itself, by the container's own /etc/resolv.conf."""
    container = await running(node, "talker", spec(argv=SHELL))
    async with inside(machine, container) as corex:
        path = {"PATH": "/bin"}
        listener = ("/bin/sh", "-c", "exec busybox nc -l -p 5514 > /dev/null")
        await corex.put("listener", ProcessSpec(listener, path))
        await corex.put("talk", ProcessSpec(("/bin/sh", "-c", "while :; do echo hi; sleep 1; done"), path))
        target = TargetLayer(type="syslog", location="tcp://talker:5514", processes=("talk",))
        await corex.put_layer("out", Layer(targets={"near": target}))
        await corex.start("listener", 10)
        await corex.apply(wait=10)

        async def is_sent() -> bool:
            (near,) = await corex.targets()
            return near.state == "sending" and near.sent > 0

        await until(is_sent, 30)


async def test_a_container_cannot_do_what_containers_must_not(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    container = await running(node, "jail", spec(argv=SHELL, env={"PATH": "/bin"}))
    async with inside(machine, container) as corex:

        async def shell(script: str) -> str:
            done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
            return done.stdout.data + done.stderr.data

        status = await shell("cat /proc/self/status")
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        # chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap
        assert "CapBnd:\t00000000800405fb" in status
        assert "CapAmb:\t0000000000000000" in status
        first = int((await shell("cat /proc/self/uid_map")).split()[1])
        assert first >= 1_000_000
        assert (await shell("cat /proc/1/environ")).endswith("Permission denied\n")
        assert "Permission denied" in await shell("ls /proc/1/root/")
        assert "Read-only" in await shell("echo x > /proc/sys/kernel/hostname")
        assert await shell("cat /proc/kcore") == ""
        assert "permission denied" in await shell("mount -t tmpfs x /tmp")
        assert "not permitted" in await shell("unshare -U true")
        devices = (await shell("ls /dev")).split()
        assert sorted(devices) == sorted((*DEVICES, "fd", "mqueue", "ptmx", "pts", "shm", *STREAMS))
        assert "10.88.0.2 jail" in await shell("cat /etc/hosts")
        for door in ("10.0.2.15 8443", "169.254.1.1 9001"):
            assert "timed out" in await shell(f"nc -w 2 {door}"), door


async def test_files_stop_at_the_storage_limit_and_the_node_goes_on(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    limits = Limits(memory_mib=64, storage_mib=8)
    container = await running(node, "full", spec(argv=SHELL, limits=limits))
    async with inside(machine, container) as corex:
        script = "dd if=/dev/zero of=/tmp/big bs=1M count=32"
        done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
        assert "No space left" in done.stderr.data
    assert (await node.health()).ok


async def test_limits_change_while_a_container_runs_and_not_below_what_it_has(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    first = await running(node, "live", spec(argv=SHELL, limits=Limits(memory_mib=64)))
    wanted = Limits(memory_mib=48, memory_high_mib=100, cpus=0.5, cpu_weight=10, processes=20)
    found = await node.limit_container("live", wanted, wait=60)
    assert (found.state, found.pid, found.spec.limits) == ("running", first.pid, wanted)
    async with inside(machine, found) as corex:

        async def shell(script: str) -> str:
            done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
            return done.stdout.data + done.stderr.data

        group = "memory.max memory.high cpu.max cpu.weight pids.max"
        told = await shell(f"cd /sys/fs/cgroup; cat {group}")
        assert told.split() == [str(112 << 20), str(100 << 20), "50000", "100000", "10", "20"]
        fill = "dd if=/dev/zero of={}/big bs=1M count={}"
        for size, place in ((60, "/tmp"), (12, "/dev/shm")):
            await shell(fill.format(place, size))
        bomb = "for i in $(seq 30); do sleep 5 & done"
        assert "can't fork" in await shell(bomb), "20 at most"
    refused = [
        (Limits(memory_mib=4), 409, "/memory_mib", "MiB now"),
        (Limits(memory_mib=1 << 20), 422, "/memory_mib", "the node has"),
        (replace(wanted, storage_mib=16), 409, "/storage_mib", "16 MiB of files: it has 6"),
        (replace(wanted, storage_mib=1 << 20), 422, "/storage_mib", "the node has"),
    ]
    for limits, status, pointer, told in refused:
        with pytest.raises(RefusedError) as refusal:
            await node.limit_container("live", limits)
        problem = refusal.value.problem
        assert (problem.status, problem.pointer) == (status, pointer), problem
        assert told in problem.detail
    stats = await node.container_stats("live")
    assert stats.memory_peak_bytes >= stats.memory_bytes > 72 << 20
    assert (stats.memory_limit_bytes, stats.processes_limit, stats.memory_kills) == (112 << 20, 20, 0)
    assert stats.processor_seconds > 0
    assert stats.processes >= 2, "Core-X and the shell"
    assert stats.traffic
    again = await node.container("live")
    assert (again.state, again.pid, again.spec.limits) == ("running", first.pid, wanted)
    async with inside(machine, again) as corex:
        for size, script, told in (
            (80, fill.format("/tmp", 75), "75+0 records out"),
            (80, fill.format("/tmp", 99), "No space left on device"),
            (16, "", ""),
            (16, fill.format("/tmp", 15), "15+0 records out"),
            (16, fill.format("/tmp", 17), "No space left on device"),
        ):
            found = await node.limit_container("live", replace(wanted, storage_mib=size), wait=60)
            assert (found.state, found.pid) == ("running", first.pid), found.why
            assert told in await shell(script)
            assert await shell("cat /sys/fs/cgroup/memory.max") == f"{(48 + size) << 20}\n"
            await shell("busybox rm /tmp/big")


async def test_who_wants_too_much_memory_or_too_many_processes_ends_alone(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    neighbour = await running(node, "neighbour", spec(argv=SHELL))
    greedy = ("/bin/sh", "-c", "sleep 600 & dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 600")
    small = Limits(memory_mib=24, storage_mib=4)
    await node.put_container("greedy", spec(argv=greedy, limits=small, restart="never"))
    ended = await node.container_end("greedy", wait=60)
    assert (ended.state, ended.exit) == ("failed", Exit(signal=9, out_of_memory=True)), ended
    assert "it needed more than its 28 MiB of memory, files included" in ended.why
    bomb = ("/bin/sh", "-c", "bomb() { bomb | bomb & }; while :; do bomb; done")
    await node.put_container("bomb", spec(argv=bomb, limits=Limits(processes=48), restart="never"))
    await settled(node, "bomb")
    assert (await node.health()).ok
    async with inside(machine, neighbour) as corex:
        done = await corex.execute(ExecRequest(("/bin/sh", "-c", "cat /proc/self/oom_score_adj")))
        assert done.stdout.data == "500\n"
    await node.delete_container("bomb")
    await until(gone(node, "bomb"))
    assert (await node.container("neighbour")).pid == neighbour.pid


async def test_who_is_started_again_says_why_and_is_the_same_to_its_clients(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    small = Limits(memory_mib=24, storage_mib=4)
    first = await running(node, "again", spec(argv=SHELL, limits=small, restart="always"))
    greedy = ExecRequest(("/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"))
    async with inside(machine, first) as corex:
        await corex.put("extra", ProcessSpec(("/bin/sleep", "1000")))
        with pytest.raises(UnreachableError):
            await corex.execute(greedy)

        async def is_back() -> bool:
            found = await node.container("again")
            return found.state == "running" and found.pid != first.pid

        await until(is_back)
        again = await settled(node, "again")
        assert (
            "it was started again: it ended: killed by signal 9: it needed more than its 28 MiB" in again.why
        )
        assert again.corex == first.corex
        assert {one.name: one.state for one in await corex.processes()} == {
            "main": "running",
            "extra": "running",
        }
        anew = await running(node, "again", spec(argv=SHELL, limits=small, env={"A": "b"}))
        assert anew.corex == first.corex
        assert [one.name for one in await corex.processes()] == ["main"]


async def _lasting(node: NodeClient) -> dict[str, int]:
    """The node's own processes that never end by themselves, by name."""
    found = {one.name: one.pid for one in reversed((await node.health()).processes)}
    return {name: found[name] for name in ("init", "template", "node", "api")}


async def test_when_all_have_too_much_the_least_important_ends_and_the_node_does_not(
    node: NodeClient, spec: Spec
) -> None:
    """Two containers that fill what all of them have; each alone is within its own limit."""
    own = await _lasting(node)
    fill = ("/bin/sh", "-c", "dd if=/dev/zero of=/files/all bs=1M; while :; do sleep 1; done")
    files, limits = (TmpfsMount("/files", 250),), Limits(memory_mib=32, storage_mib=4)
    wanted = spec(argv=fill, limits=limits, tmpfs=files, restart="never", priority=100)
    important = await running(node, "important", wanted)

    # memory of files comes back only with the mount: who still asks for more meanwhile would be the next to end
    async def full() -> bool:
        return (await node.container_stats("important")).memory_bytes > 250 << 20

    await until(full)
    await node.put_container("lesser", replace(wanted, priority=-100))
    ended = await node.container_end("lesser", wait=60)
    assert (ended.state, ended.exit) == ("failed", Exit(signal=9, out_of_memory=True)), ended
    assert "all containers together had no more memory" in ended.why
    assert (await node.container("important")).pid == important.pid
    health = await node.health()
    assert health.ok
    assert await _lasting(node) == own
    with pytest.raises(RefusedError, match=r"the node has [0-9]+ MiB for containers"):
        await node.put_container("other", spec(limits=Limits(memory_mib=440)))


BUSY = ("/bin/sh", "-c", "while :; do :; done")
# Besides the children there are a shell and Core-X with its spawner.
CHILDREN = "for i in $(busybox seq {}); do sleep 9999 & done; wait"
BESIDES = 3


async def test_all_containers_together_have_no_more_than_the_config_says(
    node: NodeClient, spec: Spec
) -> None:
    own = await _lasting(node)
    await node.put_config(NodeConfig(containers=ContainersConfig(memory_mib=160, cpus=0.5, processes=100)))
    for limits, field in (
        (Limits(memory_mib=160), "memory_mib"),
        (Limits(memory_mib=32, cpus=0.6), "cpus"),
        (Limits(memory_mib=32, cpus=0.5, processes=101), "processes"),
    ):
        with pytest.raises(RefusedError, match="the node has") as refusal:
            await node.put_container("other", spec(limits=limits))
        assert refusal.value.problem.pointer == f"/limits/{field}"
    each = Limits(memory_mib=32, storage_mib=4, cpus=0.5, processes=90)

    pair = ("one", "two")
    for name in pair:
        await running(node, name, spec(argv=BUSY, limits=each))
    begun, used = (await node.node()).uptime_seconds, await _processor_seconds(node, pair)
    await until(lambda: _have_used(node, pair, used + 1))
    assert (await node.node()).uptime_seconds - begun > 1.6, (
        "a second of a processor, of which they have half"
    )
    await node.put_config(NodeConfig(containers=ContainersConfig(memory_mib=160, processes=100)))

    for name, children in zip(pair, (60, 40 - 2 * BESIDES), strict=True):
        await running(node, name, spec(argv=("/bin/sh", "-c", CHILDREN.format(children)), limits=each))
    await until(lambda: _have_processes(node, pair, 100))
    await node.put_container("late", spec(argv=SHELL, limits=each))
    late = await settled(node, "late")
    assert "step first process: cannot fork: Resource temporarily unavailable" in late.why
    for name in pair:
        await node.stop_container(name, wait=60)
    await until(runs(node, "late"))

    fill = ("/bin/sh", "-c", "dd if=/dev/zero of=/files/all bs=1M; while :; do sleep 1; done")
    greedy = spec(argv=fill, limits=each, tmpfs=(TmpfsMount("/files", 90),), restart="never", priority=-100)
    await running(node, "one", replace(greedy, priority=100))
    await node.put_container("two", greedy)
    ended = await node.container_end("two", wait=60)
    assert ended.exit == Exit(signal=9, out_of_memory=True), ended
    assert "all containers together had no more memory" in ended.why
    assert (await node.health()).ok
    assert await _lasting(node) == own


async def _processor_seconds(node: NodeClient, names: Iterable[str]) -> float:
    return sum([(await node.container_stats(name)).processor_seconds for name in names])


async def _have_used(node: NodeClient, names: Iterable[str], seconds: float) -> bool:
    return await _processor_seconds(node, names) >= seconds


async def _have_processes(node: NodeClient, names: Iterable[str], count: int) -> bool:
    return sum([(await node.container_stats(name)).processes for name in names]) == count


async def test_a_container_is_as_its_spec_says(machine: Machine, node: NodeClient, spec: Spec) -> None:
    wanted = spec(
        argv=SHELL,
        user="33:7",
        hostname="shop.example.com",
        ipv4="10.88.0.77",
        read_only=True,
        tmpfs=(TmpfsMount("/tmp", 1), TmpfsMount("/opt/run", 2, 0o750, executable=True)),
        drop_capabilities=("CHOWN", "SETUID"),
        labels={"app": "shop", "tier": "front"},
        priority=50,
    )
    container = await running(node, "exact", wanted)
    assert container.address == "10.88.0.77"
    assert container.address6
    assert container.address6.endswith("::4d"), "the same number"
    async with inside(machine, container) as corex:

        async def shell(script: str, user: str = "0") -> str:
            request = ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}, user=user)
            done = await corex.execute(request)
            return done.stdout.data + done.stderr.data

        rows = [
            ("cat /proc/sys/kernel/hostname", "0", "shop.example.com"),
            ("cat /etc/hosts", "0", "10.88.0.77 shop.example.com shop\n"),
            ("echo x > /etc/x", "0", "Read-only file system"),
            ("mount -o remount,rw /", "0", "ermi"),
            ("echo x > /tmp/x && cat /tmp/x", "33", "x"),
            ("cp /bin/busybox /opt/run/id && /opt/run/id && ls -ld /opt/run", "0", "drwxr-x---"),
            ("cp /bin/busybox /tmp/id && /tmp/id", "0", "space"),
            ("ls /opt/run", "4000:4000", "Permission denied"),
            ("grep Cap /proc/self/status", "0", "CapPrm:\t000000008004057a"),
            ("grep Cap /proc/self/status", "0", "CapBnd:\t000000008004057a"),
            ("grep Cap /proc/self/status", "33", "CapPrm:\t0000000000000000"),
            ("chown 33 /tmp/x", "0", "not permitted"),
            ("id", "33:7", "uid=33(web) gid=7"),
            ("id", "4000", "uid=4000 gid=0"),
            ("id", "web", "uid=33(web) gid=33"),
            ("echo home:$HOME", "0", "home:/root\n"),
            ("echo home:$HOME", "web", "home:/www\n"),
            ("echo home:$HOME", "33:7", "home:/www\n"),
            ("echo home:$HOME", "4000", "home:/\n"),
            ("cat /proc/self/oom_score_adj", "0", "300"),
            ("echo 0 > /proc/self/oom_score_adj", "0", "denied"),
        ]
        for script, user, told in rows:
            assert told in await shell(script, user), (script, user, await shell(script, user))
        (process,) = await corex.processes()
        assert process.spec.user == "33:7"
        assert "HOME=/www" in await shell(f"busybox tr '\\0' '\\n' < /proc/{process.pid}/environ", "33:7")
        assert process.state == "running"
    assert [one.name for one in await node.containers(["app=shop", "tier"])] == ["exact"]
    assert await node.containers(["app=other"]) == ()
    relabelled = await node.put_container("exact", replace(wanted, labels={}), wait=60)
    assert relabelled.pid == container.pid
    assert await node.containers(["app"]) == ()


async def test_secrets_are_files_that_only_their_owner_reads_and_nothing_else_shows(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    value = b"correct horse battery staple"
    await node.put_secret("db", SecretValue(value))
    await node.put_secret("large", SecretValue(b"x" * 100_000))
    files = (SecretFile("db", "password", 0o440, 33, 7), SecretFile("large"))
    wanted = spec(argv=SHELL, user="web", secrets=files, read_only=True, tmpfs=(TmpfsMount("/run", 1),))
    container = await running(node, "closed", wanted)
    async with inside(machine, container) as corex:

        async def shell(script: str, user: str) -> str:
            request = ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}, user=user)
            done = await corex.execute(request)
            return done.stdout.data + done.stderr.data

        assert await shell("cat /run/secrets/password", "web") == value.decode()
        assert "denied" in await shell("cat /run/secrets/password", "34:34")
        assert "denied" in await shell("cat /run/secrets/large", "web")
        assert "100000" in await shell("ls -l /run/secrets/large", "0")
        listed = await shell("ls -l /run/secrets", "0")
        assert "-r--r-----    1 web      7               28" in listed, listed
        assert "Read-only" in await shell("echo x > /run/secrets/new", "0")
        mounted = await shell("grep secrets /proc/self/mounts", "0")
        assert "ro,nosuid,nodev,noexec" in mounted
        shown = await shell("cat /proc/*/environ /proc/*/cmdline; ls /proc/1/fd", "0")
        assert value.decode() not in shown
        (process,) = await corex.processes()
        assert value.decode() not in str(process)
    for refused in (node.delete_secret("db"), node.put_container("other", spec(secrets=(SecretFile("no"),)))):
        with pytest.raises(RefusedError):
            await refused
    await node.put_secret("db", SecretValue(b"another"))
    await node.stop_container("closed", wait=60)
    again = await node.start_container("closed", wait=60)
    async with inside(machine, again) as corex:
        assert await shell("cat /run/secrets/password", "web") == "another"
    assert {one.name: one.containers for one in await node.secrets()} == {
        "db": ("closed",),
        "large": ("closed",),
    }


async def test_a_container_begins_once_the_one_before_it_is_healthy(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    serve = ("/bin/sh", "-c", "while ! test -e /tmp/go; do sleep 0.1; done; exec /bin/httpd -f -p 80 -h /www")
    check = HealthCheck(port=80, path="/index.html", interval=0.5, retries=2, start_period=120)
    first = await running(node, "first", spec(argv=serve, health=check))
    assert first.health
    assert first.health.state == "starting"
    await node.put_container("second", spec(argv=SHELL, after={"first": "healthy"}))
    await until(state_of(node, "second", "waiting"))
    assert "once container first is healthy" in (await node.container("second")).why
    async with inside(machine, first) as corex:
        await corex.execute(ExecRequest(("/bin/sh", "-c", "echo > /tmp/go"), env={"PATH": "/bin"}))
        second = await settled(node, "second")
        assert second.state == "running", second.why
        assert (await node.container("first")).health.state == "healthy"
        await corex.execute(ExecRequest(("/bin/busybox", "rm", "/www/index.html")))
        await until(lambda: is_ill(node, "first"))
        assert "it answered 404" in (await node.container("first")).health.why
    assert (await node.container("second")).pid == second.pid, "what runs goes on"
    refused = [
        ("first", spec(after={"second": "running"}), "/after/second", "first after second after first"),
        ("third", spec(after={"second": "healthy"}), "/after/second", "it has no check"),
        ("third", spec(health=HealthCheck()), "/health", "a command or a port"),
    ]
    for name, wanted, pointer, told in refused:
        with pytest.raises(RefusedError, match=told) as refusal:
            await node.put_container(name, wanted)
        assert (refusal.value.problem.status, refusal.value.problem.pointer) == (422, pointer)
    ends = HealthCheck(("/bin/sh", "-c", "exit 1"), interval=0.2, retries=1, restart=True)
    await node.put_container("third", spec(argv=SHELL, health=ends, restart="never"))
    ended = await node.container_end("third", wait=60)
    assert (ended.state, ended.exit) == ("failed", Exit(code=69))


def state_of(node: NodeClient, name: str, state: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await node.container(name)).state == state

    return check


async def is_ill(node: NodeClient, name: str) -> bool:
    health = (await node.container(name)).health
    return health is not None and health.state == "unhealthy"


async def test_a_container_s_files_come_as_a_tar_and_its_name_changes(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    await node.put_secret("key", SecretValue(b"a secret"))
    wanted = spec(argv=SHELL, tmpfs=(TmpfsMount("/tmp"),), secrets=(SecretFile("key"),))
    container = await running(node, "full", wanted)
    async with inside(machine, container) as corex:
        script = "mkdir -p /opt/a; echo mine > /opt/a/file; ln /opt/a/file /opt/b; chown 33:7 /opt/a/file"
        script += "; ln -s / /opt/c; echo x > /tmp/x; dd if=/dev/zero of=/opt/large bs=1M count=5; rm /www/index.html"
        path = {"PATH": "/bin"}
        done = await corex.execute(ExecRequest(("/bin/busybox", "sh", "-c", script), env=path))
        assert done.exit.code == 0, done
    await node.pause_container("full", wait=60)
    data = b"".join([piece async for piece in node.export_container("full")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {one.name: one for one in archive.getmembers()}
        busybox = archive.extractfile("bin/busybox")
        assert busybox
        assert busybox.read() == BUSYBOX.read_bytes()
        mine = archive.extractfile("opt/a/file")
        assert mine
        assert mine.read() == b"mine\n"
    assert (found["opt/a/file"].uid, found["opt/a/file"].gid) == (33, 7)
    assert (found["opt/b"].islnk(), found["opt/b"].linkname) == (True, "opt/a/file")
    assert found["opt/c"].issym()
    assert found["opt/large"].size == 5 << 20
    assert found["bin/sh"].issym()
    assert "www/index.html" not in found
    for mounted in ("proc", "sys", "dev", "tmp", "run/secrets"):
        assert found[mounted].isdir()
        assert not [name for name in found if name.startswith(f"{mounted}/")]
    assert b"a secret" not in data
    with pytest.raises(RefusedError, match="it is paused; stop it first"):
        await node.rename_container("full", "other")
    await node.stop_container("full", wait=60)
    with pytest.raises(RefusedError, match="its files end with it"):
        [piece async for piece in node.export_container("full")]
    await node.rename_container("full", "other")
    again = await node.start_container("other", wait=60)
    assert (again.state, again.address) == ("running", container.address), again.why
    async with inside(machine, again) as corex:
        name = await corex.execute(ExecRequest(("/bin/cat", "/etc/hostname")))
        assert name.stdout.data == "other\n"


async def test_what_a_container_wrote_becomes_an_image(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    first = await running(node, "first", spec(argv=SHELL, tmpfs=(TmpfsMount("/tmp"),)))
    script = "mkdir /opt; echo mine > /opt/file; chown 33:7 /opt/file; rm /www/index.html /bin/ping; echo x > /tmp/x"
    async with inside(machine, first) as corex:
        await corex.execute(ExecRequest(("/bin/busybox", "sh", "-c", script), env={"PATH": "/bin"}))
    done = await node.operation((await node.commit_container("first", "shop")).id, wait=60)
    assert done.state == "done", done.detail
    again = await node.container("first")
    assert (again.state, again.pid) == ("running", first.pid)
    second = await running(node, "second", replace(spec(argv=SHELL), image="local:shop"))
    async with inside(machine, second) as corex:
        script = "ls -ln /opt/file; cat /opt/file /etc/hostname; ls /www /tmp /bin/ping; id"
        seen = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
        for told in (" 33       7 ", "mine\nsecond\n", "/bin/ping: No such file"):
            assert told in seen.stdout.data + seen.stderr.data, seen
        assert "index.html" not in seen.stdout.data
        await corex.execute(ExecRequest(("/bin/sh", "-c", "echo more > /opt/more"), env={"PATH": "/bin"}))
    done = await node.operation((await node.commit_container("second", "shop:2")).id, wait=60)
    assert done.state == "done", done.detail
    images = {name: one for one in (await node.images()).images for name in one.references}
    assert len(images["local:shop:2"].layers) == len(images["local:shop"].layers) + 1 == 3
    refused = [
        (node.commit_container("first", "http://h/x"), 422, "/name"),
        (node.commit_container("first", "A b"), 422, "/name"),
        (node.put_container("third", replace(spec(), image="local:gone")), 422, "/image"),
        (node.commit_container("gone", "x"), 404, None),
    ]
    for wish, status, pointer in refused:
        with pytest.raises(RefusedError) as refusal:
            await wish
        assert (refusal.value.problem.status, refusal.value.problem.pointer) == (status, pointer)
    third = await running(node, "third", replace(spec(argv=SHELL), image="local:shop:2", read_only=True))
    async with inside(machine, third) as corex:
        seen = await corex.execute(ExecRequest(("/bin/cat", "/opt/file", "/opt/more")))
        assert seen.stdout.data == "mine\nmore\n"


async def test_a_bundle_of_crun_s_runs_as_it_says(
    machine: Machine, node: NodeClient, spec: Spec, oci: Path, tmp_path: Path
) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer_of_busybox())) as archive:
        archive.extractall(tmp_path / "rootfs", filter="fully_trusted")
    shutil.copyfile(CRUN, tmp_path / "config.json")
    bundle, folder = read_bundle(tmp_path, {})
    pack_root(bundle, folder, oci / "bundle", "amd64")
    given = {**bundle.spec, "argv": SHELL}
    container = await running(node, "bundle", spec("oci/bundle/", **typed(given)))
    async with inside(machine, container) as corex:
        script = "cat /proc/self/status /etc/hostname; echo x > /x; cat /www/index.html"
        done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
        for told in (
            "CapBnd:\t0000000000000420",
            "crun\n",
            "Read-only file system",
            "served from a container",
        ):
            assert told in done.stdout.data + done.stderr.data, told


def typed(given: dict[str, object]) -> dict[str, object]:
    """Parts of a spec as the command line gives them, with their types."""
    made = msgspec.convert({"image": "x", "token_sha256": "0" * 64, **given}, ContainerSpec)
    return {name: getattr(made, name) for name in given}


async def test_stop_start_and_remove_leave_what_they_say(node: NodeClient, spec: Spec) -> None:
    wanted = spec(argv=SHELL, ports=(PublishedPort(node=8081, container=80),))
    first = await running(node, "life", wanted)
    same = await node.put_container("life", wanted)
    # packets come meanwhile
    assert replace(same, traffic=None) == replace(first, traffic=None), "the same spec again changes nothing"
    stopped = await node.stop_container("life", wait=60)
    assert (stopped.state, stopped.pid) == ("stopped", None)
    again = await node.start_container("life", wait=60)
    assert again.state == "running"
    assert again.pid != first.pid
    assert again.corex == first.corex, "clients that pinned its certificate go on"
    await node.delete_container("life")
    await until(gone(node, "life"))
    # the address, the port and the name are free again
    reborn = await running(node, "life", wanted)
    assert reborn.address == first.address
    assert reborn.corex != first.corex


async def test_another_spec_makes_the_container_anew(machine: Machine, node: NodeClient, spec: Spec) -> None:
    first = await running(node, "new", spec(argv=SHELL))
    second = await running(node, "new", spec(argv=SHELL, env={"A": "b"}))
    assert first.pid != second.pid
    assert first.corex == second.corex
    async with inside(machine, second) as corex:
        (process,) = await corex.processes()
        assert process.spec.env["A"] == "b"


@pytest.mark.parametrize(
    ("restart", "code", "state"),
    [
        pytest.param("never", 0, "stopped", id="done"),
        pytest.param("on-failure", 0, "stopped", id="done in order"),
        pytest.param("never", 3, "failed", id="failed, once"),
    ],
)
async def test_a_container_whose_process_ends_for_good_ends(
    node: NodeClient, spec: Spec, restart: str, code: int, state: str
) -> None:
    await node.put_container("once", spec(argv=("/bin/sh", "-c", f"exit {code}"), restart=restart))

    container = await node.container_end("once", wait=60)
    assert (container.state, container.exit) == (state, Exit(code=code))
    assert f"exit code {code}" in container.why


async def test_bad_images_are_refused_with_their_reason_and_leave_nothing(
    node: NodeClient, spec: Spec, oci: Path
) -> None:
    tar = layer_of_busybox() + bytes(512)  # another layer than the one that is here
    damaged = write_layout(oci / "damaged", tar)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    cut = write_layout(oci / "cut", tar)
    cut.write_bytes(cut.read_bytes()[:1000])
    write_layout(oci / "foreign", tar, architecture="s390x")
    cases = {
        "damaged": "damaged or was tampered with|cannot unpack",
        "cut": "cannot fetch|ended early|longer|tampered",
    }
    for name, reason in cases.items():
        await node.put_container(name, spec(f"oci/{name}/", argv=SHELL))
        container = await settled(node, name)
        assert container.state == "failed", (name, container)
        assert any(words in container.why for words in reason.split("|")), container.why
        await node.delete_container(name)
        await until(gone(node, name))
    for name, reason in {"foreign": "linux/s390x", "absent": "404"}.items():
        with pytest.raises(RefusedError, match=reason) as refusal:
            await node.put_container(name, spec(f"oci/{name}/", argv=SHELL))
        assert (refusal.value.problem.status, refusal.value.problem.pointer) == (422, "/image")
    assert await node.containers() == ()


async def test_bad_requests_are_refused_by_field_and_change_nothing(node: NodeClient, spec: Spec) -> None:
    await running(node, "owner", spec(argv=SHELL, ports=(PublishedPort(node=8090, container=80),)))
    refused = [
        (
            "other",
            spec(ports=(PublishedPort(node=8090, container=1),)),
            409,
            "/ports/0/node",
            "container owner",
        ),
        ("other", spec(ports=(PublishedPort(node=8443, container=1),)), 409, "/ports/0/node", "node's API"),
        ("other", replace(spec(), image="ftp://x/"), 422, "/image", "no http or https"),
        ("other", spec(limits=Limits(memory_mib=1 << 20)), 422, "/limits/memory_mib", "the node has"),
        ("other", spec(limits=Limits(cpus=512.0)), 422, "/limits/cpus", "the node has"),
        ("Other", spec(), 422, None, "name"),
        ("other", spec(hostname="a\nb"), 422, "/hostname", "no host name"),
        ("other", spec(labels={" ": ""}), 422, "/labels", "label"),
        ("other", spec(tmpfs=(TmpfsMount("/dev/x"),)), 422, "/tmpfs/0/target", "makes that folder"),
        ("other", spec(drop_capabilities=("SYS_ADMIN",)), 422, "/drop_capabilities/0", "invalid enum"),
        ("other", spec(ipv4="10.89.0.1"), 422, "/ipv4", "not in 10.88.0.0/16"),
        ("other", spec(ipv4="10.88.0.2"), 409, "/ipv4", "container owner has it"),
        ("other", spec(ipv4="10.88.0.9", ipv6="fe80::1"), 422, "/ipv6", "not in"),
    ]
    for name, wanted, status, pointer, told in refused:
        with pytest.raises(RefusedError) as refusal:
            await node.put_container(name, wanted)
        problem = refusal.value.problem
        assert (problem.status, problem.pointer) == (status, pointer), problem
        assert told in problem.detail + problem.remedy
    with pytest.raises(RefusedError) as absent:
        await node.container("nobody")
    assert absent.value.problem.status == 404
    assert [container.name for container in await node.containers()] == ["owner"]
