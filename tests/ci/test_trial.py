"""The choice of acceleration: tried once, remembered, tried again for another host."""

from pathlib import Path

import pytest

from ci.qemu import trial
from ci.qemu.accel import KVM, SCALE_VARIABLE, TCG, Acceleration
from ci.qemu.process import NoProgramError

KERNEL = Path("/image/vmlinuz")


class Trial:
    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.kernels: list[Path] = []

    async def __call__(self, kernel: Path) -> bool:
        self.kernels.append(kernel)
        return self.answer


@pytest.fixture
def openable_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(trial, "KVM_DEVICE", device)


@pytest.mark.usefixtures("openable_kvm")
async def test_without_qemu_nothing_is_remembered_and_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoProgramError, match="does not have it; install Debian's package qemu-system-x86"):
        await trial.choose(KERNEL, cache=tmp_path)
    assert not (tmp_path / "acceleration.json").exists()


@pytest.mark.parametrize(("answer", "chosen"), [(True, KVM), (False, TCG)], ids=["boots", "dies"])
@pytest.mark.usefixtures("openable_kvm")
async def test_the_trial_decides_and_is_remembered(
    tmp_path: Path, answer: bool, chosen: Acceleration
) -> None:
    first, second = Trial(answer), Trial(not answer)
    assert await trial.choose(KERNEL, first, tmp_path) is chosen
    assert await trial.choose(KERNEL, second, tmp_path) is chosen
    assert (first.kernels, second.kernels) == ([KERNEL], [])


@pytest.mark.usefixtures("openable_kvm")
async def test_another_host_is_tried_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await trial.choose(KERNEL, Trial(True), tmp_path)
    monkeypatch.setattr(trial, "host_key", lambda: "after a reboot")
    assert await trial.choose(KERNEL, Trial(False), tmp_path) is TCG


@pytest.mark.usefixtures("openable_kvm")
async def test_a_damaged_memory_is_tried_anew(tmp_path: Path) -> None:
    (tmp_path / "acceleration.json").write_text("{half")
    assert await trial.choose(KERNEL, Trial(True), tmp_path) is KVM


async def test_without_the_device_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "KVM_DEVICE", tmp_path / "none")
    attempt = Trial(True)
    assert await trial.choose(KERNEL, attempt, tmp_path) is TCG
    assert attempt.kernels == []


def test_deadlines_stretch_with_acceleration_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KVM.seconds(5) == 5
    assert TCG.seconds(5) == 5 * TCG.scale
    monkeypatch.setenv(SCALE_VARIABLE, "2.5")
    assert KVM.seconds(5) == 12.5
