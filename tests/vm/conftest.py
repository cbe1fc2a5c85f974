"""What tests of booted images share: the image, built once; the server; a node, booted once and brought back.

All tests here run in one event loop per worker, because the node and the server live in it. A test that takes
`machine` gets it as it was when it became ready; its console must stay free of trouble.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ci.pytest_machines import check_console, watch
from ci.qemu import trial
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from cli.image import cache_folder
from image import build as builder
from image.report import Report
from image.server import Config, Running, serve
from image.sources import Places

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
# The node answers authenticated requests this many seconds after power-on under KVM.
READY_SECONDS = 10.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    one_loop = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.vm)
            if isinstance(item, pytest.Function) and asyncio.iscoroutinefunction(item.obj):
                item.add_marker(one_loop, append=False)


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


@pytest.fixture(scope="session")
def cmdline(image: Path) -> str:
    """The image's own kernel parameters."""
    return (image / "cmdline").read_text().strip()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def acceleration(image: Path) -> Acceleration:
    """How machines run on this host."""
    return await trial.choose(image / "vmlinuz")


@pytest.fixture(scope="session")
def oci(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose subfolders the server offers as OCI images."""
    return tmp_path_factory.mktemp("oci")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(image: Path, oci: Path) -> AsyncIterator[Running]:
    """A netboot server for the image."""
    async with serve(Config(image, oci)) as running:
        yield running


@pytest.fixture(scope="session")
def node_spec(image: Path, cmdline: str) -> MachineSpec:
    """The node that most tests share."""
    boot = DirectBoot(image / "vmlinuz", image / "initramfs", f"{cmdline} zn.hostname=node1")
    return MachineSpec("node1", boot, memory=512, snapshots=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def booted(
    node_spec: MachineSpec, acceleration: Acceleration, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Machine]:
    """The shared machine, booted once per worker; tests take `machine`, which is brought back for each."""
    async with Machine(node_spec, acceleration, tmp_path_factory.mktemp("node1")) as machine:
        await machine.wait_for_phase("ready", READY_SECONDS)
        await machine.snapshot("ready")
        yield machine


@pytest_asyncio.fixture(loop_scope="session")
async def machine(booted: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    """The shared machine as it was when it became ready."""
    watch(request.node, booted)
    await booted.restore("ready")
    start = len(booted.console.lines)
    yield booted
    check_console(booted.console, booted.spec.name, start)
