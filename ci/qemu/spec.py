"""What a machine is, as frozen values, and the QEMU command line that they stand for. Pure.

Follows qemu(1) and docs/system/ of QEMU 7.2 (Debian 12) to 10.0 (Debian 13).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec

from ci.qemu import disks
from ci.qemu.disks import Disk as Disk
from ci.qemu.disks import Fault as Fault

MONITOR = "monitor"
CONSOLE = "console"
SCRATCH = "scratch"
TPM = "tpm"


@dataclass(frozen=True)
class Architecture:
    """How one CPU architecture is called in QEMU's words."""

    program: str
    machine: str
    serial: str


ARCHITECTURES = MappingProxyType(
    {"amd64": Architecture("qemu-system-x86_64", "q35,graphics=off", "ttyS0")},
)


class DirectBoot(msgspec.Struct, frozen=True, tag=True):
    """QEMU itself loads kernel and initramfs: no firmware, no network, the shortest way to PID 1."""

    kernel: Path
    initramfs: Path | None = None
    arguments: str = ""


class NetBoot(msgspec.Struct, frozen=True, tag=True):
    """PXE: the firmware's iPXE gets an address, then this script by HTTP. The host's loopback is 10.0.2.2."""

    url: str


Boot = DirectBoot | NetBoot

# How the guest sees a card.
CardModel = Literal["virtio", "vmxnet3", "e1000e", "rtl8139"]
_CARDS: Mapping[CardModel, str] = MappingProxyType(
    {"virtio": "virtio-net-pci", "vmxnet3": "vmxnet3", "e1000e": "e1000e", "rtl8139": "rtl8139"}
)


class UserNic(msgspec.Struct, frozen=True, tag=True):
    """A card on QEMU's own NAT network (10.0.2.0/24): needs no privilege, reached through port forwards.

    Attributes:
        name: the identifier of card and network, unique in the machine.
        isolated: True keeps guest packets from leaving to anything but the forwards.
        ipv4: False takes away the network's IPv4 with its DHCP; forwards do not reach the guest then.
        model: how the guest sees the card.
    """

    name: str = "net0"
    isolated: bool = False
    ipv4: bool = True
    model: CardModel = "virtio"


class SegmentNic(msgspec.Struct, frozen=True, tag=True):
    """A card whose Ethernet frames go as datagrams between two Unix sockets; see `ci.qemu.segment`."""

    name: str
    local: Path
    remote: Path
    model: CardModel = "virtio"


Nic = UserNic | SegmentNic


class MachineSpec(msgspec.Struct, frozen=True):
    """One machine.

    Attributes:
        name: names the machine in messages and files, and seeds its hardware addresses.
        memory: RAM in MiB.
        cpus: virtual CPUs. Two or more under TCG can end in 'Oops: int3' (docs/decisions/0005-one-cpu-under-tcg.md).
        spare_slots: empty PCIe ports for devices plugged later.
        snapshots: True adds the scratch disk, invisible to the guest, that holds snapshots.
        on_reboot: what a reboot inside the guest does to the machine: a restart, or the end of QEMU.
        preallocated: True takes all memory from the host before the start, for measuring.
        tpm: the socket of its TPM 2.0 (`ci.qemu.tpm`), if it has one.
        uuid: the machine's own (SMBIOS), if it has one; tells two machines apart.
        clock: what its battery-backed clock says at the start, as 1970-01-01T00:00:00; the host's time without.
    """

    name: str
    boot: Boot
    memory: int = 512
    cpus: int = 1
    nics: tuple[Nic, ...] = (UserNic(),)
    disks: tuple[Disk, ...] = ()
    spare_slots: int = 4
    snapshots: bool = False
    on_reboot: Literal["reset", "shutdown"] = "reset"
    architecture: str = "amd64"
    preallocated: bool = False
    uuid: str = ""
    clock: str = ""
    tpm: Path | None = None


@dataclass(frozen=True)
class Wiring:
    """What the starting process hands to QEMU: inherited socket descriptors and the files it may write.

    Attributes:
        monitor: descriptor of the QMP socket.
        console: descriptor of the serial console's socket.
        console_log: where QEMU copies every console byte, even when nobody reads the socket.
        listening: True when the descriptors listen for connections, False when they are connected.
        scratch: the qcow2 file for snapshots, if the machine has them.
    """

    monitor: int
    console: int
    console_log: Path
    listening: bool = False
    scratch: Path | None = None


def argv(spec: MachineSpec, acceleration: tuple[str, ...], wiring: Wiring) -> tuple[str, ...]:
    """The whole command line of QEMU for a machine that waits, stopped, for the monitor's `cont`."""
    architecture = ARCHITECTURES[spec.architecture]
    return (
        architecture.program,
        *("-name", spec.name),
        *("-nodefaults", "-no-user-config", "-display", "none", "-S"),
        *("-machine", architecture.machine),
        *acceleration,
        *("-m", str(spec.memory), "-smp", str(spec.cpus)),
        *(["-mem-prealloc"] if spec.preallocated else []),
        *(["-uuid", spec.uuid] if spec.uuid else []),
        *(["-rtc", f"base={spec.clock}"] if spec.clock else []),
        *("-action", f"reboot={spec.on_reboot}"),
        *_wires(wiring),
        # trixie's OVMF offers no network boot without one, and guests wait for entropy
        *("-device", "virtio-rng-pci"),
        *(_tpm(spec.tpm) if spec.tpm else []),
        *_slots(spec.spare_slots),
        *_boot(spec.boot),
        *(word for nic in spec.nics for word in _nic(nic, spec)),
        *_disks(spec.disks),
    )


