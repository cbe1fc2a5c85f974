"""The API process beside node daemons that end and come again."""

import asyncio
from collections.abc import Iterator

import pytest

from core0.api.daemon import Daemon
from core0.api.main import _Life, _stay
from core0.wire import paths
from core0.wire.control import Identity
from tests.host_node import HostNode


@pytest.fixture(autouse=True)
def places(host_node: HostNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The socket of the node here; the phases that it announces."""
    said: list[str] = []
    monkeypatch.setattr(paths, "NODE_SOCKET", str(host_node.socket))
    monkeypatch.setattr("core0.node.verbs.announce", lambda name, **_: said.append(name))
    return said


async def test_it_tells_each_node_daemon_that_it_serves_and_ends_when_the_node_is_another(
    host_node: HostNode, places: list[str]
) -> None:
    daemon = Daemon(str(host_node.socket))
    async with host_node.daemon() as state:
        life = await _Life.begin()
        identity = await daemon.call("identity", Identity)
        staying = asyncio.create_task(_stay(daemon, identity, life))
        async with asyncio.timeout(20):
            await state.serving.wait()
    assert not staying.done()
    host_node.keeps_identity = True
    async with host_node.daemon() as state:
        async with asyncio.timeout(20):
            await state.serving.wait()
    assert not staying.done()
    host_node.keeps_identity = False
    async with host_node.daemon():
        async with asyncio.timeout(20):
            await staying
    assert places == ["ready", "ready"]
    daemon.close()
