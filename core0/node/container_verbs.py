"""The node daemon's verbs for containers that run."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import Call
from core0.wire.types import Container, Limits

if TYPE_CHECKING:
    from core0.node.verbs import NodeState


async def _limit(state: "NodeState", call: Call) -> Container:
    return await state.containers.set_limits(call.name, msgspec.json.decode(call.body, type=Limits))


async def _pause(state: "NodeState", call: Call) -> Container:
    return await state.containers.set_paused(call.name, True)


async def _resume(state: "NodeState", call: Call) -> Container:
    return await state.containers.set_paused(call.name, False)


CONTAINER_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "limit_container": _limit,
    "pause_container": _pause,
    "resume_container": _resume,
}
