import os
from pathlib import Path

import pytest

from core0.linux.modules import Modules


@pytest.fixture
def modules(tmp_path: Path) -> Modules:
    folder = tmp_path / os.uname().release
    folder.mkdir()
    (folder / "modules.dep").write_text(
        "kernel/net/failover.ko:\n"
        "kernel/net/net-failover.ko: kernel/net/failover.ko\n"
        "kernel/net/virtio_net.ko: kernel/net/net-failover.ko kernel/net/failover.ko\n"
    )
    (folder / "modules.alias").write_text(
        "alias virtio:d00000001v* virtio_net\n"
        "alias pci:v00001AF4d0000100[01]sv* virtio_net\n"
        "alias net-pf-17 af_packet\n"
    )
    return Modules.of_running_kernel(str(tmp_path))


def test_what_a_module_needs_is_loaded_before_it(modules: Modules) -> None:
    assert modules.steps["virtio_net"] == (
        "kernel/net/failover.ko",
        "kernel/net/net-failover.ko",
        "kernel/net/virtio_net.ko",
    )
    assert modules.steps["net_failover"][-1] == "kernel/net/net-failover.ko"


@pytest.mark.parametrize(
    ("modalias", "names"),
    [
        ("virtio:d00000001v00001AF4", ["virtio_net"]),
        ("pci:v00001AF4d00001001sv0", ["virtio_net"]),
        ("pci:v00001AF4d00001002sv0", []),
        ("virtio:d00000002v00001AF4", []),
        ("net-pf-17", ["af_packet"]),
    ],
)
def test_devices_find_their_modules(modules: Modules, modalias: str, names: list[str]) -> None:
    assert modules.matching(modalias) == names


def test_the_buses_of_the_aliases_and_the_platform_are_looked_at(modules: Modules) -> None:
    assert {"pci", "virtio", "platform"} <= modules.buses


def test_a_module_that_cannot_be_loaded_is_named(modules: Modules) -> None:
    assert modules.load_all(["virtio_net", "unknown"]) == [
        f"cannot load module failover: {modules.folder}/kernel/net/failover.ko: No such file or directory"
    ]


def test_an_image_without_modules_has_none(tmp_path: Path) -> None:
    modules = Modules.of_running_kernel(str(tmp_path))
    assert modules.load_all(["loop"]) == modules.matching("virtio:d00000001v00001AF4") == []
