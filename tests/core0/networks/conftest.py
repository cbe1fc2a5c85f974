"""Sites of a test module: made by what the module says, ended with it, all inside one loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.core0.networks.site import Site


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The module's loop, where a node's manager lives longer than one test."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def make_site(
    loop: asyncio.AbstractEventLoop,
) -> Iterator[Callable[[Callable[[Site], Awaitable[None]]], Site]]:
    """Makes a site as it is told."""
    made = []

    def make(build: Callable[[Site], Awaitable[None]]) -> Site:
        site = Site().__enter__()
        made.append(site)
        loop.run_until_complete(build(site))
        return site

    async def end(site: Site) -> None:
        site.__exit__()

    yield make
    for site in made:
        loop.run_until_complete(end(site))
