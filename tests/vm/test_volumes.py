"""Volumes of a booted node: in containers, at their limits, kept, brought back, and there after a reboot."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient, RefusedError
from core0.wire.storage import Disk, PoolSpec, Replacement, Selector
from core0.wire.types import Container, ContainerSpec, Limits, VolumeMount
from core0.wire.volumes import ImportRequest, IoLimits, Origin, VolumeSpec
from corex.wire.api import ExecRequest
from tests.disk_images import blank
from tests.vm.inside import gone, inside, running, until
from tests.vm.shelf import disk_in, pool_in, settled

Connect = Callable[[Machine], Awaitable[NodeClient]]
Spec = Callable[..., ContainerSpec]
Shell = Callable[[str], Awaitable[str]]
READY_SECONDS = 10.0
MIB = 1 << 20
SIZE = 64 * MIB
IDLE = ("/bin/sh", "-c", "while :; do sleep 1; done")
FILL = "dd if=/dev/urandom of=/data/full bs=64k count=2000 conv=fsync 2>&1; busybox stat -c %s /data/full"
# Files of most kinds, for a stream; and what they are.
MAKE_KINDS = """cd /data && busybox mkdir -m 700 d && cd d && busybox ln -s ../day link && busybox ln ../day same
busybox mkfifo pipe; busybox truncate -s 1000000 holes; echo own > own; busybox chown 33:33 own; busybox chmod 640 own
busybox mv own owned; cd /data"""
LIST = "cd /data && busybox find . -exec busybox stat -c '%n %F %s %u %g %a %h' {} ';' | busybox sort"


@asynccontextmanager
async def shell(machine: Machine, container: Container) -> AsyncIterator[Shell]:
    """Runs scripts in a container; what they say on both outputs."""
    async with inside(machine, container) as corex:

        async def run(script: str) -> str:
            done = await corex.execute(ExecRequest(("/bin/sh", "-c", script), env={"PATH": "/bin"}))
            return done.stdout.data + done.stderr.data

        yield run


async def pooled(client: NodeClient) -> None:
    """The pool `fast` of the machine's one disk."""
    await settled(client, 1)
    pool = await client.put_pool("fast", PoolSpec(Selector(), format_blank=True), wait=60)
    assert pool.state == "online", pool.why


# By the guest's clock.
TIMED_WRITE = """
now() { cut -d" " -f1 /proc/uptime | tr -d .; }
begun=$(now)
busybox dd if=/dev/zero of=/data/slow bs=1M count=6 conv=fsync 2>/dev/null
busybox rm /data/slow
echo $(($(now) - begun))
"""


async def test_a_volume_lives_in_a_container_at_its_limit_and_through_a_reboot(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, spec: Spec, tmp_path: Path
) -> None:
    machine = await machines.start(
        MachineSpec("volumes", direct_boot, disks=(blank(tmp_path, "one", 1 << 30),))
    )
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await pooled(client)
        with pytest.raises(RefusedError, match="cannot mount volume 'data': there is none"):
            await client.put_container("web", spec(mounts=(VolumeMount("data", "/data"),)))
        await client.put_volume("data", VolumeSpec(SIZE, "fast", IoLimits(write_bps=1 << 30)))
        mounts = (VolumeMount("data", "/data"), VolumeMount("data", "/var/lib/seen", read_only=True))
        container = await running(client, "web", spec(argv=IDLE, mounts=mounts))
        async with shell(machine, container) as run:
            assert await run("busybox stat -c '%u %g %a' /data") == "0 0 755\n", (
                "it is the container's root's"
            )
            assert await run("echo monday > /data/day; cat /var/lib/seen/day") == "monday\n"
            assert "Read-only" in await run("echo no > /var/lib/seen/day")
            options = await run("busybox grep /data /proc/mounts")
            assert re.search(r" btrfs rw,nosuid,nodev,", options), options
            assert f"wbps={1 << 30}" in await run("cat /sys/fs/cgroup/io.max")
            await client.put_volume("data", VolumeSpec(SIZE, "fast", IoLimits(read_iops=1000)))
            assert "wbps=max riops=1000" in await run("cat /sys/fs/cgroup/io.max")
            await client.limit_container("web", Limits(write_bps=2 << 20, read_iops=5000))
            assert f"wbps={2 << 20} riops=1000" in await run("cat /sys/fs/cgroup/io.max")
            hundredths = int((await run(TIMED_WRITE)).split()[-1])
            assert hundredths > 200, "six MiB at two a second, but for what may pass at once"
            await client.limit_container("web", Limits())
            assert "wbps=max riops=1000" in await run("cat /sys/fs/cgroup/io.max")
            full = await run(FILL)
            assert "Disk quota exceeded" in full
            assert int(full.split()[-1]) == pytest.approx(SIZE, rel=0.01)
            assert await run("busybox rm /data/full && sync && echo removed") == "removed\n"
            kinds = await run(f"{MAKE_KINDS}; {LIST}")
            assert kinds.count("\n") == 8, kinds
        await client.take_snapshot("data", "monday")
        with pytest.raises(RefusedError, match="container web has it"):
            await client.roll_back("data", "monday")
        await client.put_volume("copy", VolumeSpec(SIZE, "fast", origin=Origin("data", "monday")))
        stream = b"".join([piece async for piece in client.export_snapshot("data", "monday")])
        request = ImportRequest("first", VolumeSpec(SIZE, "fast"), len(stream))
        begun = await client.begin_import("moved", request)
        cut = await client.begin_import("cut", request)
        with pytest.raises(RefusedError, match="cannot import the stream: it is cut"):
            await client.feed_import(cut.operation, 0, once(stream[:-1]))
        ended = await client.feed_import(begun.operation, 0, once(stream))
        assert ended.state == "done", ended.why
        moved = await running(client, "moved", spec(argv=IDLE, mounts=(VolumeMount("moved", "/data"),)))
        async with shell(machine, moved) as run:
            assert await run("cat /data/day; busybox stat -c %u /data/day") == "monday\n0\n"
            assert await run(LIST) == kinds
        await client.delete_container("moved")
        await until(gone(client, "moved"))
        await client.delete_volume("moved", snapshots=True)
        await client.delete_container("web")
        await until(gone(client, "web"))
        await client.roll_back("data", "monday")
        await client.delete_volume("copy")
        await client.put_volume("kept", VolumeSpec(SIZE, "fast"))
        await running(client, "again", spec(argv=IDLE, mounts=(VolumeMount("data", "/data"),)))
    await machine.reset()
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await until(lambda: runs(client, "again"))
        found = [(one.name, one.size, one.state, one.containers) for one in await client.volumes()]
        assert found == [("data", SIZE, "ready", ("again",)), ("kept", SIZE, "ready", ())]
        async with shell(machine, await client.container("again")) as run:
            assert await run("cat /data/day") == "monday\n"


