"""The routes of disks, pools and long work."""

from typing import Annotated

import msgspec

from core0.api.daemon import Daemon
from core0.wire.config import ConfigCall, ConfigStatus, NodeConfig, TrialSeconds
from core0.wire.operations import Operation, OperationId, Operations
from core0.wire.storage import (
    Claim,
    Destruction,
    Disk,
    DiskName,
    Disks,
    EraseRequest,
    Passphrase,
    Pool,
    PoolName,
    Pools,
    PoolSpec,
    RecoveryKey,
    Replacement,
    Reset,
)
from core0.wire.storage_calls import DiskCall, EraseCall, OperationQuery, PoolQuery
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Reply, Request, Route

_OPERATOR = "operator"

Seconds = Annotated[float, msgspec.Meta(ge=0, le=60)]


class ByOperation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which operation, and how long to wait for its end."""

    operation: OperationId
    wait: Seconds = 0.0


class ByDisk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which disk: its id, or its serial number."""

    disk: DiskName


class ByPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which pool, and how long to wait until it serves or has failed."""

    name: PoolName
    wait: Seconds = 0.0


class PoolToPut(ByPool, frozen=True, forbid_unknown_fields=True):
    """The same; with `new`, it is a conflict if one that is there would have to be changed."""

    new: bool = False


async def _operations(request: Request[Daemon, NoParameters, NoBody]) -> Operations:
    return await request.context.call("operations", Operations)


async def _operation(request: Request[Daemon, ByOperation, NoBody]) -> Operation:
    query = OperationQuery(request.parameters.operation, request.parameters.wait)
    return await request.context.call("operation", Operation, body=query)


async def _cancel_operation(request: Request[Daemon, ByOperation, NoBody]) -> Operation:
    query = OperationQuery(request.parameters.operation)
    return await request.context.call("cancel_operation", Operation, body=query)


async def _disks(request: Request[Daemon, NoParameters, NoBody]) -> Disks:
    return await request.context.call("disks", Disks)


async def _disk(request: Request[Daemon, ByDisk, NoBody]) -> Disk:
    return await request.context.call("disk", Disk, body=DiskCall(request.parameters.disk))


async def _claim_disk(request: Request[Daemon, ByDisk, Claim]) -> Disk:
    wanted = DiskCall(request.parameters.disk, request.body)
    return await request.context.call("claim_disk", Disk, body=wanted)


async def _adopt_disk(request: Request[Daemon, ByDisk, NoBody]) -> Disk:
    return await request.context.call("adopt_disk", Disk, body=DiskCall(request.parameters.disk))


async def _pools(request: Request[Daemon, NoParameters, NoBody]) -> Pools:
    return await request.context.call("pools", Pools)


async def _pool(request: Request[Daemon, ByPool, NoBody]) -> Pool:
    return await _settled(request.context, request.parameters)


async def _put_pool(request: Request[Daemon, PoolToPut, PoolSpec]) -> Reply[Pool]:
    which = request.parameters
    await request.context.call("put_pool", Pool, name=which.name, body=request.body, new=which.new)
    return await _accepted(request.context, request.parameters)


async def _unlock_pool(request: Request[Daemon, ByPool, Passphrase]) -> Reply[Pool]:
    await request.context.call("unlock_pool", Pool, name=request.parameters.name, body=request.body)
    return await _accepted(request.context, request.parameters)


async def _recovery_key(request: Request[Daemon, ByPool, NoBody]) -> RecoveryKey:
    return await request.context.call("recovery_key", RecoveryKey, name=request.parameters.name)


async def _scrub_pool(request: Request[Daemon, ByPool, NoBody]) -> Reply[Operation]:
    found = await request.context.call("scrub_pool", Operation, name=request.parameters.name)
    return _started(found)


class ConfigToPut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds to try a config's links: unless it is confirmed by then, the node goes back."""

    trial: TrialSeconds | None = None


async def _replace_disk(request: Request[Daemon, ByPool, Replacement]) -> Reply[Operation]:
    name = request.parameters.name
    return _started(await request.context.call("replace_disk", Operation, name=name, body=request.body))


async def _destroy_pool(request: Request[Daemon, ByPool, Destruction]) -> None:
    name = request.parameters.name
    await request.context.call("destroy_pool", type(None), name=name, body=request.body)


async def _erase_disk(request: Request[Daemon, ByDisk, EraseRequest]) -> Reply[Operation]:
    wanted = EraseCall(request.parameters.disk, request.body)
    return _started(await request.context.call("erase_disk", Operation, body=wanted))


async def _reset(request: Request[Daemon, NoParameters, Reset]) -> None:
    await request.context.call("reset", type(None), body=request.body)


async def _config(request: Request[Daemon, NoParameters, NoBody]) -> ConfigStatus:
    return await request.context.call("config", ConfigStatus)


async def _put_config(request: Request[Daemon, ConfigToPut, NodeConfig]) -> ConfigStatus:
    wanted = ConfigCall(request.body, request.parameters.trial)
    return await request.context.call("put_config", ConfigStatus, body=wanted)


async def _confirm_config(request: Request[Daemon, NoParameters, NoBody]) -> ConfigStatus:
    return await request.context.call("confirm_config", ConfigStatus)


