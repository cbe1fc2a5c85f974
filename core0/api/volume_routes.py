"""The routes of volumes and their snapshots."""

import msgspec

from core0.api.daemon import Daemon
from core0.wire.storage import PoolName
from core0.wire.volume_calls import SnapshotCall, VolumeCall, VolumeDeletion
from core0.wire.volumes import Rollback, SnapshotName, Volume, VolumeName, Volumes, VolumeSpec
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Request, Route

_OPERATOR = "operator"


class ByVolume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which volume; the pool is needed only if two pools have one of that name."""

    name: VolumeName
    pool: PoolName | None = None


class ByVolumeToDelete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which volume, and whether its snapshots go with it."""

    name: VolumeName
    pool: PoolName | None = None
    snapshots: bool = False


class BySnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which snapshot of which volume."""

    name: VolumeName
    snapshot: SnapshotName
    pool: PoolName | None = None


async def _volumes(request: Request[Daemon, NoParameters, NoBody]) -> Volumes:
    return await request.context.call("volumes", Volumes)


async def _volume(request: Request[Daemon, ByVolume, NoBody]) -> Volume:
    which = request.parameters
    return await request.context.call("volume", Volume, name=which.name, body=VolumeCall(which.pool))


async def _put_volume(request: Request[Daemon, ByVolume, VolumeSpec]) -> Volume:
    which, spec = request.parameters, request.body
    if which.pool not in (None, spec.pool):
        said = f"cannot put a volume on pool {spec.pool}: the query names {which.pool}"
        raise problem.INVALID(said, remedy="name the pool in the body only", pointer="/pool")
    return await request.context.call("put_volume", Volume, name=which.name, body=spec)


async def _delete_volume(request: Request[Daemon, ByVolumeToDelete, NoBody]) -> None:
    which = request.parameters
    wanted = VolumeDeletion(which.pool, which.snapshots)
    await request.context.call("delete_volume", type(None), name=which.name, body=wanted)


async def _take_snapshot(request: Request[Daemon, BySnapshot, NoBody]) -> Volume:
    which = request.parameters
    wanted = SnapshotCall(which.snapshot, which.pool)
    return await request.context.call("take_snapshot", Volume, name=which.name, body=wanted)


async def _delete_snapshot(request: Request[Daemon, BySnapshot, NoBody]) -> None:
    which = request.parameters
    wanted = SnapshotCall(which.snapshot, which.pool)
    await request.context.call("delete_snapshot", type(None), name=which.name, body=wanted)


async def _roll_back(request: Request[Daemon, ByVolume, Rollback]) -> Volume:
    which = request.parameters
    wanted = SnapshotCall(request.body.snapshot, which.pool)
    return await request.context.call("roll_back_volume", Volume, name=which.name, body=wanted)


_CHANGE = (problem.NOT_FOUND, problem.CONFLICT, problem.UNAVAILABLE, problem.FULL)
_VOLUME = "/v1/volumes/{name}"
_SNAPSHOT = f"{_VOLUME}/snapshots/{{snapshot}}"

VOLUME_ROUTES = (
    Route("GET", "/v1/volumes", _OPERATOR, "All volumes", _volumes, response=Volumes),
    Route(
        "GET",
        _VOLUME,
        _OPERATOR,
        "One volume",
        _volume,
        parameters=ByVolume,
        response=Volume,
        errors=(problem.NOT_FOUND, problem.CONFLICT),
    ),
    Route(
        "PUT",
        _VOLUME,
        _OPERATOR,
        "Have a volume as the spec says: make or clone it, or give it another size or other limits",
        _put_volume,
        parameters=ByVolume,
        request=VolumeSpec,
        response=Volume,
        errors=_CHANGE,
    ),
    Route(
        "DELETE",
        _VOLUME,
        _OPERATOR,
        "Delete a volume with everything in it",
        _delete_volume,
        parameters=ByVolumeToDelete,
        errors=_CHANGE,
    ),
    Route(
        "PUT",
        _SNAPSHOT,
        _OPERATOR,
        "Have a snapshot: one that is there is left as it is",
        _take_snapshot,
        parameters=BySnapshot,
        response=Volume,
        errors=_CHANGE,
    ),
    Route(
        "DELETE",
        _SNAPSHOT,
        _OPERATOR,
        "Delete a snapshot",
        _delete_snapshot,
        parameters=BySnapshot,
        errors=_CHANGE,
    ),
    Route(
        "POST",
        f"{_VOLUME}/rollback",
        _OPERATOR,
        "Give a volume a snapshot's content; what was written since is lost",
        _roll_back,
        parameters=ByVolume,
        request=Rollback,
        response=Volume,
        errors=_CHANGE,
    ),
)