async def test_what_limits_a_container_follows_its_pool_to_other_disks(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, spec: Spec, tmp_path: Path
) -> None:
    disks = tuple(blank(tmp_path, name, 1 << 30) for name in ("one", "two", "spare"))
    machine = await machines.start(MachineSpec("moving", direct_boot, disks=disks))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        numbers = {serial: number_of(disk) for serial, disk in (await settled(client, 3)).items()}
        selector = Selector(("one", "two"))
        pool = await client.put_pool("fast", PoolSpec(selector, "raid1", format_blank=True), wait=60)
        assert pool.state == "online", pool.why
        await client.put_volume("data", VolumeSpec(SIZE, "fast", IoLimits(write_bps=1 << 30)))
        container = await running(client, "web", spec(argv=IDLE, mounts=(VolumeMount("data", "/data"),)))
        async with shell(machine, container) as run:

            async def limited(*serials: str) -> None:
                """Wait until just these disks are limited."""
                line = f"{{}} rbps=max wbps={1 << 30} riops=max wiops=max"
                lines = {line.format(numbers[serial]) for serial in serials}

                async def are() -> bool:
                    found = (await run("cat /sys/fs/cgroup/io.max")).splitlines()
                    return {
                        line for line in found if "(unknown)" not in line
                    } == lines  # as long as it is pulled

                await until(are)

            await limited("one", "two")
            await machine.pull("one", READY_SECONDS)
            await pool_in(client, "fast", "degraded")
            await limited("two")
            assert [one.state for one in await client.volumes()] == ["ready"], "the pool serves on"
            assert await run("echo monday > /data/day; sync; cat /data/day") == "monday\n"
            await rebuilt(client, "virtio-one", "spare")
            await limited("two", "spare")
            await machine.plug_disk(disks[0])
            numbers["one"] = number_of(await disk_in(client, "one", "free"))
            await rebuilt(client, "two", "one")
            await limited("spare", "one")


def number_of(disk: Disk) -> str:
    """`major:minor` of a virtio disk: the kernel gives each disk sixteen numbers of 254."""
    return f"254:{16 * (ord(disk.device.removeprefix('vd')) - ord('a'))}"


async def rebuilt(client: NodeClient, old: str, new: str) -> None:
    """Replace a disk of the pool, to the end."""
    operation = await client.replace_disk("fast", Replacement(old, new))
    while operation.state == "running":
        operation = await client.operation(operation.id, wait=30)
    assert operation.state == "done", operation.detail


async def runs(client: NodeClient, name: str) -> bool:
    """Whether a container that the node remembered runs: its volume's pool comes a while after the node."""
    found = {one.name: one.state for one in await client.containers()}
    return found.get(name) == "running"


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_volume_in_memory_serves_a_node_without_disks(
    machine: Machine, node: NodeClient, spec: Spec
) -> None:
    made = await node.put_volume("scratch", VolumeSpec(SIZE))
    assert (made.pool, made.state) == (None, "ready")
    limits = Limits(memory_mib=32, storage_mib=8)
    mounts = (VolumeMount("scratch", "/data"),)
    container = await running(node, "web", spec(argv=IDLE, mounts=mounts, limits=limits))
    async with shell(machine, container) as run:
        full = await run(FILL)
        assert "No space left" in full
        assert int(full.split()[-1]) == pytest.approx(SIZE, rel=0.01)
        assert await run("busybox stat -c '%u %a' /data/full") == "0 644\n"
        memory = (limits.memory_mib + limits.storage_mib) * MIB + SIZE
        assert await run("cat /sys/fs/cgroup/memory.max") == f"{memory}\n"
    assert (await node.volume("scratch")).used == pytest.approx(SIZE, rel=0.01)
    assert (await node.health()).ok
