"""State areas are found by the name that the kernel tells of their partition."""

from pathlib import Path

from core0.disks.model import STATE_NAME
from core0.state.find import NAME, find_areas

PARTITION = "MAJOR=254\nMINOR=1\nDEVNAME={0}\nDEVTYPE=partition\nDISKSEQ=9\nPARTN=1\n"


def sysfs(root: Path, **names: str | None) -> str:
    """Block devices; those with a name are partitions of that name, those without have none."""
    for device, name in names.items():
        folder = root / "class" / "block" / device
        folder.mkdir(parents=True)
        named = "" if name is None else f"PARTNAME={name}\n"
        (folder / "uevent").write_text(PARTITION.format(device) + named)
    return str(root)


def test_partitions_with_the_name_are_areas_in_the_order_of_disks(tmp_path: Path) -> None:
    names = {"vdaa1": NAME, "vdb1": NAME, "vdb2": "zeronode-data", "vdc": None, "nvme0n1p1": NAME}
    root = sysfs(tmp_path, **names)
    assert find_areas(root) == ("/dev/vdb1", "/dev/vdaa1", "/dev/nvme0n1p1")


def test_names_that_only_begin_so_are_not_areas(tmp_path: Path) -> None:
    assert find_areas(sysfs(tmp_path, vda1=f"{NAME}2", vdb1=f"x{NAME}")) == ()


def test_a_disk_that_goes_meanwhile_and_a_kernel_without_disks_are_no_trouble(tmp_path: Path) -> None:
    assert find_areas(str(tmp_path)) == ()
    (tmp_path / "class" / "block" / "vda1").mkdir(parents=True)
    assert find_areas(str(tmp_path)) == ()


def test_claimed_disks_get_that_name() -> None:
    assert STATE_NAME == NAME