def mac_address(machine: str, nic: str) -> str:
    """A stable hardware address in QEMU's range 52:54:00, different for each machine and card name."""
    digest = hashlib.sha256(f"{machine}/{nic}".encode()).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def netdev(nic: Nic, boot: Boot | None = None) -> dict[str, object]:
    """The network side of a card, in the words of QMP's `netdev_add`, which are those of `-netdev` too."""
    if isinstance(nic, SegmentNic):
        return {
            "type": "dgram",
            "id": nic.name,
            "local": {"type": "unix", "path": str(nic.local)},
            "remote": {"type": "unix", "path": str(nic.remote)},
        }
    options: dict[str, object] = {"type": "user", "id": nic.name, "restrict": nic.isolated}
    if not nic.ipv4:
        options["ipv4"] = False
    if isinstance(boot, NetBoot):
        options["bootfile"] = boot.url
    return options


def nic_device(nic: Nic, machine: str) -> dict[str, object]:
    """The guest side of a card, in the words of QMP's `device_add`, without the bus."""
    # a virtio card tells no speed by itself, and Linux speaks LACP only on cards that do
    speed = {"speed": 1000, "duplex": "full"} if isinstance(nic, SegmentNic) and nic.model == "virtio" else {}
    return {
        "driver": _CARDS[nic.model],
        "id": card_name(nic.name),
        "netdev": nic.name,
        "mac": mac_address(machine, nic.name),
        **speed,
    }


def card_name(nic: str) -> str:
    """The identifier of the device that the guest sees of a card."""
    return f"{nic}-card"


def slot_name(index: int) -> str:
    """The identifier of a spare PCIe port, counted from 0."""
    return f"slot{index}"


def _wires(wiring: Wiring) -> Iterator[str]:
    mode = ",server=on,wait=off" if wiring.listening else ""
    yield from ("-chardev", f"socket,id={MONITOR},fd={wiring.monitor}{mode}")
    yield from ("-mon", f"chardev={MONITOR},mode=control")
    yield from (
        "-chardev",
        f"socket,id={CONSOLE},fd={wiring.console}{mode},logfile={_escaped(wiring.console_log)},logappend=on",
    )
    yield from ("-serial", f"chardev:{CONSOLE}")
    if wiring.scratch:
        yield from ("-blockdev", _options(disks.blockdev(Disk(SCRATCH, wiring.scratch, "qcow2"))))


def _tpm(socket: Path) -> Iterator[str]:
    yield from ("-chardev", f"socket,id={TPM},path={_escaped(socket)}")
    yield from ("-tpmdev", f"emulator,id={TPM},chardev={TPM}", "-device", f"tpm-crb,tpmdev={TPM}")


def _slots(count: int) -> Iterator[str]:
    for index in range(count):
        yield from ("-device", f"pcie-root-port,id={slot_name(index)},chassis={index + 1}")


def _boot(boot: Boot) -> Iterator[str]:
    if isinstance(boot, NetBoot):
        yield from ("-boot", "order=n,strict=on")
        return
    yield from ("-kernel", str(boot.kernel))
    if boot.initramfs:
        yield from ("-initrd", str(boot.initramfs))
    yield from ("-append", boot.arguments)


def _nic(nic: Nic, spec: MachineSpec) -> Iterator[str]:
    first = nic is spec.nics[0]
    yield from ("-netdev", _options(netdev(nic, spec.boot if first else None)))
    device = nic_device(nic, spec.name)
    if isinstance(spec.boot, NetBoot) and first:
        device["bootindex"] = 1
    else:
        device["romfile"] = ""  # a card that need not boot costs no firmware time
    yield from ("-device", _options(device, first_key="driver"))


def _disks(wanted: tuple[Disk, ...]) -> Iterator[str]:
    for controller in disks.controllers(wanted):
        yield from ("-device", _options(controller, first_key="driver"))
    buses = disks.buses(wanted)
    for disk in wanted:
        device = {**disks.device(disk), "bus": buses[disk.name]}
        yield from ("-blockdev", _options(disks.blockdev(disk)))
        yield from ("-device", _options(device, first_key="driver"))


def _options(values: dict[str, object], first_key: str = "") -> str:
    """QEMU's key=value list; nested dictionaries and lists become dotted keys, commas in values are doubled."""
    words = []
    for key, value in _flat(values):
        text = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
        words.append(_escaped(text) if key in (first_key, "type") else f"{key}={_escaped(text)}")
    return ",".join(words)


def _flat(values: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield from _flat({str(place): item for place, item in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _escaped(value: object) -> str:
    return str(value).replace(",", ",,")
