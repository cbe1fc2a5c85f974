"""Booted images: the phases, the way from the firmware to the API, and the verbs of the QEMU library on a guest."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ci.pytest_machines import Machines, machines_of
from ci.qemu.accel import Acceleration
from ci.qemu.console import ConsoleError
from ci.qemu.machine import Machine
from ci.qemu.segment import Segment
from ci.qemu.spec import DirectBoot, Disk, MachineSpec, NetBoot, UserNic
from core0.client.client import NodeClient, UnreachableError
from core0.wire.console import PHASES
from core0.wire.types import PowerRequest
from image.server import Config, Running, serve

Connect = Callable[[Machine], Awaitable[NodeClient]]
READY_SECONDS = 10.0


async def test_the_phases_come_in_their_order_with_growing_times(machine: Machine) -> None:
    phases = machine.console.phases
    assert [phase.at for phase in phases] == sorted(phase.at for phase in phases)
    names = [phase.name for phase in phases]
    names.remove("storage")  # five seconds after `supervise`: before `ready` where the host is slow
    assert names == [name for name in PHASES if name in names]
    assert names[-1] == "ready"


async def test_a_node_boots_over_the_network_and_answers_its_operator(
    machines: Machines, server: Running, connect: Connect
) -> None:
    boot = NetBoot(f"http://10.0.2.2:{server.port}/boot.ipxe")
    machine = await machines.start(MachineSpec("netbooted", boot))
    await machine.wait_for_phase("ready", 2 * READY_SECONDS)
    async with await connect(machine) as client:
        assert (await client.node()).hostname == "node1"


async def test_a_restored_node_answers_as_before(
    machine: Machine, node: NodeClient, connect: Connect
) -> None:
    before = await node.node()
    await machine.restore("ready")
    async with await connect(machine) as again:
        after = await again.node()
    assert (after.fingerprint, after.build) == (before.fingerprint, before.build)


async def test_a_reset_node_comes_back_with_a_new_identity(
    machines: Machines, direct_boot: DirectBoot, connect: Connect
) -> None:
    machine = await machines.start(MachineSpec("reset", direct_boot))
    first = await machine.wait_for_phase("identity", READY_SECONDS)
    await machine.reset()
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        assert first.detail != f"sha256:{(await client.node()).fingerprint}"


@pytest.mark.parametrize("action", ["reboot", "poweroff"])
async def test_the_operator_ends_a_node_in_order(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, action: str
) -> None:
    machine = await machines.start(MachineSpec("ended", direct_boot, on_reboot="shutdown"))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await client.power(msgspec.convert({"action": action}, PowerRequest))
    await machine.wait_for_exit(READY_SECONDS)


async def test_a_node_without_power_is_reported_as_unreachable(
    machines: Machines, direct_boot: DirectBoot, connect: Connect
) -> None:
    machine = await machines.start(MachineSpec("dark", direct_boot))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        await client.node()
        await machine.cut_power()
        with pytest.raises(UnreachableError, match="cannot reach the node at 127"):
            await client.node()


async def test_a_guest_takes_and_releases_devices_while_it_runs(machine: Machine, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    await machine.plug_disk(Disk("data", disk))
    await machine.plug_nic(UserNic("net1"))
    await machine.pull("data", READY_SECONDS)
    await machine.pull("net1", READY_SECONDS)
    assert 'id "data-disk"' not in await machine.monitor.human("info qtree")


async def test_frames_pass_between_machines_on_a_segment_until_the_cable_is_cut(
    machines: Machines, direct_boot: DirectBoot, tmp_path: Path
) -> None:
    async with Segment(tmp_path) as lan:
        lan.cut("cut1")
        for name in ("talks", "cut"):
            nics = (lan.nic(f"{name}1"),)
            await machines.start(MachineSpec(name, direct_boot, memory=384, nics=nics))
        await lan.wait_for_frame("talks1", READY_SECONDS * 12)
        assert lan.frames["cut1"] == 0


async def test_a_server_that_ends_in_the_middle_is_named_on_the_console(
    machines: Machines, image: Path, boot_arguments: tuple[str, ...]
) -> None:
    fetched = asyncio.Event()

    def tell(event: str, **fields: object) -> None:
        if fields.get("path") == "/image/boot.ipxe":
            fetched.set()

    async with serve(Config(image, arguments=boot_arguments), tell) as running:
        boot = NetBoot(f"http://10.0.2.2:{running.port}/boot.ipxe")
        machine = await machines.start(MachineSpec("abandoned", boot))
        await fetched.wait()
    with pytest.raises(
        ConsoleError, match="cannot see phase ready of machine abandoned: the boot ended with"
    ):
        await machine.wait_for_phase("ready", 6 * READY_SECONDS)


async def test_rubbish_on_the_command_line_is_told_and_does_not_stop_the_boot(
    machines: Machines, direct_boot: DirectBoot, connect: Connect
) -> None:
    arguments = f'{direct_boot.arguments} zn.hostnam=x zn.panic=never "zn.hostname=a b" zn. = \x01'
    boot = DirectBoot(direct_boot.kernel, direct_boot.initramfs, arguments)
    machine = await machines.start(MachineSpec("rubbish", boot))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:
        warnings = (await client.boot()).warnings
    assert any("unknown kernel parameter" in warning and "zn.hostnam" in warning for warning in warnings)
    assert any("zn.panic=" in warning and "as in zn.panic=60" in warning for warning in warnings)


async def test_so_little_memory_that_the_kernel_itself_fails_is_its_own_panic(
    machines: Machines, direct_boot: DirectBoot
) -> None:
    spec = MachineSpec("tiny", direct_boot, memory=96, on_reboot="shutdown")
    machine = await machines.start(spec, expect=("panic", "Call Trace"))
    await machine.wait_for_line("System is deadlocked on memory", 3 * READY_SECONDS)
    await machine.wait_for_line("Call Trace", READY_SECONDS)


async def test_too_little_memory_for_a_node_is_told_with_the_remedy_and_the_machine_reboots(
    machines: Machines, direct_boot: DirectBoot
) -> None:
    boot = DirectBoot(direct_boot.kernel, direct_boot.initramfs, f"{direct_boot.arguments} zn.panic=2")
    spec = MachineSpec("small", boot, memory=136, on_reboot="shutdown")
    machine = await machines.start(spec, expect=("zn: panic: cannot boot: ",))
    told = await machine.wait_for_line("zn: panic: ", READY_SECONDS)
    found = re.search(r"cannot boot: (\d+) MiB of memory are left beside the kernel, too little", told)
    assert found
    assert 64 < int(found[1]) < 110
    assert told.endswith("give the machine at least 256 MiB")
    await machine.wait_for_line("zn: the node reboots in 2 s", READY_SECONDS)
    await machine.wait_for_exit(READY_SECONDS)
    assert {phase.name for phase in machine.console.phases} == {"init"}


async def test_a_processor_without_random_numbers_boots(
    request: pytest.FixtureRequest,
    acceleration: Acceleration,
    direct_boot: DirectBoot,
    connect: Connect,
    tmp_path: Path,
) -> None:
    plain = replace(acceleration, arguments=(*acceleration.arguments, "-cpu", "qemu64"))
    arguments = f"{direct_boot.arguments} random.trust_bootloader=off"
    boot = DirectBoot(direct_boot.kernel, direct_boot.initramfs, arguments)
    async with machines_of(request.node, plain, tmp_path) as machines:
        machine = await machines.start(MachineSpec("predictable", boot))
        (processor,) = await machine.monitor.execute("query-cpus-fast")
        for instruction in ("rdrand", "rdseed"):
            path = processor["qom-path"]
            assert not await machine.monitor.execute("qom-get", path=path, property=instruction)
        await machine.wait_for_phase("ready", READY_SECONDS)
        async with await connect(machine) as client:
            assert (await client.health()).ok


async def test_a_panic_in_the_guest_fails_the_test_unless_it_is_expected(
    machines: Machines, direct_boot: DirectBoot
) -> None:
    boot = DirectBoot(direct_boot.kernel, None, "console=ttyS0 panic=-1")
    machine = await machines.start(
        MachineSpec("rootless", boot, on_reboot="shutdown"), expect=("panic", "Call Trace")
    )
    await machine.wait_for_line("Kernel panic", READY_SECONDS)
    await machine.wait_for_exit(READY_SECONDS)
