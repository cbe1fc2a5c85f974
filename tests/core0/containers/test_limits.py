"""Limits of containers: what of them is refused, and what the kernel is told."""

import pytest

from core0.containers.limits import (
    Capacity,
    beyond,
    capped_io,
    limits_of,
    oom_score_of,
    tmpfs_of,
    too_little,
    too_small,
)
from core0.wire.types import ContainerSpec, Limits, TmpfsMount

MIB = 1 << 20
NODE = Capacity(512 * MIB, 2, 32768)


@pytest.mark.parametrize(
    ("limits", "field", "why"),
    [
        pytest.param(
            Limits(memory_mib=449),
            "memory_mib",
            "513 MiB of memory, files included: the node has 512",
            id="memory",
        ),
        pytest.param(Limits(storage_mib=1024), "storage_mib", "1152 MiB of memory", id="files"),
        pytest.param(Limits(cpus=2.5), "cpus", "2.5 processors: the node has 2", id="processors"),
        pytest.param(
            Limits(processes=40_000), "processes", "the node has 32768 for containers", id="processes"
        ),
    ],
)
def test_more_than_the_node_has_is_refused_by_field(limits: Limits, field: str, why: str) -> None:
    trouble = beyond(limits, NODE)
    assert trouble
    assert trouble.field == field
    assert why in trouble.why


def test_all_that_the_node_has_is_not_too_much() -> None:
    assert beyond(Limits(memory_mib=448, cpus=2.0, processes=32768), NODE) is None


def test_less_than_it_uses_is_refused_with_the_figures() -> None:
    limits = Limits(memory_mib=16, storage_mib=4)
    assert too_little(limits, besides=0, used=20 * MIB) is None
    assert too_little(limits, besides=MIB, used=21 * MIB) is None
    trouble = too_little(limits, besides=MIB, used=21 * MIB + 1)
    assert trouble
    assert trouble.why == "21 MiB of memory, files and volumes included: it uses 22 MiB now"


def test_less_than_its_files_is_refused_with_the_figures() -> None:
    assert too_small(Limits(storage_mib=8), used=8 * MIB) is None
    trouble = too_small(Limits(storage_mib=8), used=8 * MIB + 1)
    assert trouble
    assert (trouble.field, trouble.why) == ("storage_mib", "8 MiB of files: it has 9 MiB now")


def test_the_kernel_is_told_every_limit() -> None:
    told = limits_of(Limits(64, 0.5, 99, 16, memory_high_mib=70, cpu_weight=10), besides=MIB)
    assert told == {
        "memory.high": str(70 * MIB),
        "memory.max": str(81 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "50000 100000",
        "cpu.weight": "10",
        "pids.max": "99",
    }
    assert limits_of(Limits())["memory.high"] == "max"


def test_files_in_memory_count_as_memory() -> None:
    spec = ContainerSpec("http://host/demo/", "0" * 64, tmpfs=(TmpfsMount("/a", 300), TmpfsMount("/b", 100)))
    assert beyond(Limits(), NODE) is None
    trouble = beyond(Limits(), NODE, tmpfs_of(spec))
    assert trouble
    assert "592 MiB of memory, files included: the node has 512" in trouble.why
    assert limits_of(Limits(), tmpfs_of(spec))["memory.max"] == str(592 * MIB)


def test_the_kernel_ends_important_containers_later_and_the_node_s_own_processes_last() -> None:
    assert [oom_score_of(priority) for priority in (-100, 0, 100)] == [900, 500, 100]


def test_a_container_s_own_rates_count_where_its_volumes_allow_more() -> None:
    volumes = ("8:0 rbps=1000 wbps=max riops=5 wiops=max", "8:16 rbps=max wbps=max riops=max wiops=max")
    limits = Limits(read_bps=2000, write_bps=300, read_iops=5)
    assert capped_io(volumes, limits) == (
        "8:0 rbps=1000 wbps=300 riops=5 wiops=max",
        "8:16 rbps=2000 wbps=300 riops=5 wiops=max",
    )
    assert capped_io(volumes, Limits()) == volumes
    assert capped_io((), limits) == ()
