"""The node daemon's verbs for volumes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import Call
from core0.wire.volume_calls import SnapshotCall, VolumeCall, VolumeDeletion
from core0.wire.volumes import Volume, Volumes, VolumeSpec

if TYPE_CHECKING:
    from core0.node.verbs import NodeState


async def _volumes(state: "NodeState", _: Call) -> Volumes:
    return Volumes(await state.volumes.list())


async def _volume(state: "NodeState", call: Call) -> Volume:
    return await state.volumes.get(call.name, msgspec.json.decode(call.body, type=VolumeCall).pool)


async def _put_volume(state: "NodeState", call: Call) -> Volume:
    put = await state.volumes.put(call.name, msgspec.json.decode(call.body, type=VolumeSpec))
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


VOLUME_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "volumes": _volumes,
    "volume": _volume,
    "put_volume": _put_volume,
    "delete_volume": _delete_volume,
    "take_snapshot": _take_snapshot,
    "delete_snapshot": _delete_snapshot,
    "roll_back_volume": _roll_back_volume,
}
