"""Disks of a machine without a guest: QEMU's own `qemu-io` reads and writes where a guest would."""

from pathlib import Path

import pytest

from ci.pytest_machines import Machines
from ci.qemu.accel import TCG, Acceleration
from ci.qemu.disks import backend
from ci.qemu.machine import ERROR_LOG, Machine
from ci.qemu.spec import Disk, Fault, MachineSpec, NetBoot, UserNic, mac_address

pytestmark = pytest.mark.vm

MIB = 1 << 20
BOOT = NetBoot("http://10.0.2.2:9/none")
UUID = "7e5c1d2a-0f5b-4b8c-9a53-0c9f1f6f2d11"


@pytest.fixture
def acceleration() -> Acceleration:
    return TCG


def blank(folder: Path, name: str) -> Path:
    path = folder / f"{name}.img"
    with path.open("wb") as file:
        file.truncate(MIB)
    return path


async def ask(machine: Machine, disk: Disk, *commands: str) -> None:
    """Commands of qemu-io(1), answered as the guest's requests would be; see `answers`."""
    for command in commands:
        line = f'qemu-io -d {backend(disk)} "{command}"'
        assert await machine.monitor.human(line) == ""


async def answers(machine: Machine) -> list[str]:
    """What the disks answered: QEMU writes it to its standard output, and out of its buffer when it ends."""
    await machine.quit()
    lines = (machine.folder / ERROR_LOG).read_text().splitlines()
    return [line for line in lines if "failed" in line or "bytes at offset" in line]


@pytest.mark.parametrize("bus", ["virtio", "nvme"])
async def test_a_disk_is_plugged_with_its_serial_number_and_sector_size(
    machines: Machines, tmp_path: Path, bus: str
) -> None:
    machine = await machines.start(MachineSpec("idle", BOOT, memory=64))
    disk = Disk("late", blank(tmp_path, "late"), bus=bus, serial="SN 1", logical=4096)  # type: ignore[arg-type]
    await machine.plug_disk(disk)
    tree = await machine.monitor.human("info qtree")
    shown = tree[tree.index('id "late-disk"') :]
    for line in ('serial = "SN 1"', "logical_block_size = 4096 (4 KiB)", 'drive = "late"'):
        assert line in shown


async def test_a_disk_on_ahci_neither_comes_nor_goes(machines: Machines, tmp_path: Path) -> None:
    there = Disk("there", blank(tmp_path, "there"), bus="ahci", rotation=7200)
    machine = await machines.start(MachineSpec("idle", BOOT, memory=64, disks=(there,)))
    with pytest.raises(ValueError, match="cannot plug late into machine idle: QEMU has no hot-plug for AHCI"):
        await machine.plug_disk(Disk("late", blank(tmp_path, "late"), bus="ahci"))
    with pytest.raises(ValueError, match="cannot pull there out of machine idle: QEMU has no hot-plug for"):
        await machine.pull("there", 1)


@pytest.mark.parametrize("from_the_start", [True, False], ids=["from the start", "while it runs"])
async def test_a_disk_fails_where_it_shall_until_it_is_mended(
    machines: Machines, tmp_path: Path, from_the_start: bool
) -> None:
    faults = (Fault("read", offset=8192), Fault("write", errno=28))
    disk = Disk("torn", blank(tmp_path, "torn"), faults=faults if from_the_start else ())
    machine = await machines.start(MachineSpec("idle", BOOT, memory=64, disks=(disk,)))
    if not from_the_start:
        await ask(machine, disk, "write 0 512")
        await machine.fail_disk("torn", *faults)
    await ask(machine, disk, "read 8192 512", "read 4096 512", "write 4096 512")
    await machine.fail_disk("torn", Fault("flush", once=True))
    await ask(machine, disk, "read 8192 512")
    await machine.mend_disk("torn")
    await ask(machine, disk, "write -P 7 8192 512")
    found = await answers(machine)
    assert found[-5:] == [
        "read failed: Input/output error",
        "read 512/512 bytes at offset 4096",
        "write failed: No space left on device",
        "read 512/512 bytes at offset 8192",
        "wrote 512/512 bytes at offset 8192",
    ]
    assert disk.path.read_bytes()[8192:8704] == b"\7" * 512


@pytest.mark.parametrize("bus", ["virtio", "ahci", "nvme"])
async def test_a_disk_hangs_and_comes_to_itself(machines: Machines, tmp_path: Path, bus: str) -> None:
    disk = Disk("slow", blank(tmp_path, "slow"), bus=bus, hangs=True)  # type: ignore[arg-type]
    machine = await machines.start(MachineSpec("idle", BOOT, memory=64, disks=(disk,)))

    async def limit() -> int:
        (block,) = await machine.monitor.execute("query-block")
        return int(block["inserted"]["bps"])

    assert await limit() == 1
    await machine.mend_disk("slow")
    assert await limit() == 0
    await machine.hang_disk("slow")
    assert await limit() == 1


async def test_an_nvme_disk_warns_and_another_cannot(machines: Machines, tmp_path: Path) -> None:
    disks = tuple(Disk(bus, blank(tmp_path, bus), bus=bus) for bus in ("nvme", "ahci"))  # type: ignore[arg-type]
    machine = await machines.start(MachineSpec("idle", BOOT, memory=64, disks=disks))
    await machine.warn_of_disk("nvme", 4)
    warning = {"path": "/machine/peripheral/nvme-disk", "property": "smart_critical_warning"}
    assert await machine.monitor.execute("qom-get", warning) == 4
    with pytest.raises(ValueError, match="cannot let disk ahci warn: QEMU gives a health log that can"):
        await machine.warn_of_disk("ahci")
    with pytest.raises(ValueError, match="cannot find disk none in machine idle: no disk of that name"):
        await machine.warn_of_disk("none")


async def test_a_machine_whose_power_was_cut_is_itself_again(machines: Machines, tmp_path: Path) -> None:
    disk = Disk("kept", blank(tmp_path, "kept"))
    spec = MachineSpec("again", BOOT, memory=64, disks=(disk,), uuid=UUID)
    machine = await machines.start(spec)
    await machine.wait_for_line("SeaBIOS", 5)
    await machine.plug_nic(UserNic("late"))
    await ask(machine, disk, "write -P 7 0 512")
    await machine.cut_power()
    await machine.power_on()
    await machine.wait_for_line("SeaBIOS", 5)
    assert sum("SeaBIOS" in line for line in machine.console.lines) == 2
    await ask(machine, disk, "read -P 7 0 512")
    network = await machine.monitor.human("info network")
    assert f"macaddr={mac_address('again', 'net0')}" in network
    assert "late" not in network  # it was plugged into the life that has ended
    assert (await machine.monitor.execute("query-uuid"))["UUID"] == UUID
    await machine.plug_nic(UserNic("late"))
    assert await answers(machine) == ["read 512/512 bytes at offset 0"]
