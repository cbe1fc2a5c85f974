"""A volume manager over pools that are files on this machine."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from core0.linux.worker import Worker
from core0.node.operations import OperationTable
from core0.volumes.manager import Volumes
from core0.volumes.memory import Memory
from core0.wire import paths
from core0.wire.volumes import Volume
from tests.core0.conftest import Loop

MIB = 1 << 20


class Pools:
    """Pools that come and go as a test says."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.disks: dict[str, frozenset[str]] = {}
        self._changed = asyncio.Event()

    def folders(self) -> Mapping[str, str]:
        return dict(self.there)

    def devices(self) -> Mapping[str, frozenset[str]]:
        return {name: self.disks.get(name, frozenset()) for name in self.there}

    async def wait_changed(self) -> None:
        await self._changed.wait()

    def change(self, **there: Path) -> None:
        self.there = {name: str(place) for name, place in there.items()}
        self.tell_changed()

    def tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Node:
    """The manager with what it works on."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self.pools = Pools()
        self.said: list[tuple[str, str, str]] = []
        self.users: dict[str, tuple[str, ...]] = {}
        self.came = asyncio.Event()
        self.operations = OperationTable(lambda *event: self.said.append(event))
        self.worker = worker
        self.folder = folder
        self.volumes = self.make()

    def make(self) -> Volumes:
        """Another node daemon's manager."""
        report = self.said.append
        memory = Memory(str(self.folder))
        return Volumes(
            self.pools,
            self.worker,
            lambda *event: report(event),
            memory,
            lambda name: self.users.get(name, ()),
            self.operations,
            self.came.set,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Volumes]:
        """The manager's loop."""
        task = asyncio.create_task(self.volumes.run())
        try:
            yield self.volumes
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def wait_until(self, fits: Callable[[tuple[Volume, ...]], bool]) -> tuple[Volume, ...]:
        """All volumes, once they are as wanted."""
        async with asyncio.timeout(60):
            while not fits(found := await self.volumes.list()):  # noqa: ASYNC110 — the file system tells nobody
                await asyncio.sleep(0.02)
        return found

    async def wait_taken(self, *names: str) -> None:
        """Wait until pools can be used."""
        async with asyncio.timeout(60):
            while not all(self._is_taken(name) for name in names):  # noqa: ASYNC110 — the manager tells the log
                await asyncio.sleep(0.02)

    def _is_taken(self, name: str) -> bool:
        place = self.volumes._places.all.get(name)
        return place is not None and not place.trouble


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, system_call_filters: Path) -> Iterator[Worker]:
    monkeypatch.setattr(paths, "RECEIVE_SECCOMP", str(system_call_filters / "receive.bpf"))
    monkeypatch.setattr(paths, "STORAGE", "")  # the programs of this machine
    made = Worker()
    yield made
    made.close()


@pytest.fixture
def idle_node(worker: Worker, tmp_path: Path) -> Iterator[Node]:
    """A node whose manager does not run yet."""
    folder = tmp_path / "memory"
    made = Node(worker, folder)
    yield made
    for one in folder.iterdir():
        if one.is_mount():
            subprocess.run(["umount", one], check=True)


@pytest.fixture
async def node(idle_node: Node, btrfs_disk: Loop) -> AsyncIterator[Node]:
    """A node with one pool, `fast`."""
    idle_node.pools.change(fast=btrfs_disk.place)
    async with idle_node.running():
        await idle_node.wait_taken("fast")
        yield idle_node
