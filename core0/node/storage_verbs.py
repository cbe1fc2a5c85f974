"""The node daemon's verbs for disks, pools and long work."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.node.operations import listing
from core0.wire.control import Call, DiskCall, OperationQuery, PoolQuery
from core0.wire.operations import Operation, Operations
from core0.wire.storage import Disk, Disks, Passphrase, Pool, Pools, PoolSpec

if TYPE_CHECKING:
    from core0.node.verbs import NodeState

_LONGEST_WAIT = 60.0


async def _operations(state: "NodeState", _: Call) -> Operations:
    return listing(state.operations)


async def _operation(state: "NodeState", call: Call) -> Operation:
    query = msgspec.json.decode(call.body, type=OperationQuery)
    return await state.operations.wait(query.id, min(query.wait, _LONGEST_WAIT))


async def _cancel_operation(state: "NodeState", call: Call) -> Operation:
    return await state.operations.cancel(msgspec.json.decode(call.body, type=OperationQuery).id)


async def _disks(state: "NodeState", _: Call) -> Disks:
    return Disks(state.disks.disks())


async def _disk(state: "NodeState", call: Call) -> Disk:
    return state.disks.disk(msgspec.json.decode(call.body, type=DiskCall).disk)


async def _claim_disk(state: "NodeState", call: Call) -> Disk:
    wanted = msgspec.json.decode(call.body, type=DiskCall)
    return await state.disks.claim(wanted.disk, wanted.claim)


async def _adopt_disk(state: "NodeState", call: Call) -> Disk:
    return await state.disks.adopt(msgspec.json.decode(call.body, type=DiskCall).disk)


async def _pools(state: "NodeState", _: Call) -> Pools:
    return Pools(state.disks.pools())


async def _pool(state: "NodeState", call: Call) -> Pool:
    query = msgspec.json.decode(call.body, type=PoolQuery)
    return await state.disks.wait_pool(call.name, min(query.wait, _LONGEST_WAIT))


async def _put_pool(state: "NodeState", call: Call) -> Pool:
    return await state.disks.put_pool(call.name, msgspec.json.decode(call.body, type=PoolSpec))


async def _unlock_pool(state: "NodeState", call: Call) -> Pool:
    return state.disks.unlock(call.name, msgspec.json.decode(call.body, type=Passphrase).passphrase)


STORAGE_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "operations": _operations,
    "operation": _operation,
    "cancel_operation": _cancel_operation,
    "disks": _disks,
    "disk": _disk,
    "claim_disk": _claim_disk,
    "adopt_disk": _adopt_disk,
    "pools": _pools,
    "pool": _pool,
    "put_pool": _put_pool,
    "unlock_pool": _unlock_pool,
}
