"""What tests do with the disks of a booted node."""

import asyncio
from collections.abc import Awaitable, Callable

from core0.client.client import NodeClient
from core0.wire.storage import Disk, Pool
from core0.wire.types import Event

READY_SECONDS = 10.0
# As often as something changes, and without an event at least.
_AGAIN = 2.0


async def until(client: NodeClient, condition: Callable[[], Awaitable[bool]], seconds: float = 120.0) -> None:
    """Ask a condition with every event, and every two seconds."""
    cursor = (await client.events()).cursor
    async with asyncio.timeout(seconds):
        while not await condition():
            cursor = (await client.events(cursor, _AGAIN)).cursor


async def settled(client: NodeClient, count: int) -> dict[str, Disk]:
    """All disks by serial number, once so many are there and have been looked at; of twins the last."""

    async def looked() -> bool:
        disks = await client.disks()
        return len(disks) == count and all(one.state != "probing" for one in disks)

    await until(client, looked)
    return {one.serial: one for one in await client.disks()}


async def disk_in(client: NodeClient, name: str, *states: str) -> Disk:
    """A disk once it is there and in one of these states, by id or serial number."""

    async def reached() -> bool:
        return any(one.state in states for one in await client.disks() if name in (one.id, one.serial))

    await until(client, reached)
    return await client.disk(name)


async def pool_in(client: NodeClient, name: str, *states: str) -> Pool:
    """A pool once it is in one of these states."""

    async def reached() -> bool:
        return (await client.pool(name)).state in states

    await until(client, reached)
    return await client.pool(name)


async def told(client: NodeClient, subject: str, words: str) -> Event:
    """The first event of a subject in whose message these words are."""
    cursor = 0
    async with asyncio.timeout(120):
        while True:
            news = await client.events(cursor, 30.0)
            for event in news.events:
                if event.subject == subject and words in event.message:
                    return event
            cursor = news.cursor
