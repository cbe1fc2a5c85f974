"""Objects that nobody counts: where the interpreter is one of the known ones, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from core0.init import immortal
from tests.interpreters import known_interpreter

ROOT = Path(__file__).parents[3]

_COUNTS = """
import gc, os, sys
from core0.init import immortal

class Thing:
    pass

def function():
    pass

thing, frozen = Thing(), [object()]
thing.value = frozen
gc.freeze()
later = [[number] for number in range(5000)]  # more than one call of the kernel's writes
print(immortal.freeze(), gc.get_freeze_count() > 1000, gc.get_objects() == [])
uncounted = 0xFFFFFFFF
print([sys.getrefcount(one) == uncounted for one in (later, later[0], later[-1])])
print(all(map(immortal.is_immortal, later)))
print([sys.getrefcount(one) == uncounted for one in (thing, Thing, frozen, frozen[0], object())])
if os.fork() == 0:
    more = [later for _ in range(100)]
    del more, later, thing, frozen, function
    gc.collect()
    exec("x = [Thing() for _ in range(1000)]; import json; print(json.loads('[1]'))")
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""

# What a fork has of its own when it has looked at many objects, in bytes.
_SHARES = """
import gc, os, sys
from core0.init import immortal

def private():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private"))

gc.disable()
objects = [[] for _ in range(100_000)]
freeze = immortal.freeze if sys.argv[1] == "immortal" else gc.freeze
freeze()
if os.fork() == 0:
    before = private()
    for _ in range(3):
        for one in objects:
            pass
    print(private() - before, flush=True)
    os._exit(0)
os.wait()
"""


def output(interpreter: str, program: str, *arguments: str) -> list[str]:
    command = [interpreter, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_is_frozen_is_counted_no_more_and_forks_work_on() -> None:
    assert output(known_interpreter(), _COUNTS) == [
        "True True True",
        "[True, True, True]",
        "True",
        "[False, False, False, False, False]",
        "[1]",
    ]


def test_a_fork_shares_what_it_looks_at() -> None:
    interpreter = known_interpreter()
    (counted,), (uncounted,) = (output(interpreter, _SHARES, how) for how in ("counted", "immortal"))
    assert int(counted) > 4 << 20
    assert int(uncounted) < 1 << 20


@pytest.mark.skipif(immortal.is_known(), reason="this interpreter's immortal objects are known")
def test_another_interpreter_is_left_alone() -> None:
    program = """
import gc, sys
from core0.init import immortal
thing = []
print(immortal.freeze(), sys.getrefcount(thing), gc.get_freeze_count() > 1000)
"""
    assert output(sys.executable, program) == ["False 2 True"]
