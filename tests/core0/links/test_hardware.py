"""What stands behind network devices, and controllers behind which there is none, from trees as sysfs has them."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core0.links import hardware
from core0.links.hardware import Controller, Hardware, read_controllers, read_devices

BRIDGE, ETHERNET, WIRELESS, DISPLAY = "0x060400", "0x020000", "0x028000", "0x030000"


class Sysfs:
    """A tree in a folder that grows by cards."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "class/net").mkdir(parents=True)
        (root / "bus/pci/devices").mkdir(parents=True)

    def function(
        self, place: str, ids: str, driver: str = "", kind: str = ETHERNET, behind: str = ""
    ) -> Path:
        """A PCI function at a place, perhaps behind a bridge."""
        folder = self.root / "devices/pci0000:00" / behind / place
        folder.mkdir(parents=True)
        vendor, _, device = ids.partition(":")
        words = {"class": kind, "vendor": f"0x{vendor}", "device": f"0x{device}", "modalias": f"pci:{ids}"}
        self._write(folder, words)
        self._bind(folder, driver)
        (self.root / "bus/pci/devices" / place).symlink_to(folder)
        return folder

    def virtio(self, function: Path, driver: str = "") -> Path:
        """The device on the bus of its own that virtio's driver for PCI makes."""
        folder = function / "virtio3"
        folder.mkdir()
        self._write(folder, {"modalias": "virtio:d00000001"})
        self._bind(folder, driver)
        return folder

    def link(self, name: str, device: Path | None, **attributes: str) -> None:
        """A network device; without a device it is a virtual one."""
        folder = (device or self.root / "devices/virtual") / "net" / name
        folder.mkdir(parents=True)
        self._write(folder, attributes)
        if device:
            (folder / "device").symlink_to(device)
        (self.root / "class/net" / name).symlink_to(folder)

    def devices(self, firmware: str = "") -> dict[str, Hardware]:
        return read_devices(str(self.root), lambda _: firmware)

    def controllers(self, **modules: str) -> tuple[Controller, ...]:
        known = {modalias.replace("_", ":"): name for modalias, name in modules.items()}
        return read_controllers(
            lambda modalias: [known[modalias]] if modalias in known else [], str(self.root)
        )

    def _bind(self, folder: Path, driver: str) -> None:
        if driver:
            (folder / "driver").symlink_to(f"../../bus/drivers/{driver}")

    @staticmethod
    def _write(folder: Path, words: dict[str, str]) -> None:
        for name, word in words.items():
            (folder / name).write_text(f"{word}\n")


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_a_card_is_told_with_its_place_driver_firmware_and_speed(sysfs: Sysfs) -> None:
    card = sysfs.function("0000:00:05.0", "8086:10d3", "e1000e")
    sysfs.link("eth0", card, speed="1000")
    assert sysfs.devices("1.8-0") == {"eth0": Hardware("0000:00:05.0", "8086:10d3", "e1000e", "1.8-0", 1000)}
    assert sysfs.controllers() == ()


def test_a_virtio_card_has_the_place_of_its_pci_function_and_the_driver_of_its_own_bus(sysfs: Sysfs) -> None:
    function = sysfs.function("0000:00:02.0", "1af4:1041", "virtio-pci")
    sysfs.link("eth0", sysfs.virtio(function, "virtio_net"), speed="-1")
    assert sysfs.devices() == {"eth0": Hardware("0000:00:02.0", "1af4:1041", "virtio_net")}
    assert sysfs.controllers() == ()


def test_behind_bridges_the_last_place_counts(sysfs: Sysfs) -> None:
    sysfs.function("0000:00:1c.0", "8086:2934", "pcieport", BRIDGE)
    card = sysfs.function("0000:03:00.1", "14e4:1657", "tg3", behind="0000:00:1c.0")
    sysfs.link("eth0", card)
    assert sysfs.devices()["eth0"].pci == "0000:03:00.1"


def test_one_function_may_have_several_devices(sysfs: Sysfs) -> None:
    card = sysfs.function("0000:00:05.0", "15b3:1003", "mlx4_core")
    for name in ("eth0", "eth1"):
        sysfs.link(name, card)
    assert [one.pci for one in sysfs.devices().values()] == ["0000:00:05.0"] * 2
    assert sysfs.controllers() == ()


