"""Fixtures of every test: golden files, and machines whose consoles are checked."""

import fcntl
import os
import platform
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from cli.image import cache_folder
from image import build as builder
from image import node
from image.report import Report
from image.sources import Places

ROOT = Path(__file__).parents[1]

# Other work on the same cores makes any example slow once; pytest-timeout ends what hangs.
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")

pytest_plugins = ("ci.pytest_machines", "tests.host_node")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")
    parser.addoption(
        "--power-cuts", type=int, default=3, metavar="N", help="real power cuts of a node that works (3)"
    )
    parser.addoption(
        "--containers", type=int, default=16, metavar="N", help="containers that come and go at a time (16)"
    )


@pytest.hookimpl(trylast=True)  # behind those that mark tests as slow
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several workers begin with the files that have slow tests, so that none ends long after the others.

    They get whole files, in this order, with --no-loadscope-reorder.
    """
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def system_call_filters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image's filters of system calls, for this machine."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    folder = tmp_path_factory.mktemp("filters")
    for entry in node.system_call_filters(Path(__file__).parents[1] / "initramfs/seccomp", arch):
        (folder / Path(entry.path).name).write_bytes(entry.content)
    return folder


@pytest.fixture(scope="session")
def image() -> Path:
    """The output folder of a fresh build, made by the first worker that needs it."""
    output = ROOT / "build" / "amd64-virt"
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    stamp = ROOT / "build" / "tested-run"
    stamp.parent.mkdir(exist_ok=True)
    with stamp.open("a+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        if turn.read() != run:
            manifest = ROOT / "initramfs" / "virt.toml"
            builder.build(builder.Request(manifest, "amd64", output, Places(ROOT, cache_folder())), Report())
            turn.truncate(0)
            turn.write(run)
    return output


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with golden/NAME beside the test; a missing file is written and the test fails."""
    folder = Path(request.path).parent / "golden"

    def check(name: str, text: str) -> None:
        path = folder / name
        if request.config.getoption("--update-golden") or not path.exists():
            existed = path.exists()
            folder.mkdir(exist_ok=True)
            path.write_text(text)
            if not existed:
                pytest.fail(f"golden file {path} was missing and is now written: review and commit it")
        assert text == path.read_text(), f"differs from {path}; if that is right: pytest --update-golden"

    return check
