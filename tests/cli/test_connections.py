"""What a command leaves of its connections when it ends."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Coroutine

import pytest

from core0.client.client import RefusedError, WrongNodeError
from tests.cli.conftest import SPEC
from tests.host_node import HostNode


async def mistaken(node: HostNode) -> None:
    async with node.client(node.certificate(), fingerprint="00" * 32) as client:
        with pytest.raises(WrongNodeError):
            await client.node()


async def refused(node: HostNode) -> None:
    """The node ends a connection whose request it does not read to its end."""
    async with node.operator() as client:
        with pytest.raises(RefusedError):
            await client.put_container("Web", SPEC)


@pytest.mark.parametrize("command", [mistaken, refused])
def test_no_connection_is_left_to_the_garbage_collector(
    served: HostNode, command: Callable[[HostNode], Coroutine[None, None, None]]
) -> None:
    """`asyncio.run` ends the loop at once: who still says goodbye then never gets to its end."""
    gc.collect()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asyncio.run(command(served))
        gc.collect()
    assert [str(one.message) for one in told] == []
