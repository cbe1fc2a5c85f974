"""What tests of booted images share: the image, built once; the server; a node, booted once and brought back.

All tests here run in one event loop per worker, because the node and the server live in it. A test that takes
`machine` gets it as it was when it became ready; its console must stay free of trouble.
"""

import asyncio
import datetime
import hashlib
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ci.pytest_machines import Machines, check_console, machines_of, restored
from ci.qemu import trial
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient
from core0.client.credentials import client_context, issue_certificate, make_key, public_hex
from core0.wire.ports import API
from core0.wire.types import ContainerSpec
from image.server import Config, Running, serve
from image.tree import Entry
from tests.vm.inside import TOKEN, gone, running, until
from tests.vm.layouts import BUSYBOX, layer_of_busybox, write_layout
from tests.vm.sabotage import of_debian

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
# A restored snapshot finds the processor's time stamp where it was last, not where it was saved (QEMU keeps the
# largest it has shown): time must not come from it, or each restore looks like a minute's hang.
RESTORABLE = ("tsc=unstable", "nosoftlockup")
READY_SECONDS = 10.0
# The library's own deadlines come first and say more; this one ends what hangs beyond them.
TEST_SECONDS = 900
CUT_SECONDS = 120


# Files that take a minute and more: workers begin with what is slow.
LONGEST = (
    "real_cuts",
    "boot_matrix",
    "state",
    "images",
    "up",
    "mesh",
    "power_cuts",
    "ordinary_images",
    "volumes",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    one_loop = pytest.mark.asyncio(loop_scope="session")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.vm)
            if item.path.stem.removeprefix("test_") in LONGEST:
                item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
            if isinstance(item, pytest.Function) and asyncio.iscoroutinefunction(item.obj):
                item.add_marker(one_loop, append=False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `power_cuts` makes as many as the option says, and has the time for it."""
    if "power_cuts" in metafunc.fixturenames:
        count = metafunc.config.getoption("--power-cuts")
        seconds = pytest.mark.timeout(TEST_SECONDS + count * CUT_SECONDS)
        metafunc.parametrize("power_cuts", [pytest.param(count, marks=seconds)])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def acceleration(image: Path) -> Acceleration:
    """How machines run on this host."""
    return await trial.choose(image / "vmlinuz")


@pytest_asyncio.fixture(loop_scope="session")
async def machines(
    request: pytest.FixtureRequest, acceleration: Acceleration, tmp_path: Path
) -> AsyncIterator[Machines]:
    """A starter of machines of the test's own, in the loop of all tests here."""
    async with machines_of(request.node, acceleration, tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def oci(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose subfolders the server offers as OCI images."""
    return tmp_path_factory.mktemp("oci")


@pytest.fixture(scope="session")
def debian() -> list[Entry]:
    """Programs of Debian for the saboteur; the cache may have to fetch their packages."""
    return of_debian()


@pytest.fixture(scope="session")
def operator_key(tmp_path_factory: pytest.TempPathFactory) -> Ed25519PrivateKey:
    """The key whose holder may use the API of every node here."""
    return make_key(tmp_path_factory.mktemp("operator") / "operator.pem")


@pytest.fixture(scope="session")
def boot_arguments(operator_key: Ed25519PrivateKey) -> tuple[str, ...]:
    """The kernel parameters that make a node obey the operator."""
    return (f"zn.operator={public_hex(operator_key)}", "zn.hostname=node1")


@pytest.fixture(scope="session")
def direct_boot(image: Path, boot_arguments: tuple[str, ...]) -> DirectBoot:
    """The image, loaded by QEMU itself."""
    own = (image / "cmdline").read_text().strip()
    return DirectBoot(image / "vmlinuz", image / "initramfs", " ".join((own, *boot_arguments, *RESTORABLE)))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(image: Path, oci: Path, boot_arguments: tuple[str, ...]) -> AsyncIterator[Running]:
    """A netboot server for the image."""
    async with serve(Config(image, oci, boot_arguments)) as running:
        yield running


@pytest.fixture(scope="session")
def connect(operator_key: Ed25519PrivateKey) -> Callable[..., Awaitable[NodeClient]]:
    """Makes an authenticated client of the node in a machine that is ready; use it with `async with`."""

    async def make(machine: Machine, address: str = "") -> NodeClient:
        """By this address, or by the machine's card on QEMU's own network."""
        identity = await machine.wait_for_phase("identity", READY_SECONDS)
        address = address or f"127.0.0.1:{await machine.forward(API)}"
        tls = issue(datetime.datetime.now(datetime.UTC))
        return NodeClient(address, identity.detail.removeprefix("sha256:"), tls, reissue=issue)

    def issue(moment: datetime.datetime) -> ssl.SSLContext:
        return client_context(issue_certificate(operator_key, "tests", now=moment))

    return make


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def booted(
    direct_boot: DirectBoot, acceleration: Acceleration, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Machine]:
    """The shared machine, booted once per worker; tests take `machine`, which is brought back for each."""
    spec = MachineSpec("node1", direct_boot, snapshots=True)
    async with Machine(spec, acceleration, tmp_path_factory.mktemp("node1")) as machine:
        await machine.wait_for_phase("ready", READY_SECONDS)
        await machine.wait_for_port(API, READY_SECONDS)
        await machine.wait_for_phase("storage", READY_SECONDS)  # else each test would wait for its drivers
        await machine.snapshot("ready")
        yield machine
    check_console(machine.console, spec.name)


@pytest_asyncio.fixture(loop_scope="session")
async def machine(booted: Machine, request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    """The shared machine as it was when it became ready."""
    async with restored(booted, "ready", request.node) as machine:
        yield machine


@pytest_asyncio.fixture(loop_scope="session")
async def node(
    machine: Machine, connect: Callable[[Machine], Awaitable[NodeClient]]
) -> AsyncIterator[NodeClient]:
    """An authenticated client of the shared node."""
    async with await connect(machine) as client:
        yield client


@pytest.fixture(scope="module")
def busybox(oci: Path) -> Iterator[Path]:
    """The folder of an image that has a shell."""
    if not BUSYBOX.exists():
        pytest.skip("needs Debian's busybox-static")
    folder = oci / "busybox"
    write_layout(folder, layer_of_busybox())
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def snapshots() -> set[str]:
    """Those of the shared machine that tests have added."""
    return set()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stocked(
    booted: Machine,
    connect: Callable[[Machine], Awaitable[NodeClient]],
    spec: Callable[..., ContainerSpec],
    snapshots: set[str],
) -> Machine:
    """The shared machine, with a snapshot `stocked` of it that has the image and has had a container of it."""
    if "stocked" not in snapshots:
        await booted.restore("ready")
        async with await connect(booted) as node:
            await running(node, "first", spec())
            await node.delete_container("first")
            await until(gone(node, "first"))
        await booted.snapshot("stocked")
        snapshots.add("stocked")
    return booted


@pytest.fixture(scope="module")
def spec(server: Running, busybox: Path) -> Callable[..., ContainerSpec]:
    """Makes specs of containers of that image."""

    def make(image: str = "oci/busybox/", **wanted: Any) -> ContainerSpec:
        token = hashlib.sha256(TOKEN.encode()).hexdigest()
        return ContainerSpec(f"http://10.0.2.2:{server.port}/{image}", token, **wanted)

    return make
