"""What tests do with containers on a booted node."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ci.qemu.machine import Machine
from core0.client.client import NodeClient, RefusedError, UnreachableError
from core0.wire.types import Container, ContainerSpec
from corex.client.client import Client, Endpoint

TOKEN = "a token of 32 bytes for the tests"


async def settled(node: NodeClient, name: str) -> Container:
    """The container once it is neither pulled nor built nor stopped, with patience for an emulated machine."""
    return await node.container(name, wait=60)


async def running(node: NodeClient, name: str, wanted: ContainerSpec) -> Container:
    """Make a container and see it run.

    Behind a restored snapshot the guest takes ports anew that libslirp has not forgotten, and libslirp refuses such a
    connection; the node tries again by itself. A server that really refuses ends in the deadline.
    """
    await node.put_container(name, wanted)
    async with asyncio.timeout(60):
        while True:
            container = await settled(node, name)
            if "Connection refused" not in container.why:
                break
            await asyncio.sleep(0.2)
    assert container.state == "running", container.why
    return container


@asynccontextmanager
async def inside(machine: Machine, container: Container) -> AsyncIterator[Client]:
    assert container.corex
    port = await machine.forward(container.corex.port)
    async with Client(Endpoint(f"127.0.0.1:{port}", container.corex.fingerprint, TOKEN)) as client:
        yield client


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Ask the node again and again: it has no call that waits for a container to be gone."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def gone(node: NodeClient, *names: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return {*names}.isdisjoint(container.name for container in await node.containers())

    return check


def answers(node: NodeClient) -> Callable[[], Awaitable[bool]]:
    """Whether the node answers."""
    return lambda: answered(node.containers)


def runs(node: NodeClient, name: str) -> Callable[[], Awaitable[bool]]:
    """Whether a container runs, through failures and new tries."""

    async def check() -> bool:
        return (await node.container(name)).state == "running"

    return check


async def insist(call: Callable[[], Awaitable[object]]) -> None:
    """Ask until the node answers: its processes may be dying meanwhile."""
    await until(lambda: answered(call))


async def answered(call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the node answers a question; that it is starting again is no answer yet."""
    try:
        await call()
    except UnreachableError:
        return False
    except RefusedError as error:
        if error.problem.status != 503:
            raise
        return False
    return True
