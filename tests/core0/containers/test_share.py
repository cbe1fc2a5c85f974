"""What all containers together may have: the kernel's files are there, without their effect."""

from pathlib import Path

import pytest

from core0.containers import share
from core0.containers.limits import Capacity
from core0.containers.observe import observe_capacity, observe_machine, observe_memory_end
from core0.containers.share import limit_all
from core0.wire.config import ContainersConfig
from core0.wire.room import memory_of_containers, processes_of_containers

MIB = 1 << 20


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cgroup of all containers of a machine with 1 GiB."""
    monkeypatch.setattr(share, "observe_machine", lambda: Capacity(1024 * MIB, 4, 8000))
    for name in ("memory.max", "pids.max", "cpu.max"):
        (tmp_path / name).write_text("")
    (tmp_path / "memory.current").write_text(str(100 * MIB))
    (tmp_path / "memory.stat").write_text(f"active_file {20 * MIB}\ninactive_file 0\n")
    return tmp_path


def limits_in(group: Path) -> list[str]:
    return [(group / name).read_text() for name in ("memory.max", "pids.max", "cpu.max")]


def test_without_a_config_the_node_keeps_what_it_needs(group: Path) -> None:
    limit_all(ContainersConfig(), group, print)
    assert limits_in(group) == [str(960 * MIB), "7500", "max 100000"]


def test_a_config_may_ask_for_less_and_never_gets_more(group: Path) -> None:
    limit_all(ContainersConfig(512, 1.5, 1000), group, print)
    assert limits_in(group) == [str(512 * MIB), "1000", "150000 100000"]
    assert observe_capacity(group) == Capacity(
        min(512 * MIB, observe_machine().memory), min(1.5, observe_machine().cpus), 1000
    )
    limit_all(ContainersConfig(4096, None, 9000), group, print)
    assert limits_in(group) == [str(960 * MIB), "7500", "max 100000"]


def test_a_limit_may_be_what_the_node_keeps_for_itself_or_the_machine_is_too_small(group: Path) -> None:
    machine = observe_machine()
    (group / "cpu.max").write_text("max 100000")
    (group / "memory.max").write_text(str(memory_of_containers(machine.memory)))
    (group / "pids.max").write_text(str(processes_of_containers(machine.processes)))
    assert observe_capacity(group) == machine


def test_less_memory_than_they_use_is_told_and_ends_none(group: Path) -> None:
    said: list[str] = []
    (group / "memory.max").write_text("before")
    limit_all(ContainersConfig(64), group, lambda *words: said.append(words[-1]))
    assert limits_in(group)[0] == "before"
    (warning,) = said
    assert "they use 80 MiB of memory, more than the 64 MiB that they shall have; stop some" in warning


def test_a_kernel_that_refuses_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    limit_all(ContainersConfig(), tmp_path, lambda *words: said.append(words[-1]))
    assert said[0].startswith("Alert: cannot set memory.max of cgroup")


@pytest.mark.parametrize(
    ("memory", "left"), [(256 * MIB, 192 * MIB), (1024 * MIB, 960 * MIB), (1 << 40, (1 << 40) - (1 << 36))]
)
def test_the_node_keeps_64_mib_or_a_sixteenth(memory: int, left: int) -> None:
    assert memory_of_containers(memory) == left


def test_the_node_keeps_256_threads_or_a_sixteenth() -> None:
    assert processes_of_containers(1500) == 1244
    assert processes_of_containers(160_000) == 150_000


@pytest.mark.parametrize(
    ("events", "told"),
    [
        pytest.param("low 0\noom 0\noom_kill 0\n", "", id="not for memory"),
        pytest.param("oom 3\noom_kill 5\n", "it needed more than its 20 MiB of memory", id="its own limit"),
        pytest.param("oom 0\noom_kill 5\n", "all containers together had no more", id="everybody's limit"),
    ],
)
def test_whose_memory_was_over_is_told(tmp_path: Path, events: str, told: str) -> None:
    (tmp_path / "memory.events").write_text(events)
    (tmp_path / "memory.max").write_text(str(20 * MIB))
    found = observe_memory_end(tmp_path)
    assert found.startswith(told)
    assert bool(found) == bool(told)


def test_a_cgroup_without_the_controller_ends_nobody(tmp_path: Path) -> None:
    assert observe_memory_end(tmp_path) == ""
