"""A node that runs beside the command line, as a person has it: an address, a key, a contexts file."""

import asyncio
import hashlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from cli import context as contexts
from cli.__main__ import main
from core0.wire.types import ContainerSpec
from tests.core0.disks.loop import LoopDisks, can_loop, loop_disks
from tests.host_node import HostNode

TOKEN = "a token that was kept"
SPEC = ContainerSpec("http://127.0.0.1:9/demo/", hashlib.sha256(TOKEN.encode()).hexdigest())


@dataclass
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> object:
        """Its output as JSON."""
        return msgspec.json.decode(self.out)


Zn = Callable[..., Said]


@contextmanager
def beside(work: AbstractAsyncContextManager[None]) -> Iterator[None]:
    """Run a context in an event loop of its own thread, for the time of the block."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        try:
            async with work:
                started.set()
                await stop.wait()
        finally:
            started.set()

    def thread() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(thread)
        started.wait(30)
        try:
            yield
        finally:
            if not running.done():
                loop.call_soon_threadsafe(stop.set)
            running.result(30)


@pytest.fixture
def served(host_node: HostNode, contexts_file: Path) -> Iterator[HostNode]:
    """A node that answers, with the container `demo` running; its context is the current one."""
    host_node.add_container("demo", SPEC)

    @asynccontextmanager
    async def serving() -> AsyncIterator[None]:
        async with host_node.daemon(), host_node.api():
            yield

    with beside(serving()):
        write_context(contexts_file, host_node)
        yield host_node


@pytest.fixture
def disks(host_node: HostNode, contexts_file: Path, tmp_path: Path) -> Iterator[LoopDisks]:
    """The disks of a node that answers: what is plugged before the first command."""
    if not can_loop():
        pytest.skip("needs root and loop devices")

    @asynccontextmanager
    async def serving() -> AsyncIterator[None]:
        async with host_node.daemon() as state, host_node.api():
            keeping = asyncio.create_task(state.disks.run())
            yield
            keeping.cancel()
            await asyncio.wait([keeping])

    with loop_disks(tmp_path / "disks") as plugged:
        host_node.observe = plugged
        with beside(serving()):
            write_context(contexts_file, host_node)
            yield plugged


def write_context(path: Path, node: HostNode, **changed: str) -> None:
    """Put the node's context, with the operator's key beside it."""
    secret = node.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (path.parent / "operator.pem").write_bytes(secret)
    values = {"address": node.address, "fingerprint": node.fingerprint, "key": "operator.pem", **changed}
    contexts.put(path, "local", contexts.Context(**values))


@pytest.fixture
def contexts_file(tmp_path: Path) -> Path:
    """The contexts file of the commands here."""
    folder = tmp_path / "config"
    folder.mkdir()
    return folder / "contexts.toml"


@pytest.fixture
def zn(contexts_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Zn:
    """Runs a command line in this process, as the shell does it."""

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["zn", "--contexts", str(contexts_file), *words])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def node(host_node: HostNode, contexts_file: Path) -> Iterator[HostNode]:
    """A node that serves, which is the current context."""

    @asynccontextmanager
    async def serving():
        async with host_node.daemon(), host_node.api():
            yield

    with beside(serving()):
        write_context(contexts_file, host_node)
        yield host_node
