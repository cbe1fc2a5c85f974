"""The node daemon's verbs for containers that run."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import LONGEST_WAIT, Call, ContainerQuery
from core0.wire.types import Container, ContainerStats, Limits

if TYPE_CHECKING:
    from core0.node.verbs import NodeState


async def _limit(state: "NodeState", call: Call) -> Container:
    return await state.containers.set_limits(call.name, msgspec.json.decode(call.body, type=Limits))


async def _end(state: "NodeState", call: Call) -> Container:
    query = msgspec.json.decode(call.body, type=ContainerQuery)
    return await state.containers.wait_end(call.name, min(query.wait, LONGEST_WAIT))


async def _stats(state: "NodeState", call: Call) -> ContainerStats:
    return state.containers.stats(call.name)


async def _pause(state: "NodeState", call: Call) -> Container:
    return await state.containers.set_paused(call.name, True)


async def _resume(state: "NodeState", call: Call) -> Container:
    return await state.containers.set_paused(call.name, False)


CONTAINER_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "limit_container": _limit,
    "container_end": _end,
    "container_stats": _stats,
    "pause_container": _pause,
    "resume_container": _resume,
}
