"""Where state areas are: the partitions that carry their name. No medium is read, so no disk can make it wait.

Source: part_uevent() in block/partitions/core.c: the kernel tells a partition's name where its table has one. Anyone
may have named a partition so: what it holds says whose it is.
"""

import os

from core0.linux import files

NAME = "zeronode-state"


def find_areas(root: str = "/sys") -> tuple[str, ...]:
    """The devices of all state areas, which are their disks' first partitions, in the order of the kernel's names."""
    try:
        names = [
            name for name in os.listdir(f"{root}/class/block") if name.endswith("1")
        ]  # the first partition
    except FileNotFoundError:  # a kernel that has not seen any disk
        return ()
    names.sort(key=lambda name: (len(name), name))
    return tuple(f"/dev/{name}" for name in names if _is_area(f"{root}/class/block/{name}"))


def _is_area(folder: str) -> bool:
    try:
        return f"\nPARTNAME={NAME}\n" in files.read_text(f"{folder}/uevent")
    except OSError:  # it has just gone
        return False
