"""Every module imports alone, without a warning, and what starts often imports little.

Budgets count modules, because times depend on the machine. Who needs one more raises the number here, in the same
commit, and says why in its message.
"""

import ast
import fnmatch
import json
import subprocess
import sys
from pathlib import Path

import pytest

from image import manifest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core0", "corex", "image", "ci", "cli")

# One interpreter that has imported nothing of ours forks for each module: as good as a fresh one each, and quick.
IMPORT_EACH = """
import importlib, json, os, sys, traceback, warnings
import aiohttp.web, cryptography.x509, msgspec, pytest_asyncio, qemu.qmp, typer
failed = {}
for name in json.load(sys.stdin):
    reader, writer = os.pipe()
    if os.fork() == 0:
        warnings.simplefilter("error")
        try:
            importlib.import_module(name)
        except BaseException:
            os.write(writer, traceback.format_exc()[-4000:].encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        if text := answer.read().decode():
            failed[name] = text
    os.wait()
json.dump(failed, sys.stdout)
"""


def module_names() -> list[str]:
    paths = [
        path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
    ]
    dotted = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in dotted if not name.endswith("__main__") or name == "core0.__main__"]


def run_python(code: str, text: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, cwd=ROOT, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_module_imports_alone_without_a_warning() -> None:
    failed = json.loads(run_python(IMPORT_EACH, json.dumps(module_names())))
    assert not failed, "\n".join(f"{name}:\n{text}" for name, text in failed.items())


@pytest.mark.parametrize(
    ("module", "budget", "never"),
    [
        pytest.param(
            "core0.init.main", 100, ("asyncio", "msgspec", "aiohttp", "subprocess", "threading"), id="PID 1"
        ),
        pytest.param(
            "core0.node.main",
            175,
            ("core0.links.inventory", "core0.disks.manager", "core0.containers.manager", "pathlib"),
            id="node daemon",
        ),
        pytest.param("core0.api.main", 320, ("ci", "cli", "image", "ctypes", "core0.linux"), id="API"),
        pytest.param("corex.main", 335, ("core0", "ci", "cli", "image"), id="Core-X"),
        pytest.param("cli.frame", 170, ("aiohttp", "cryptography", "image", "ci", "core0"), id="zn --help"),
    ],
)
def test_what_starts_often_imports_little(module: str, budget: int, never: tuple[str, ...]) -> None:
    code = f"import sys; bare = {{*sys.modules}}; import {module}; print(*sorted({{*sys.modules}} - bare))"
    loaded = run_python(code).split()
    assert set(loaded).isdisjoint(never)
    assert len(loaded) <= budget, f"{module} loads {len(loaded)} modules:\n" + "\n".join(loaded)


# What is imported with a module of the node, whose own imports inside functions count as well.
IMPORTED_WITH = """
import importlib, json, sys
for name in json.load(sys.stdin):
    importlib.import_module(name)
print(*sorted(sys.modules))
"""


def node_modules() -> list[str]:
    sides = ("ci", "cli", "image", "core0.client", "corex.client")
    return [name for name in module_names() if not name.startswith(sides) and name != "core0.__main__"]


def imports_of(name: str) -> set[str]:
    path = ROOT / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def is_left_out(module: str, patterns: tuple[str, ...]) -> bool:
    path = f"usr/lib/python3.13/{module.replace('.', '/')}"
    files = (f"{path}.py", f"{path}/__init__.py", f"usr/lib/python3.13/lib-dynload/{module}.so")
    return any(fnmatch.fnmatchcase(file, pattern) for file in files for pattern in patterns)


def test_the_image_leaves_nothing_out_that_a_module_of_the_node_imports() -> None:
    read = manifest.load(ROOT / "initramfs/virt.toml")
    with_them = set(run_python(IMPORTED_WITH, json.dumps(node_modules())).split())
    wanted = with_them.union(*map(imports_of, node_modules()))
    assert {"asyncio", "msgspec", "urllib.request", "core0.node.main"} <= wanted
    assert not {name for name in wanted if is_left_out(name, read.files.drop)}