def test_virtual_devices_and_the_loopback_stand_for_no_hardware(sysfs: Sysfs) -> None:
    sysfs.link("lo", None)
    assert sysfs.devices() == {}


def test_a_card_on_another_bus_has_no_pci_place(sysfs: Sysfs) -> None:
    port = sysfs.root / "devices/platform/virtio-mmio.0/virtio0"
    port.mkdir(parents=True)
    (port / "driver").symlink_to("../../bus/drivers/virtio_net")
    sysfs.link("eth0", port)
    assert sysfs.devices() == {"eth0": Hardware(driver="virtio_net")}


@pytest.mark.parametrize("speed", ["-1", "0", "", "fast", "4294967295x"])
def test_a_speed_that_is_none_is_not_told(sysfs: Sysfs, speed: str) -> None:
    sysfs.link("eth0", sysfs.function("0000:00:05.0", "8086:10d3", "e1000e"), speed=speed)
    assert sysfs.devices()["eth0"].speed_mbps is None


def test_a_driver_that_tells_no_firmware_hinders_nothing(sysfs: Sysfs) -> None:
    def refuse(_: str) -> str:
        raise OSError(95, "operation not supported")

    sysfs.link("eth0", sysfs.function("0000:00:05.0", "8086:10d3", "e1000e"))
    assert read_devices(str(sysfs.root), refuse)["eth0"].firmware == ""


def test_controllers_without_a_network_device_are_told_and_nothing_else_is(sysfs: Sysfs) -> None:
    sysfs.function("0000:00:01.0", "1234:1111", kind=DISPLAY)
    sysfs.function("0000:00:09.0", "8086:2723", "iwlwifi", WIRELESS)
    sysfs.function("0000:00:05.0", "8086:10d3")
    sysfs.function("0000:00:06.0", "15ad:07b0")
    assert sysfs.controllers(pci_15ad_07b0="vmxnet3") == (
        Controller("0000:00:05.0", "8086:10d3"),
        Controller("0000:00:06.0", "15ad:07b0", modules=("vmxnet3",)),
        Controller("0000:00:09.0", "8086:2723", "iwlwifi"),
    )


def test_of_a_virtio_card_without_its_own_driver_the_missing_one_is_told(sysfs: Sysfs) -> None:
    sysfs.virtio(sysfs.function("0000:00:02.0", "1af4:1041", "virtio-pci"))
    assert sysfs.controllers() == (Controller("0000:00:02.0", "1af4:1041"),)
    (one,) = sysfs.controllers(virtio_d00000001="virtio_net")
    assert one.modules == ("virtio_net",)


def test_a_machine_without_pci_has_no_such_controllers(tmp_path: Path) -> None:
    (tmp_path / "class/net").mkdir(parents=True)
    assert read_controllers(lambda _: [], str(tmp_path)) == ()


def test_a_card_that_is_pulled_while_it_is_looked_at_is_passed_over(sysfs: Sysfs) -> None:
    (sysfs.root / "bus/pci/devices/0000:00:05.0").symlink_to(sysfs.root / "gone")
    (sysfs.root / "class/net/eth0").symlink_to(sysfs.root / "gone")
    assert sysfs.devices() == {}
    assert sysfs.controllers() == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=20), min_size=4, max_size=4))
def test_whatever_the_files_say_a_controller_is_read_or_passed_over(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "bus/pci/devices/0000:00:05.0"
    (tmp_path / "class/net").mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(("class", "vendor", "device", "modalias"), said, strict=True):
        (folder / name).write_bytes(text.encode())
    read_controllers(lambda _: [], str(tmp_path))


def test_this_machine_can_be_read() -> None:
    assert all(one.driver for one in read_devices().values())
    read_controllers(lambda _: [])


def test_nothing_is_asked_of_containers_links(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    card = sysfs.function("0000:00:03.0", "8086:100e", "e1000")
    sysfs.link("eth0", card)
    sysfs.link("zc1", None)
    looked: list[str] = []
    exists, place_of = os.path.exists, hardware.place_of
    monkeypatch.setattr(os.path, "exists", lambda path: looked.append(str(path)) or exists(path))
    monkeypatch.setattr(hardware, "place_of", lambda path: looked.append(path) or place_of(path))
    assert list(sysfs.devices()) == ["eth0"]
    assert sysfs.controllers() == ()
    assert any("eth0" in path for path in looked)
    assert not any("zc1" in path for path in looked), looked
