"""Containers on a booted node: their life, what they may not do, and what bad images and requests get."""

from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from ci.qemu.machine import Machine
from core0.client.client import NodeClient, RefusedError
from core0.wire.types import ContainerSpec, Exit, Limits, PublishedPort
from corex.wire.api import ExecRequest
from tests.vm.inside import gone, inside, running, settled, until
from tests.vm.layouts import layer_of_busybox, write_layout

SHELL = ("/bin/sh", "-c", "while :; do sleep 1; done")
SECONDS = 10.0
DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
STREAMS = ("stdin", "stdout", "stderr")
Spec = Callable[..., ContainerSpec]


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


async def test_the_registry_way_leads_to_the_same_image(node: NodeClient, spec: Spec) -> None:
    by_layout = await running(node, "one", spec(argv=SHELL))
    by_registry = await running(node, "two", spec("busybox:latest", argv=SHELL))
    assert by_layout.image_digest == by_registry.image_digest
    assert by_layout.address != by_registry.address


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
        for size, place in ((60, "/tmp"), (12, "/dev/shm")):
            await shell(f"dd if=/dev/zero of={place}/big bs=1M count={size}")
        bomb = "for i in $(seq 30); do sleep 5 & done"
        assert "can't fork" in await shell(bomb), "20 at most"
    refused = [
        (Limits(memory_mib=4), 409, "/memory_mib", "MiB now"),
        (Limits(memory_mib=1 << 20), 422, "/memory_mib", "the node has"),
        (Limits(storage_mib=8), 409, "/storage_mib", "it was made with that"),
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
    await node.delete_container("life")
    await until(gone(node, "life"))
    # the address, the port and the name are free again
    reborn = await running(node, "life", wanted)
    assert reborn.address == first.address


async def test_another_spec_makes_the_container_anew(machine: Machine, node: NodeClient, spec: Spec) -> None:
    first = await running(node, "new", spec(argv=SHELL))
    second = await running(node, "new", spec(argv=SHELL, env={"A": "b"}))
    assert first.pid != second.pid
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
    tar = layer_of_busybox()
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
        "foreign": "linux/s390x",
        "absent": "404",
    }
    for name, reason in cases.items():
        await node.put_container(name, spec(f"oci/{name}/", argv=SHELL))
        container = await settled(node, name)
        assert container.state == "failed", (name, container)
        assert any(words in container.why for words in reason.split("|")), container.why
        await node.delete_container(name)
        await until(gone(node, name))


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
