"""The node daemon's verbs for containers that run."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import LONGEST_WAIT, Call, ContainerQuery
from core0.wire.image_store import Commit
from core0.wire.operations import Operation
from core0.wire.types import Container, ContainerStats, Limits, Rename

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


async def _rename(state: "NodeState", call: Call) -> Container:
    return await state.containers.rename(call.name, msgspec.json.decode(call.body, type=Rename).name)


def _export(state: "NodeState", call: Call, connection: int) -> None:
    state.containers.export(call.name, connection, state.operations)


async def _commit(state: "NodeState", call: Call) -> Operation:
    wanted = msgspec.json.decode(call.body, type=Commit)
    return state.containers.commit(call.name, wanted.name, state.operations)


# Verbs that take the call's connection with them (`core0.node.volume_verbs` has more of it).
CONTAINER_CONNECTION_VERBS: Mapping[str, Callable[["NodeState", Call, int], None]] = {
    "export_container": _export,
}

CONTAINER_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "limit_container": _limit,
    "container_end": _end,
    "container_stats": _stats,
    "pause_container": _pause,
    "resume_container": _resume,
    "rename_container": _rename,
    "commit_container": _commit,
}
