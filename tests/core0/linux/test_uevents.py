from pathlib import Path

from core0.linux.uevents import parse_uevent, present_modaliases


def device(root: Path, bus: str, name: str, modalias: str, driver: bool = False) -> None:
    folder = root / bus / "devices" / name
    folder.mkdir(parents=True)
    (folder / "modalias").write_text(modalias + "\n")
    if driver:
        (folder / "driver").mkdir()


def test_devices_without_a_driver_on_the_buses_that_are_asked_for_are_found(tmp_path: Path) -> None:
    device(tmp_path, "pci", "0000:00:01.0", "pci:one")
    device(tmp_path, "pci", "0000:00:02.0", "pci:driven", driver=True)
    device(tmp_path, "virtio", "virtio0", "virtio:two")
    device(tmp_path, "cpu", "cpu0", "cpu:three")
    (tmp_path / "pci/devices/bare").mkdir()
    assert list(present_modaliases({"pci", "virtio", "absent"}, str(tmp_path))) == ["pci:one", "virtio:two"]


def test_a_uevent_has_its_action_and_modalias() -> None:
    event = parse_uevent(b"add@/devices/x\0ACTION=add\0MODALIAS=virtio:d1\0rubbish")
    assert event
    assert (event.action, event.devpath, event.modalias) == ("add", "/devices/x", "virtio:d1")
    assert parse_uevent(b"libudev\0rest") is None
