"""The QEMU command line of a specification, against golden files."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ci.qemu.accel import KVM, TCG
from ci.qemu.spec import (
    DirectBoot,
    Disk,
    Fault,
    MachineSpec,
    NetBoot,
    SegmentNic,
    UserNic,
    Wiring,
    argv,
    mac_address,
    netdev,
)

DIRECT = DirectBoot(Path("/image/vmlinuz"), Path("/image/initramfs"), "console=ttyS0 zn.hostname=a")
TIED = Wiring(monitor=7, console=9, console_log=Path("/run/console.log"))
CASES = {
    "direct": (MachineSpec("node", DIRECT), TCG.arguments, TIED),
    "netboot": (MachineSpec("node", NetBoot("http://10.0.2.2:8080/boot.ipxe")), KVM.arguments, TIED),
    "detached-with-snapshots": (
        MachineSpec("node", DIRECT, memory=256, cpus=1, spare_slots=0, snapshots=True, on_reboot="shutdown"),
        TCG.arguments,
        Wiring(7, 9, Path("/run/console.log"), listening=True, scratch=Path("/run/scratch.qcow2")),
    ),
    "two-cards-and-disks": (
        MachineSpec(
            "router",
            NetBoot("http://10.0.2.2:8080/boot.ipxe"),
            nics=(UserNic(isolated=True), SegmentNic("lan", Path("/run/lan.card"), Path("/run/lan.hub"))),
            disks=(
                Disk("data", Path("/disks/with,comma.img")),
                Disk("seed", Path("/disks/seed.qcow2"), "qcow2", read_only=True),
            ),
        ),
        TCG.arguments,
        TIED,
    ),
    "cards-of-all-kinds": (
        MachineSpec(
            "multihomed",
            DIRECT,
            nics=(
                UserNic(),
                UserNic("net1", model="e1000e"),
                SegmentNic("lan", Path("/run/lan.card"), Path("/run/lan.hub"), "rtl8139"),
                UserNic("net3", isolated=True, model="vmxnet3"),
            ),
        ),
        TCG.arguments,
        TIED,
    ),
    "disks-of-all-kinds": (
        MachineSpec(
            "storage",
            DIRECT,
            nics=(),
            spare_slots=1,
            uuid="7e5c1d2a-0f5b-4b8c-9a53-0c9f1f6f2d11",
            disks=(
                Disk("fast", Path("/disks/fast.img"), bus="nvme", logical=4096),
                Disk("named", Path("/disks/named.img"), bus="nvme", serial="SN 1", read_only=True),
                Disk("spun", Path("/disks/spun.img"), bus="ahci", physical=4096, rotation=7200),
                Disk("flash", Path("/disks/flash.img"), bus="ahci", rotation=1, wwn=0x5000C500A1B2C3D4),
                Disk("twin", Path("/disks/twin.img"), serial="same"),
                Disk(
                    "torn",
                    Path("/disks/torn.img"),
                    serial="same",
                    faults=(Fault("read", 1 << 20), Fault("write", once=True, errno=28)),
                ),
            ),
        ),
        TCG.arguments,
        TIED,
    ),
    "24-disks": (
        MachineSpec(
            "full",
            DIRECT,
            spare_slots=0,
            disks=tuple(
                Disk(f"d{index}", Path(f"/disks/{index}.img"), bus=bus)
                for index, bus in enumerate(("virtio", "ahci", "nvme") * 8)
            ),
        ),
        TCG.arguments,
        TIED,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_command_line_is_the_golden_one(name: str, golden: Callable[[str, str], None]) -> None:
    words = argv(*CASES[name])
    lines = " ".join(words).replace(" -", "\n-")
    golden(f"argv-{name}.txt", f"{lines}\n")


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        (Disk("d", Path("/d"), bus="ahci", read_only=True), "no read-only disks on AHCI"),
        (Disk("d", Path("/d"), bus="ahci", logical=4096), "logical blocks of 512 bytes"),
        (Disk("d", Path("/d"), rotation=7200), "rotation rate of AHCI disks only"),
        (Disk("d", Path("/d"), wwn=1), "world wide name of AHCI disks only"),
        (Disk("d", Path("/d"), serial="s" * 21), "more than 20 bytes"),
    ],
    ids=["read-only", "4k", "rotation", "wwn", "serial"],
)
def test_what_qemu_has_no_words_for_is_refused_by_name(disk: Disk, why: str) -> None:
    with pytest.raises(ValueError, match=f"cannot make disk d: .*{why}"):
        argv(MachineSpec("node", DIRECT, disks=(disk,)), (), TIED)


def test_each_card_of_each_machine_has_its_own_stable_address() -> None:
    addresses = {mac_address(machine, nic) for machine in ("a", "b") for nic in ("net0", "net1")}
    assert len(addresses) == 4
    assert all(address.startswith("52:54:00:") for address in addresses)
    assert mac_address("a", "net0") == mac_address("a", "net0")


def test_the_boot_file_goes_to_the_card_that_boots() -> None:
    boot = NetBoot("http://10.0.2.2:1/boot.ipxe")
    assert netdev(UserNic(), boot)["bootfile"] == boot.url
    assert "bootfile" not in netdev(UserNic("net1"))


def test_a_network_may_have_ipv6_only() -> None:
    assert netdev(UserNic(ipv4=False))["ipv4"] is False
    assert "ipv4" not in netdev(UserNic())


@pytest.mark.parametrize("name", CASES)
def test_a_specification_survives_its_file(name: str) -> None:
    spec = CASES[name][0]
    text = msgspec.json.encode(spec, enc_hook=str)
    assert msgspec.json.decode(text, type=MachineSpec, dec_hook=lambda kind, value: kind(value)) == spec
