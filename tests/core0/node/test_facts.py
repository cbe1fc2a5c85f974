"""What the node says of itself, from the files of a booted machine."""

import os
from pathlib import Path

from core0.links.model import SeenLink
from core0.node import facts
from core0.wire.types import Check
from tests.host_node import HostNode

KEPT = Check("state", ok=True, why="kept")
LINKS = (
    SeenLink(2, "eth0", "52:54:00:00:00:02", True, True, frozenset({"10.0.2.15/24", "10.0.0.9/8"})),
    SeenLink(3, "eth1", "52:54:00:00:00:03", True, False, frozenset()),
)


def test_a_node_describes_itself(host_node: HostNode) -> None:
    node = facts.describe_node("ab" * 32, LINKS, ephemeral=True)
    assert (node.version, node.build, node.fingerprint) == ("1.2.3", "b" * 12, "ab" * 32)
    assert [(one.link, one.interface) for one in node.addresses] == [
        ("eth0", "10.0.0.9/8"),
        ("eth0", "10.0.2.15/24"),
    ]
    assert node.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024 * 1024
    assert node.cpus == os.cpu_count()


def test_the_boot_is_read_from_its_log_and_what_is_no_phase_is_left_out(host_node: HostNode) -> None:
    log = host_node.folder / "boot.log"
    log.write_text(log.read_text() + "noise\nzn: phase ready done at 3.000s\n")
    boot = facts.describe_boot()
    assert [(one.name, one.state, one.at_seconds, one.detail) for one in boot.phases] == [
        ("init", "done", 0.9, ""),
        ("drivers", "failed", 1.2, "no such module"),
        ("ready", "done", 3.0, ""),
    ]


def test_health_names_what_is_missing(host_node: HostNode) -> None:
    health = facts.describe_health(LINKS[1:], (KEPT,))
    assert not health.ok
    checks = {check.name: (check.ok, check.why) for check in health.checks}
    assert checks["network"] == (False, "links with an address: none")
    assert checks["boot"] == (False, "phases that failed: drivers")
    assert checks["memory"][0]


def test_health_is_fine_when_every_check_is(host_node: HostNode) -> None:
    (host_node.folder / "boot.log").write_text("zn: phase ready done at 3.000s\n")
    assert facts.describe_health(LINKS, (KEPT,)).ok


def test_memory_is_told_by_process_and_what_has_just_ended_is_left_out(host_node: HostNode) -> None:
    group = host_node.folder / "system" / "node"
    group.mkdir()
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n{2**22}\n")
    processes = {one.name: one for one in facts.describe_health(LINKS, (KEPT,)).processes}
    assert set(processes) - {"init"} == {"node"}  # PID 1 of a test machine may be closed to us
    rollup = Path("/proc/self/smaps_rollup").read_text()
    resident = next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Rss:"))
    assert 0 < processes["node"].proportional_bytes <= resident
