"""What the template makes immortal after its warm-up: in a process of its own, by an interpreter that is known."""

import subprocess
import sys
from pathlib import Path

import pytest

from core0.init import immortal
from tests.interpreters import known_interpreter

ROOT = Path(__file__).parents[3]

_PROGRAM = """
import gc, os, signal, sys
from core0.init import immortal
from core0.template.immortal import make_immortal

class Thing:
    pass

page = os.sysconf("SC_PAGE_SIZE")
shared = [[number] for number in range(10_000)]
addresses = [id(one) for one in shared]
gc.freeze()
other = os.fork()
if other == 0:
    signal.pause()
exec('''
def function(argument="a default value of its own"):
    return [argument, "a constant of its own", 1 << 100]
''')
thing, made = Thing(), [object()]
thing.value = made
code, default = function.__code__, function.__defaults__[0]
print(make_immortal(), gc.get_freeze_count() > 10_000)
kept = (thing, made, made[0], code, default, code.co_consts, function()[1], code.co_consts[-1])
print([immortal.is_immortal(one) for one in kept], immortal.is_immortal(object()))
written = [address for address in addresses if immortal._WORDS.from_address(0)[address >> 2] == 0xFFFFFFFF]
print(len(written) < 1000)
many = [[number] for number in range(100_000)]  # the free blocks of the interpreter are whole
del many
if os.fork() == 0:
    del thing, made, function, code, default, kept
    gc.collect()
    exec("x = [Thing() for _ in range(1000)]; import json; print(json.loads('[1]'))")
    sys.stdout.flush()
    os._exit(0)
os.wait()
os.kill(other, signal.SIGKILL)
os.wait()
"""


def output(interpreter: str, program: str) -> list[str]:
    command = [interpreter, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_what_lies_on_pages_of_its_own_is_counted_no_more_and_forks_work_on() -> None:
    assert output(known_interpreter(), _PROGRAM) == ["True True", f"{[True] * 8} False", "True", "[1]"]


@pytest.mark.skipif(immortal.is_known(), reason="this interpreter's immortal objects are known")
def test_another_interpreter_is_left_alone() -> None:
    program = "from core0.template.immortal import make_immortal; print(make_immortal())"
    assert output(sys.executable, program) == ["False"]


def test_a_search_that_fails_changes_nothing() -> None:
    program = """
import os, sys
from core0.init import immortal as headers
from core0.template import immortal
headers.is_known, immortal._reachable = lambda: True, lambda: os._exit(1)
thing = []
print(immortal.make_immortal(), sys.getrefcount(thing))
"""
    assert output(sys.executable, program) == ["False 2"]
