"""Imports by a listing, in an interpreter of their own whose sys.path knows nothing of the modules."""

import _ctypes
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
sys.path.append({root!r})
from core0.importer import install
install({listing!r})
"""


class Library:
    """Modules as byte code in folders that are not on sys.path, and their listing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def add(self, name: str, source: str, file: str) -> Path:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "source.py").write_text(source)
        py_compile.compile(
            str(self.folder / "source.py"),
            cfile=str(path),
            dfile=f"/sources/{file}",
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        self.lines.append(f"{name} {path}\n")
        return path

    def run(self, program: str) -> subprocess.CompletedProcess[str]:
        listing = self.folder / "modules"
        listing.write_text("".join(self.lines))
        setup = SETUP.format(root=str(ROOT), listing=str(listing))
        return subprocess.run(
            [sys.executable, "-ISB", "-c", setup + program], capture_output=True, text=True, check=False
        )


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def output(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def test_packages_and_their_modules_are_found_by_the_listing(library: Library) -> None:
    package = library.add("pack", "name = __name__", "a/pack/__init__.pyc")
    library.add("pack.part", "from . import name\nvalue = name, __package__", "elsewhere/part.pyc")
    done = library.run("import pack.part\nprint(pack.part.value)\nprint(pack.__file__, pack.__path__)")
    assert output(done) == ["('pack', 'pack')", f"{package} {[str(package.parent)]}"]


def test_what_is_not_listed_is_found_as_before(library: Library) -> None:
    package = library.add("pack", "", "pack/__init__.pyc")
    (package.parent / "beside.py").write_text("value = 7")
    assert output(library.run("import json, pack.beside\nprint(json.loads('[1]'), pack.beside.value)")) == [
        "[1] 7"
    ]


def test_what_is_nowhere_is_not_found(library: Library) -> None:
    done = library.run("import nowhere")
    assert "ModuleNotFoundError: No module named 'nowhere'" in done.stderr


def test_extension_modules_are_found_by_the_listing(library: Library) -> None:
    library.lines.append(f"_ctypes {_ctypes.__file__}\n")
    done = library.run("sys.path.clear()\nimport _ctypes\nprint(_ctypes.__file__)")
    assert output(done) == [_ctypes.__file__]


def test_a_traceback_names_the_source(library: Library) -> None:
    library.add("broken", "def fail():\n    raise ValueError('why')\n", "broken.pyc")
    said = library.run("import broken\nbroken.fail()").stderr
    assert 'File "/sources/broken.pyc", line 2, in fail' in said
    assert "ValueError: why" in said


def test_late_modules_run_when_a_name_is_looked_for(library: Library) -> None:
    library.add("base64", "print('runs')\nvalue = 3", "base64.pyc")
    library.add("user", "import base64\ndef use():\n    return base64.value", "user.pyc")
    done = library.run(
        "import base64, user, base64\nprint('imported', base64.__name__, hasattr(base64, '__all__'))\n"
        "print(user.use(), user.use())\nprint(hasattr(base64, 'nothing'))"
    )
    assert output(done) == ["imported base64 False", "runs", "3 3", "False"]


def test_a_late_module_that_is_imported_from_runs_at_once(library: Library) -> None:
    library.add("base64", "import partner\nvalue = 3", "base64.pyc")
    library.add("partner", "import base64\nseen = hasattr(base64, 'value')", "partner.pyc")
    done = library.run("from base64 import value\nimport partner\nprint(value, partner.seen)")
    assert output(done) == ["3 False"]


def test_a_late_module_that_fails_says_why_each_time(library: Library) -> None:
    library.add("base64", "raise OSError('gone')", "base64.pyc")
    done = library.run(
        "import base64\nfor _ in range(2):\n    try:\n        base64.value\n"
        "    except OSError as error:\n        print(error)"
    )
    assert output(done) == ["gone", "gone"]


def test_a_damaged_module_says_so(library: Library) -> None:
    path = library.add("damaged", "value = 1", "damaged.pyc")
    path.write_bytes(path.read_bytes()[:24])
    assert "EOFError" in library.run("import damaged").stderr
