"""The pytest plugin of the QEMU library: machines for a test, their console checked and kept when it fails.

A test that provokes trouble on purpose says so: `await machines.start(spec, expect=("Kernel panic",))`.
"""

import re
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from ci.qemu.accel import Acceleration
from ci.qemu.console import Console
from ci.qemu.machine import Machine
from ci.qemu.spec import MachineSpec
from ci.qemu.trouble import find_trouble

_SHOWN_LINES = 40
_WATCHED = pytest.StashKey[dict[str, Machine]]()


def watch(item: pytest.Item, machine: Machine) -> None:
    """Show the machine's last console lines, and keep its log, if this test fails."""
    item.stash.setdefault(_WATCHED, {})[machine.spec.name] = machine


def check_console(console: Console, machine: str, start: int = 0, expect: tuple[str, ...] = ()) -> None:
    """Fail the test if the console shows an oops, a panic or a traceback.

    Args:
        console: the machine's console.
        machine: its name, for the message.
        start: the first line to check.
        expect: texts that the test provokes on purpose; each must occur.
    """
    findings = find_trouble(console.lines[start:], expect)
    if findings:
        shown = "\n".join(f"  {line}" for line in findings[:_SHOWN_LINES])
        pytest.fail(f"the console of machine {machine} shows trouble:\n{shown}", pytrace=False)


class Machines:
    """Starts machines for one test."""

    def __init__(
        self, item: pytest.Item, acceleration: Acceleration, folder: Path, stack: AsyncExitStack
    ) -> None:
        self._item = item
        self._acceleration = acceleration
        self._folder = folder
        self._stack = stack
        self._started: list[tuple[Machine, tuple[str, ...]]] = []

    async def start(self, spec: MachineSpec, expect: tuple[str, ...] = ()) -> Machine:
        """Start a machine that lives until the test ends.

        Args:
            spec: the machine.
            expect: console texts that look like trouble and are wanted; each must occur.
        """
        machine = Machine(spec, self._acceleration, self._folder / spec.name)
        watch(self._item, machine)
        self._started.append((machine, expect))
        return await self._stack.enter_async_context(machine)

    def check(self) -> None:
        """Look at each console; see `check_console`."""
        for machine, expect in self._started:
            check_console(machine.console, machine.spec.name, expect=expect)


@asynccontextmanager
async def machines_of(item: pytest.Item, acceleration: Acceleration, folder: Path) -> AsyncIterator[Machines]:
    """A starter of machines for a test; when the block ends each machine ends, and its console is checked."""
    async with AsyncExitStack() as stack:
        started = Machines(item, acceleration, folder, stack)
        yield started
    started.check()


@contextmanager
def watched_during(item: pytest.Item, machine: Machine) -> Iterator[None]:
    """Watch a shared machine for one test, whose part of the console is checked."""
    watch(item, machine)
    start = len(machine.console.lines)
    yield
    check_console(machine.console, machine.spec.name, start)


@asynccontextmanager
async def restored(machine: Machine, snapshot: str, item: pytest.Item) -> AsyncIterator[Machine]:
    """A shared machine as a snapshot kept it, for one test."""
    with watched_during(item, machine):
        await machine.restore(snapshot)
        yield machine


@pytest_asyncio.fixture
async def machines(
    request: pytest.FixtureRequest, acceleration: Acceleration, tmp_path: Path
) -> AsyncIterator[Machines]:
    """A starter of machines, in the test's own event loop."""
    async with machines_of(request.node, acceleration, tmp_path) as started:
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the consoles of a failed test to its report and keep their logs."""
    report = yield
    if report.failed:
        for name, machine in item.stash.get(_WATCHED, {}).items():
            title = f"console of machine {name} (whole: {_keep_log(item, machine)})"
            report.sections.append((title, machine.console.tail(_SHOWN_LINES)))
    return report


def _keep_log(item: pytest.Item, machine: Machine) -> Path:
    name = re.sub(r"[^\w.-]+", "_", item.nodeid.removeprefix("tests/"))
    folder = item.config.rootpath / "tests" / "artifacts" / name
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{machine.spec.name}.log"
    if machine.console_log.exists():
        shutil.copyfile(machine.console_log, kept)
    return kept.relative_to(item.config.rootpath)
