"""Machines that run: QEMU with its firmware and nothing to boot tries the verbs that need no guest."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ci.pytest_machines import Machines
from ci.qemu import detached, ports, process
from ci.qemu.accel import TCG, Acceleration
from ci.qemu.console import ConsoleError
from ci.qemu.machine import Machine
from ci.qemu.monitor import MonitorError
from ci.qemu.process import StartError
from ci.qemu.segment import Segment
from ci.qemu.spec import DirectBoot, Disk, MachineSpec, NetBoot, UserNic

pytestmark = pytest.mark.vm

# Port 9 of the host answers nothing: the firmware tries it, gives up, and prints so.
IDLE = MachineSpec("idle", NetBoot("http://10.0.2.2:9/none"), memory=64, cpus=1)


@pytest.fixture
def acceleration() -> Acceleration:
    return TCG


async def test_the_firmware_is_heard_and_the_machine_ends_with_the_block(machines: Machines) -> None:
    machine = await machines.start(IDLE)
    await machine.wait_for_line("SeaBIOS", 5)
    await machine.quit()
    assert b"SeaBIOS" in machine.console_log.read_bytes()


async def test_a_reset_starts_the_boot_anew(machines: Machines) -> None:
    machine = await machines.start(IDLE)
    await machine.wait_for_line("SeaBIOS", 5)
    await machine.reset()
    await machine.wait_for_line("SeaBIOS", 5)
    assert sum("SeaBIOS" in line for line in machine.console.lines) == 2


async def test_cut_power_ends_everything_at_once(machines: Machines) -> None:
    machine = await machines.start(IDLE)
    await machine.cut_power()
    assert machine.console.closed
    with pytest.raises(MonitorError, match="cannot query-status on machine idle: QEMU has ended"):
        await machine.monitor.execute("query-status")


async def test_forwards_get_different_ports_and_keep_them(machines: Machines) -> None:
    first, second = (
        await machines.start(IDLE),
        await machines.start(MachineSpec("other", IDLE.boot, memory=64)),
    )
    found = await asyncio.gather(
        *(machine.forward(port) for machine in (first, second) for port in (80, 443))
    )
    assert len(set(found)) == 4
    assert await first.forward(80) == found[0]
    for port in found:
        socket.create_connection(("127.0.0.1", port), 5).close()


async def test_a_removed_forward_is_closed_and_cannot_be_removed_twice(machines: Machines) -> None:
    machine = await machines.start(IDLE)
    port = await machine.forward(80)
    await ports.remove_forward(machine.monitor, "net0", port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    with pytest.raises(MonitorError, match=f"cannot remove the forward of host port {port}: .*not found"):
        await ports.remove_forward(machine.monitor, "net0", port)


async def test_a_guest_that_does_not_listen_is_reported_with_its_console(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await machines.start(IDLE)
    await machine.wait_for_line("SeaBIOS", 5)
    monkeypatch.setenv("ZN_DEADLINE_SCALE", "0.1")
    with pytest.raises(ConsoleError, match=r"(?s)cannot connect to port 80 of machine idle.*\| SeaBIOS"):
        await machine.wait_for_port(80, 1)


async def test_devices_are_plugged_until_no_slot_is_free(machines: Machines, tmp_path: Path) -> None:
    machine = await machines.start(MachineSpec("idle", IDLE.boot, memory=64, spare_slots=2))
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    await machine.plug_disk(Disk("data", disk))
    await machine.plug_nic(UserNic("net1"))
    tree = await machine.monitor.human("info qtree")
    assert 'id "data-disk"' in tree
    assert 'id "net1-card"' in tree
    with pytest.raises(ValueError, match="cannot plug net2 into machine idle: no spare slot is free"):
        await machine.plug_nic(UserNic("net2"))


async def test_a_snapshot_brings_the_machine_back(machines: Machines) -> None:
    machine = await machines.start(MachineSpec("idle", IDLE.boot, memory=64, snapshots=True))
    await machine.wait_for_line("SeaBIOS", 5)
    port = await machine.forward(80)
    await machine.snapshot("early")
    await machine.restore("early")
    assert (await machine.monitor.execute("query-status"))["status"] == "running"
    socket.create_connection(("127.0.0.1", port), 5).close()
    with pytest.raises(MonitorError, match=r"cannot snapshot-load on machine idle: .*none"):
        await machine.restore("none")


async def test_a_machine_that_cannot_start_says_why_in_qemus_words(machines: Machines) -> None:
    with pytest.raises(StartError, match=r"cannot start machine bad: .*could not open kernel file '/none'"):
        await machines.start(MachineSpec("bad", DirectBoot(Path("/none"))))


async def test_a_detached_machine_is_found_again_and_ended(tmp_path: Path) -> None:
    await detached.launch(IDLE, TCG, tmp_path)
    async with detached.attach(tmp_path) as machine:
        await machine.monitor.execute("cont")
        await machine.wait_for_line("SeaBIOS", 5)
    async with detached.attach(tmp_path) as machine:
        assert any("SeaBIOS" in line for line in machine.console.lines)
        await machine.quit()
    assert detached.find(tmp_path) is None
    with pytest.raises(StartError, match="no such machine runs; start it first"):
        async with detached.attach(tmp_path):
            pytest.fail("attached to nothing")


async def test_a_detached_machine_whose_image_is_gone_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="could not open kernel file '/none'"):
        await detached.launch(MachineSpec("bad", DirectBoot(Path("/none"))), TCG, tmp_path)
    assert detached.find(tmp_path) is None


async def test_a_segment_of_machines_opens_and_closes(machines: Machines, tmp_path: Path) -> None:
    async with Segment(tmp_path) as lan:
        pair = [MachineSpec(name, IDLE.boot, memory=64, nics=(lan.nic(f"{name}1"),)) for name in ("a", "b")]
        for spec in pair:
            machine = await machines.start(spec)
            await machine.wait_for_line("SeaBIOS", 5)


# A program that starts a machine and then does nothing, to be killed like a test runner that is killed.
PARENT = """
import asyncio
from pathlib import Path
from ci.qemu.accel import TCG
from ci.qemu.machine import Machine
from ci.qemu.spec import MachineSpec, NetBoot

async def main():
    spec = MachineSpec("orphan", NetBoot("http://10.0.2.2:9/none"), memory=64)
    async with Machine(spec, TCG, Path({folder!r})) as machine:
        print(machine.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_no_machine_outlives_its_killed_parent(tmp_path: Path, number: signal.Signals) -> None:
    program = textwrap.dedent(PARENT.format(folder=str(tmp_path)))
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    machine = process.identify(int(await parent.stdout.readline()))
    assert machine is not None
    parent.send_signal(number)
    await parent.wait()
    assert await process.wait_ended(machine, 10)


def test_a_parent_that_is_gone_before_the_start_leaves_nothing() -> None:
    tether = Path(process.tether.__file__)
    done = subprocess.run(
        [sys.executable, "-IS", str(tether), str(os.getppid()), "sleep", "600"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "the process that asked for it is gone" in done.stderr


async def test_a_recycled_process_number_is_no_longer_the_machine() -> None:
    own = process.identify(os.getpid())
    assert own is not None
    impostor = process.Identity(own.pid, own.started + 1)
    assert not process.is_alive(impostor)
    assert not process.send(impostor, signal.SIGKILL)


async def test_closing_twice_and_closing_unstarted_are_fine(tmp_path: Path) -> None:
    machine = Machine(IDLE, TCG, tmp_path)
    await machine.close()
    await machine.start()
    await machine.close()
    await machine.close()
