"""The node daemon's verbs for disks, pools and long work."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from core0.node.operations import listing
from core0.wire.config import ConfigCall, ConfigStatus
from core0.wire.control import Call, Refusal, RefusedError
from core0.wire.operations import Operation, Operations
from core0.wire.storage import (
    Destruction,
    Disk,
    Disks,
    Passphrase,
    Pool,
    Pools,
    PoolSpec,
    RecoveryKey,
    Replacement,
    Reset,
)
from core0.wire.storage_calls import DiskCall, EraseCall, OperationQuery, PoolQuery

if TYPE_CHECKING:
    from core0.node.verbs import NodeState

T = TypeVar("T")
_LONGEST_WAIT = 60.0


async def _operations(state: "NodeState", _: Call) -> Operations:
    return listing(state.operations)


async def _operation(state: "NodeState", call: Call) -> Operation:
    query = msgspec.json.decode(call.body, type=OperationQuery)
    return await state.operations.wait(query.id, min(query.wait, _LONGEST_WAIT))


async def _cancel_operation(state: "NodeState", call: Call) -> Operation:
    return await state.operations.cancel(msgspec.json.decode(call.body, type=OperationQuery).id)


async def _disks(state: "NodeState", _: Call) -> Disks:
    await state.disks.book.wait_listed()
    return Disks(state.disks.book.disks())


async def _disk(state: "NodeState", call: Call) -> Disk:
    wanted = msgspec.json.decode(call.body, type=DiskCall)

    async def find() -> Disk:
        return state.disks.book.disk(wanted.disk)

    return await _once_found(state, find)


async def _claim_disk(state: "NodeState", call: Call) -> Disk:
    wanted = msgspec.json.decode(call.body, type=DiskCall)
    return await _once_found(state, lambda: _told(state.disks.claims.claim(wanted.disk, wanted.claim)))


async def _adopt_disk(state: "NodeState", call: Call) -> Disk:
    wanted = msgspec.json.decode(call.body, type=DiskCall)
    return await _once_found(state, lambda: state.disks.claims.adopt(wanted.disk))


async def _pools(state: "NodeState", _: Call) -> Pools:
    return Pools(state.disks.book.pools())


async def _pool(state: "NodeState", call: Call) -> Pool:
    query = msgspec.json.decode(call.body, type=PoolQuery)
    return await state.disks.wait_pool(call.name, min(query.wait, _LONGEST_WAIT))


async def _put_pool(state: "NodeState", call: Call) -> Pool:
    spec = msgspec.json.decode(call.body, type=PoolSpec)
    return await _once_found(state, lambda: state.disks.put_pool(call.name, spec, new=call.new))


async def _unlock_pool(state: "NodeState", call: Call) -> Pool:
    return state.disks.unlock(call.name, msgspec.json.decode(call.body, type=Passphrase).passphrase)


async def _recovery_key(state: "NodeState", call: Call) -> RecoveryKey:
    shown = RecoveryKey(state.disks.recovery_key(call.name))
    state.events("storage", call.name, "Its recovery key was shown")
    return shown


async def _scrub_pool(state: "NodeState", call: Call) -> Operation:
    return state.disks.works.scrub(call.name)


async def _replace_disk(state: "NodeState", call: Call) -> Operation:
    wanted = msgspec.json.decode(call.body, type=Replacement)

    async def start() -> Operation:
        return state.disks.works.replace(call.name, wanted)

    return await _once_found(state, start)


async def _destroy_pool(state: "NodeState", call: Call) -> None:
    wanted = msgspec.json.decode(call.body, type=Destruction)
    state.volumes.refuse_used(call.name, f"destroy pool {call.name}")
    await state.let_go_of_pools()
    await _told(state.disks.works.destroy_pool(call.name, wanted.id))
    state.volumes.forget(call.name)


async def _erase_disk(state: "NodeState", call: Call) -> Operation:
    wanted = msgspec.json.decode(call.body, type=EraseCall)

    async def start() -> Operation:
        return state.disks.works.erase(wanted.disk, wanted.request)

    return await _once_found(state, start)


async def _reset(state: "NodeState", call: Call) -> None:
    if msgspec.json.decode(call.body, type=Reset).fingerprint != state.fingerprint:
        detail = "cannot reset the node: the fingerprint is another node's"
        raise RefusedError(Refusal(409, "conflict", detail, "see 'zn node show'", "/fingerprint"))
    state.volumes.refuse_used(None, "reset the node")
    await state.let_go_of_pools()
    await _told(state.disks.works.reset())
    state.volumes.forget(None)


async def _config(state: "NodeState", _: Call) -> ConfigStatus:
    return state.configs.status()


async def _put_config(state: "NodeState", call: Call) -> ConfigStatus:
    wanted = msgspec.json.decode(call.body, type=ConfigCall)
    return await state.configs.put(wanted.config, wanted.trial)


async def _confirm_config(state: "NodeState", _: Call) -> ConfigStatus:
    return await state.configs.confirm()


async def _once_found(state: "NodeState", work: Callable[[], Awaitable[T]]) -> T:
    """Do what names disks: right after the boot a refusal counts only when its disks were found and looked at."""
    while True:
        try:
            return await work()
        except RefusedError:
            if not await state.disks.book.wait_found():
                raise


async def _told(work: Awaitable[T]) -> T:
    """What a disk refuses is no defect of the node: it is told to who asked."""
    try:
        return await work
    except OSError as error:
        raise RefusedError(Refusal(409, "conflict", str(error.strerror or error))) from None


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
    "recovery_key": _recovery_key,
    "scrub_pool": _scrub_pool,
    "replace_disk": _replace_disk,
    "destroy_pool": _destroy_pool,
    "erase_disk": _erase_disk,
    "reset": _reset,
    "config": _config,
    "put_config": _put_config,
    "confirm_config": _confirm_config,
}
