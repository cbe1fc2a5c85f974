"""Objects that nobody counts: where the interpreter is one of the known ones, in a process of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core0.template import immortal

KNOWN = immortal._is_known()
ROOT = Path(__file__).parents[3]

_PROGRAM = """
import gc, os, sys
from core0.template.immortal import make_immortal

class Thing:
    pass

def function(argument="a default value of its own"):
    return [argument, "a constant of its own"]

thing, frozen = Thing(), [object()]
thing.value = frozen
gc.freeze()
made = make_immortal()
print(made > 10_000, gc.get_freeze_count() > 1000)
immortal = 0xFFFFFFFF
code, default = function.__code__, function.__defaults__[0]
kept = (thing, Thing, frozen, frozen[0], function, code, default, "a constant of its own")
print([sys.getrefcount(one) == immortal for one in kept])
more = [kept for _ in range(100)]
del more
print(sys.getrefcount(thing) == immortal, sys.getrefcount(object()) == immortal)
if os.fork() == 0:
    del thing, frozen, function, code, default
    gc.collect()
    exec("x = [Thing() for _ in range(1000)]; import json; print(json.loads('[1]'))")
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""


@pytest.fixture
def known_interpreter() -> str:
    """This one, or another of this machine's; the image's own is tried by each boot."""
    for name in (sys.executable,) if KNOWN else ("python3.13", "python3.12"):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip("needs an interpreter whose immortal objects are known: python3.13 or python3.12")


def test_what_a_process_has_is_counted_no_more_and_its_forks_work_on(known_interpreter: str) -> None:
    command = [known_interpreter, "-c", _PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["True True", str([True] * 8), "True False", "[1]"]


@pytest.mark.skipif(KNOWN, reason="this interpreter's immortal objects are known")
def test_another_interpreter_is_left_alone() -> None:
    program = "from core0.template.immortal import make_immortal; print(make_immortal())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"


def test_a_trial_that_fails_leaves_everything_as_it_was() -> None:
    program = """
import sys
from core0.template import immortal
immortal._is_known, immortal._make_immortal = lambda: True, lambda objects: 1
thing = object()
print(immortal.make_immortal(), sys.getrefcount(thing))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0 2\n"
