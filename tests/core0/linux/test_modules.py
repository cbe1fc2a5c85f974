import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core0.linux import modules as kernel_modules
from core0.linux.modules import Modules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the modules of the running kernel are."""
    folder = tmp_path / os.uname().release
    folder.mkdir()
    return folder


@pytest.fixture
def present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the kernel shows the modules that it has: none of this host's."""
    monkeypatch.setattr(kernel_modules, "_PRESENT", str(tmp_path / "present"))
    return tmp_path / "present"


@pytest.fixture
def modules(tmp_path: Path, folder: Path, present: Path) -> Modules:
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


def test_what_a_module_needs_is_loaded_before_it(modules: Modules, folder: Path) -> None:
    assert modules.steps["virtio_net"] == (
        f"{folder}/kernel/net/failover.ko",
        f"{folder}/kernel/net/net-failover.ko",
        f"{folder}/kernel/net/virtio_net.ko",
    )
    assert modules.steps["net_failover"][-1] == f"{folder}/kernel/net/net-failover.ko"


def test_modules_of_another_folder_may_need_those_of_the_first(modules: Modules, tmp_path: Path) -> None:
    other = tmp_path / "storage" / os.uname().release
    other.mkdir(parents=True)
    (other / "modules.dep").write_text("kernel/fs/btrfs.ko: kernel/lib/xor.ko /lib/libcrc32c.ko\n")
    (other / "modules.alias").write_text("alias scsi:t-0x00* sd_mod\n")
    modules.add(str(tmp_path / "storage"))
    assert modules.steps["btrfs"] == (
        "/lib/libcrc32c.ko",
        f"{other}/kernel/lib/xor.ko",
        f"{other}/kernel/fs/btrfs.ko",
    )
    assert modules.matching("scsi:t-0x00") == ["sd_mod"]
    assert modules.matching("net-pf-17") == ["af_packet"]


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


def test_a_module_that_cannot_be_loaded_is_named(modules: Modules, folder: Path) -> None:
    assert modules.load_all(["virtio_net", "unknown"]) == [
        f"cannot load module failover: {folder}/kernel/net/failover.ko: No such file or directory"
    ]


@pytest.fixture
def refused(
    modules: Modules, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int], list[str]]:
    """Loads virtio_net from a kernel that refuses one module with an error; gives the names of those it took."""
    taken: list[str] = []
    for steps in modules.steps.values():
        for step in steps:
            Path(step).parent.mkdir(parents=True, exist_ok=True)
            Path(step).touch()

    def load(name: str, error: int) -> list[str]:
        def insert(_call: str, descriptor: int, *_: object, doing: str) -> int:
            module = Path(f"/proc/self/fd/{descriptor}").readlink().stem
            if module == name:
                raise OSError(error, f"{doing}: {os.strerror(error)}")
            taken.append(module)
            return 0

        monkeypatch.setattr(kernel_modules, "syscall", insert)
        modules.load("virtio_net")
        return taken

    return load


def test_what_this_processor_lacks_is_passed_over(refused: Callable[[str, int], list[str]]) -> None:
    assert refused("net-failover", errno.ENODEV) == ["failover", "virtio_net"]


def test_what_appears_meanwhile_is_fine(refused: Callable[[str, int], list[str]]) -> None:
    assert refused("failover", errno.EEXIST) == ["net-failover", "virtio_net"]


@pytest.mark.parametrize(
    ("state", "taken"),
    [("live", ["failover", "virtio_net"]), ("coming", ["failover", "net-failover", "virtio_net"])],
)
def test_what_is_there_already_is_not_given_to_the_kernel_again(
    refused: Callable[[str, int], list[str]], present: Path, state: str, taken: list[str]
) -> None:
    (present / "net_failover").mkdir(parents=True)
    (present / "net_failover" / "initstate").write_text(f"{state}\n")
    assert refused("nothing", 0) == taken


@pytest.mark.parametrize(
    ("name", "error"),
    [("virtio_net", errno.ENODEV), ("failover", errno.ENOEXEC)],
    ids=["no device for the module itself", "damaged"],
)
def test_anything_else_is_an_error(refused: Callable[[str, int], list[str]], name: str, error: int) -> None:
    with pytest.raises(OSError, match=f"cannot load module {name}: "):
        refused(name, error)


@pytest.mark.parametrize(("waits", "parameters"), [(True, ""), (False, "async_probe=1")])
def test_nobody_waits_for_a_drivers_devices_who_does_not_say_so(
    modules: Modules, folder: Path, monkeypatch: pytest.MonkeyPatch, waits: bool, parameters: str
) -> None:
    given: list[object] = []
    monkeypatch.setattr(kernel_modules, "syscall", lambda *words, doing: given.append(words[2]))
    (module,) = modules.steps["failover"]
    Path(module).parent.mkdir(parents=True)
    Path(module).touch()
    modules.waits = waits
    modules.load("failover")
    assert given == [parameters]


def test_an_image_without_modules_has_none(tmp_path: Path) -> None:
    modules = Modules.of_running_kernel(str(tmp_path))
    assert modules.load_all(["loop"]) == modules.matching("virtio:d00000001v00001AF4") == []


def test_a_module_is_told_its_own_parameters_beside_ours(
    modules: Modules, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    (folder / "bonding.ko").touch()
    modules.steps["bonding"] = (f"{folder}/bonding.ko",)
    modules.parameters["bonding"] = "max_bonds=0"
    monkeypatch.setattr(kernel_modules, "syscall", lambda *words, doing: given.append(words[2]))
    modules.load("bonding")
    assert given == ["async_probe=1 max_bonds=0"]
