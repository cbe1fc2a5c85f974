"""What forks write lies together: each case in a process of its own, whose memory it fills."""

import gc
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

from core0.template.written import WRITTEN

ROOT = Path(__file__).parents[3]
OWN = sorted(module for module in WRITTEN if module.startswith(("core0.", "corex.")))

_GATHER = """
import keyword, sys
from core0.template import density

keyword.function = lambda: 'a module of one function'
keyword.function.__module__ = 'keyword'
apart = []
def made(number):
    scope = {"__name__": "made"}
    apart.append([bytes(size) for size in range(0, 2000, 16) for _ in range(20)])
    exec(f'''
def outer{number}(argument="default"):
    kept = [{number}]
    def inner():
        return argument, kept, [one + {number} for one in range(3)]
    return inner

def numbers{number}():
    yield from range({number})

class Thing{number}:
    def method(self):
        return super().__repr__(), {number}
''', scope)
    return scope

def pages(scopes):
    codes = [one for number, scope in enumerate(scopes) for one in (
        scope[f"outer{number}"].__code__,
        *(code for code in scope[f"outer{number}"].__code__.co_consts if hasattr(code, "co_code")),
        scope[f"numbers{number}"].__code__,
        scope[f"Thing{number}"].method.__code__,
    )]
    size = sum(sys.getsizeof(one) for one in codes)
    return len({(id(one) + at) >> 12 for one in codes for at in (0, sys.getsizeof(one))}), size

scopes = [made(number) for number in range(100)]
early = scopes[7]["outer7"]()
before, _ = pages(scopes)
names = " ".join(f"outer{n} numbers{n} Thing{n}.method" for n in range(100))
assert density.gather({"made": names + " gone", "nowhere": "function", "keyword": "*"}) == 301
after, size = pages(scopes)
# by size, in pools of 16 KiB each
assert after < before / 2 and after < size / 4096 + 32, (before, after, size)
assert early() == scopes[7]["outer7"]()() == ("default", [7], [7, 8, 9])
assert list(scopes[9]["numbers9"]()) == list(range(9))
thing = scopes[3]["Thing3"]()
assert thing.method() == (repr(thing), 3)
assert keyword.function() == 'a module of one function'
"""

_FILL = """
from core0.template import density

def addresses(size):
    return [id(one) for one in kept[size]]

sizes = 40, 200, 600, 3000
kept = {size: [bytes(size) for _ in range(8000)] for size in sizes}
holes = {size: {id(one) for one in kept[size][::2]} for size in sizes}
for size in sizes:
    del kept[size][::2]
assert density.fill_holes() > sum(sizes) * 3900
made = {size: [bytes(size) for _ in range(500)] for size in sizes}
for size in sizes:
    fresh = {id(one) for one in made[size]}
    assert len(fresh & holes[size]) < 10, size
    assert len({one >> 12 for one in fresh}) < 500 * (size + 64) / 4096 + 20, size
"""


@pytest.mark.parametrize("program", [pytest.param(_GATHER, id="functions"), pytest.param(_FILL, id="holes")])
def test_what_was_spread_lies_together(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_whose_blocks_nobody_tells_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from core0.template import density

    monkeypatch.setattr(sys, "_debugmallocstats", lambda: None)
    assert density._free_blocks() == {}


@pytest.mark.parametrize("module", OWN)
def test_every_function_of_ours_that_is_listed_is_there(module: str) -> None:
    importlib.import_module(module)
    found = {
        one.__code__.co_qualname
        for one in gc.get_objects()
        if type(one) is types.FunctionType and one.__module__ == module
    }
    assert found
    assert set(WRITTEN[module].split()) - {"*"} <= found
