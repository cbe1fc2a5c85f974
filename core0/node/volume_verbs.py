"""The node daemon's verbs for volumes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import Call
from core0.wire.volume_calls import (
    ExportCall,
    FeedCall,
    ImportCall,
    ImportQuery,
    SnapshotCall,
    VolumeCall,
    VolumeDeletion,
)
from core0.wire.volumes import Import, Volume, Volumes, VolumeSpec

if TYPE_CHECKING:
    from core0.node.verbs import NodeState

_LONGEST_WAIT = 60.0


async def _volumes(state: "NodeState", _: Call) -> Volumes:
    return Volumes(await state.volumes.list())


async def _volume(state: "NodeState", call: Call) -> Volume:
    return await state.volumes.get(call.name, msgspec.json.decode(call.body, type=VolumeCall).pool)


async def _put_volume(state: "NodeState", call: Call) -> Volume:
    spec = msgspec.json.decode(call.body, type=VolumeSpec)
    put = await state.volumes.put(call.name, spec, new=call.new)
    if put.containers:
        state.containers.limit_again(call.name)
    return put


async def _delete_volume(state: "NodeState", call: Call) -> None:
    wanted = msgspec.json.decode(call.body, type=VolumeDeletion)
    await state.volumes.delete(call.name, wanted.pool, snapshots=wanted.snapshots)


async def _take_snapshot(state: "NodeState", call: Call) -> Volume:
    wanted = msgspec.json.decode(call.body, type=SnapshotCall)
    return await state.volumes.take_snapshot(call.name, wanted.snapshot, wanted.pool)


async def _delete_snapshot(state: "NodeState", call: Call) -> None:
    wanted = msgspec.json.decode(call.body, type=SnapshotCall)
    await state.volumes.delete_snapshot(call.name, wanted.snapshot, wanted.pool)


async def _roll_back_volume(state: "NodeState", call: Call) -> Volume:
    wanted = msgspec.json.decode(call.body, type=SnapshotCall)
    return await state.volumes.roll_back(call.name, wanted.snapshot, wanted.pool)


async def _begin_import(state: "NodeState", call: Call) -> Import:
    wanted = msgspec.json.decode(call.body, type=ImportCall)
    return await state.volumes.imports.begin(call.name, wanted.request, wanted.pool)


async def _import(state: "NodeState", call: Call) -> Import:
    query = msgspec.json.decode(call.body, type=ImportQuery)
    return await state.volumes.imports.wait(query.operation, min(query.wait, _LONGEST_WAIT))


def _feed_import(state: "NodeState", call: Call, connection: int) -> None:
    wanted = msgspec.json.decode(call.body, type=FeedCall)
    state.volumes.imports.feed(wanted.operation, wanted.offset, connection)


def _export_snapshot(state: "NodeState", call: Call, connection: int) -> None:
    state.volumes.exports.send(call.name, msgspec.json.decode(call.body, type=ExportCall), connection)


# Verbs that take the call's connection with them, a blocking socket: a job answers there, and bytes follow
# (`core0.wire.pieces`), which the daemon never sees.
CONNECTION_VERBS: Mapping[str, Callable[["NodeState", Call, int], None]] = {
    "feed_import": _feed_import,
    "export_snapshot": _export_snapshot,
}

VOLUME_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "volumes": _volumes,
    "volume": _volume,
    "put_volume": _put_volume,
    "delete_volume": _delete_volume,
    "take_snapshot": _take_snapshot,
    "delete_snapshot": _delete_snapshot,
    "roll_back_volume": _roll_back_volume,
    "begin_import": _begin_import,
    "import": _import,
}