def _started(operation: Operation) -> Reply[Operation]:
    return Reply(operation, 202, {"Location": f"/v1/operations/{operation.id}"})


async def _settled(daemon: Daemon, which: ByPool) -> Pool:
    return await daemon.call("pool", Pool, name=which.name, body=PoolQuery(which.wait))


async def _accepted(daemon: Daemon, which: ByPool) -> Reply[Pool]:
    """202 while the work goes on, 200 once the pool serves."""
    pool = await _settled(daemon, which)
    status = 200 if pool.state in ("online", "degraded") else 202
    return Reply(pool, status, {"Location": f"/v1/pools/{which.name}"})


_ABSENT = (problem.NOT_FOUND,)
_EITHER = (problem.NOT_FOUND, problem.CONFLICT)
_OPERATION, _DISK, _POOL = "/v1/operations/{operation}", "/v1/disks/{disk}", "/v1/pools/{name}"

STORAGE_ROUTES = (
    Route("GET", "/v1/operations", _OPERATOR, "Long work", _operations, response=Operations),
    Route(
        "GET",
        _OPERATION,
        _OPERATOR,
        "One piece of long work",
        _operation,
        parameters=ByOperation,
        response=Operation,
        errors=_ABSENT,
    ),
    Route(
        "DELETE",
        _OPERATION,
        _OPERATOR,
        "Ask long work to end",
        _cancel_operation,
        parameters=ByOperation,
        response=Operation,
        errors=_ABSENT,
    ),
    Route("GET", "/v1/disks", _OPERATOR, "All disks", _disks, response=Disks),
    Route("GET", _DISK, _OPERATOR, "One disk", _disk, parameters=ByDisk, response=Disk, errors=_EITHER),
    Route(
        "POST",
        f"{_DISK}/claim",
        _OPERATOR,
        "Give a disk to the node; what it holds is destroyed if the claim names it",
        _claim_disk,
        parameters=ByDisk,
        request=Claim,
        response=Disk,
        errors=_EITHER,
    ),
    Route(
        "POST",
        f"{_DISK}/adopt",
        _OPERATOR,
        "Take over a disk of another node with what it holds",
        _adopt_disk,
        parameters=ByDisk,
        response=Disk,
        errors=_EITHER,
    ),
    Route("GET", "/v1/pools", _OPERATOR, "All pools", _pools, response=Pools),
    Route("GET", _POOL, _OPERATOR, "One pool", _pool, parameters=ByPool, response=Pool, errors=_ABSENT),
    Route(
        "PUT",
        _POOL,
        _OPERATOR,
        "Have a pool as the spec says",
        _put_pool,
        parameters=PoolToPut,
        request=PoolSpec,
        response=Pool,
        status=202,
        errors=(problem.CONFLICT,),
    ),
    Route(
        "POST",
        f"{_POOL}/unlock",
        _OPERATOR,
        "Give the passphrase of an encrypted pool, until the node ends",
        _unlock_pool,
        parameters=ByPool,
        request=Passphrase,
        response=Pool,
        status=202,
        errors=_ABSENT,
    ),
    Route(
        "POST",
        f"{_POOL}/recovery-key",
        _OPERATOR,
        "Show the key that the machine's TPM keeps for a pool",
        _recovery_key,
        parameters=ByPool,
        response=RecoveryKey,
        errors=(problem.NOT_FOUND, problem.CONFLICT),
    ),
    Route(
        "POST",
        f"{_POOL}/scrub",
        _OPERATOR,
        "Read all of a pool and correct what can be corrected",
        _scrub_pool,
        parameters=ByPool,
        response=Operation,
        status=202,
        errors=_EITHER,
    ),
    Route(
        "POST",
        f"{_POOL}/replace",
        _OPERATOR,
        "Rebuild a disk of a pool on another one",
        _replace_disk,
        parameters=ByPool,
        request=Replacement,
        response=Operation,
        status=202,
        errors=_EITHER,
    ),
    Route(
        "POST",
        f"{_POOL}/destroy",
        _OPERATOR,
        "Destroy a pool and everything in it; its disks are free afterwards",
        _destroy_pool,
        parameters=ByPool,
        request=Destruction,
        errors=_EITHER,
    ),
    Route(
        "POST",
        f"{_DISK}/erase",
        _OPERATOR,
        "Erase a disk for good",
        _erase_disk,
        parameters=ByDisk,
        request=EraseRequest,
        response=Operation,
        status=202,
        errors=_EITHER,
    ),
    Route(
        "POST",
        "/v1/reset",
        _OPERATOR,
        "End every pool and every claim of this node",
        _reset,
        request=Reset,
        errors=(problem.CONFLICT,),
    ),
    Route("GET", "/v1/config", _OPERATOR, "The config in force", _config, response=ConfigStatus),
    Route(
        "PUT",
        "/v1/config",
        _OPERATOR,
        "Give the node a config; what it does not mention any more is never destroyed",
        _put_config,
        parameters=ConfigToPut,
        request=NodeConfig,
        response=ConfigStatus,
        errors=(problem.CONFLICT,),
    ),
    Route(
        "POST",
        "/v1/config/confirm",
        _OPERATOR,
        "Keep the config that is on trial",
        _confirm_config,
        response=ConfigStatus,
        errors=(problem.CONFLICT,),
    ),
)
