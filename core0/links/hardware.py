"""What stands behind the network devices, and the network controllers behind which there is none. Reads sysfs.

No boot waits for this, so only what comes after the boot imports it.
Sources: Documentation/ABI/testing/sysfs-class-net, sysfs-bus-pci; the PCI Code and ID Assignment Specification, 1.3.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence

import msgspec

from core0.links.observe import driver_of, place_of
from core0.linux import ethtool, files
from core0.wire.network import CONTAINER_LINK_PREFIX

_VIRTIO = re.compile(r"virtio\d+")
# The base class of network controllers.
_NETWORK = 0x02


class Hardware(msgspec.Struct, frozen=True):
    """What stands behind a network device.

    Attributes:
        pci: the bus address of its PCI function; empty if it is on another bus.
        pci_id: `vendor:device`, four hexadecimal digits each.
        driver: which drives it.
        firmware: the version that the driver tells.
        speed_mbps: of its carrier, if the driver tells one.
    """

    pci: str = ""
    pci_id: str = ""
    driver: str = ""
    firmware: str = ""
    speed_mbps: int | None = None


class Controller(msgspec.Struct, frozen=True):
    """A network controller that has no network device.

    Attributes:
        pci: its bus address.
        pci_id: `vendor:device`.
        driver: which has taken it; empty if none has.
        modules: those of this image that are for it.
    """

    pci: str
    pci_id: str
    driver: str = ""
    modules: tuple[str, ...] = ()


def read_devices(
    root: str = "/sys", firmware: Callable[[str], str] = ethtool.firmware
) -> dict[str, Hardware]:
    """Every network device that stands for hardware, by its name."""
    names = (name for name in _own_names(root) if _is_hardware(root, name))
    return {name: _hardware(root, name, firmware) for name in names}


def read_controllers(
    find_modules: Callable[[str], Sequence[str]], root: str = "/sys"
) -> tuple[Controller, ...]:
    """Every network controller without a network device, in the order of their places.

    Args:
        find_modules: names the image's modules that are for a device, by its MODALIAS.
        root: where sysfs is.
    """
    used = {place_of(f"{root}/class/net/{name}") for name in _own_names(root)}
    return tuple(
        _controller(root, place, find_modules) for place in _network_places(root) if place not in used
    )


def _own_names(root: str) -> list[str]:
    """The names of all network devices but containers', which are never hardware and may be thousands."""
    return sorted(
        name for name in os.listdir(f"{root}/class/net") if not name.startswith(CONTAINER_LINK_PREFIX)
    )


def _is_hardware(root: str, name: str) -> bool:
    return os.path.exists(f"{root}/class/net/{name}/device")


def _hardware(root: str, name: str, firmware: Callable[[str], str]) -> Hardware:
    device = f"{root}/class/net/{name}"
    pci = place_of(device)
    try:
        version = firmware(name)
    except OSError:  # a driver that tells nothing, a card that was pulled at this moment
        version = ""
    return Hardware(
        pci=pci,
        pci_id=_pci_id(f"{root}/bus/pci/devices/{pci}") if pci else "",
        driver=driver_of(f"{device}/device"),
        firmware=version,
        speed_mbps=_speed(f"{device}/speed"),
    )


def _network_places(root: str) -> Iterator[str]:
    devices = f"{root}/bus/pci/devices"
    try:
        places = sorted(os.listdir(devices))
    except FileNotFoundError:  # a machine without PCI
        return
    for place in places:
        if _hexadecimal(f"{devices}/{place}/class") >> 16 == _NETWORK:
            yield place


def _controller(root: str, place: str, find_modules: Callable[[str], Sequence[str]]) -> Controller:
    function = f"{root}/bus/pci/devices/{place}"
    device = _virtio_device(function) or function
    driver = driver_of(device)
    modules = () if driver else tuple(find_modules(_text(f"{device}/modalias")))
    return Controller(place, _pci_id(function), driver, modules)


def _virtio_device(function: str) -> str | None:
    """Virtio's driver for PCI makes a device on a bus of its own, which needs a driver again."""
    try:
        names = sorted(os.listdir(function))
    except FileNotFoundError:  # pulled at this moment
        return None
    return next((f"{function}/{name}" for name in names if _VIRTIO.fullmatch(name)), None)


def _pci_id(function: str) -> str:
    vendor, device = (_hexadecimal(f"{function}/{name}") for name in ("vendor", "device"))
    return f"{vendor:04x}:{device:04x}"


def _speed(path: str) -> int | None:
    """In Mbit/s; without a carrier drivers say -1, or nothing."""
    text = _text(path)
    return int(text) if text.isdecimal() and int(text) else None


def _hexadecimal(path: str) -> int:
    try:
        return int(_text(path), 16)
    except ValueError:
        return 0


def _text(path: str) -> str:
    try:
        return files.read_text(path).strip()
    except OSError:
        return ""
