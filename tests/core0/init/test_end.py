"""How PID 1 ends everything before the machine goes down, in a pid namespace of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="pid namespaces need root")

FIRST = """
import os, subprocess, sys, time
from core0.init import main
main._STOP_DEADLINE = 1.5
assert os.getpid() == 1
children = [subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) for script in sys.argv[1:]]
for child in children:
    child.stdout.readline()
began = time.monotonic()
main.end_processes()
print(round(time.monotonic() - began, 1))
"""


def end(*scripts: str) -> float:
    """Run PID 1's end with these shell scripts as children; returns its seconds."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", FIRST, *scripts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_a_container_that_takes_a_moment_to_end_gets_it(tmp_path: Path) -> None:
    quick = "echo ready; exec sleep 60"
    in_order = f"trap 'sleep 0.5; echo stopped in order >{tmp_path}/slow; exit' TERM"
    slow = f"{in_order}; echo ready; while :; do sleep 0.1; done"
    assert end(quick, slow) < 1.5
    assert (tmp_path / "slow").read_text() == "stopped in order\n"


def test_who_does_not_end_in_time_is_killed() -> None:
    assert end("trap '' TERM; echo ready; while :; do sleep 0.1; done") >= 1.5
