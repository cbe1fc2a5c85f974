"""The routes of volumes and their snapshots."""

from typing import Annotated

import msgspec

from core0.api.daemon import Daemon, settle
from core0.api.streams import pieces_of, upload
from core0.wire.operations import OperationId
from core0.wire.storage import PoolName
from core0.wire.volume_calls import (
    ExportCall,
    FeedCall,
    ImportCall,
    ImportQuery,
    SnapshotCall,
    VolumeCall,
    VolumeDeletion,
)
from core0.wire.volumes import (
    Import,
    ImportRequest,
    Rollback,
    Sha256OrNone,
    SnapshotName,
    Volume,
    VolumeName,
    Volumes,
    VolumeSpec,
)
from corex.http import problem
from corex.http.routes import OCTETS, NoBody, NoParameters, Reply, Request, Route, Stream, Upload

_OPERATOR = "operator"
# Seconds that what came may take to become a snapshot before the answer says that it is still coming.
_SETTLE = 60.0

Offset = Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]


class ByVolume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which volume; the pool is needed only if two pools have one of that name."""

    name: VolumeName
    pool: PoolName | None = None


class VolumeToPut(ByVolume, frozen=True, forbid_unknown_fields=True):
    """The same; with `new`, it is a conflict if one that is there would have to be changed."""

    new: bool = False


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


class ByExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which snapshot, from which earlier one on, and what the caller has of the stream: how much, its SHA-256."""

    name: VolumeName
    snapshot: SnapshotName
    base: SnapshotName | None = None
    offset: Offset = 0
    sha256: Sha256OrNone = ""
    pool: PoolName | None = None


class ByImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which import, and how long to wait for its end."""

    operation: OperationId
    wait: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0


class ByImportStream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which import, and the place of the body's first byte in the stream."""

    operation: OperationId
    offset: Offset = 0


async def _volumes(request: Request[Daemon, NoParameters, NoBody]) -> Volumes:
    return await request.context.call("volumes", Volumes)


async def _volume(request: Request[Daemon, ByVolume, NoBody]) -> Volume:
    which = request.parameters
    return await request.context.call("volume", Volume, name=which.name, body=VolumeCall(which.pool))


async def _put_volume(request: Request[Daemon, VolumeToPut, VolumeSpec]) -> Volume:
    which, spec = request.parameters, request.body
    if which.pool not in (None, spec.pool):
        said = f"cannot put a volume on pool {spec.pool}: the query names {which.pool}"
        raise problem.INVALID(said, remedy="name the pool in the body only", pointer="/pool")
    return await request.context.call("put_volume", Volume, name=which.name, body=spec, new=which.new)


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


async def _export(request: Request[Daemon, ByExport, NoBody]) -> Stream:
    which = request.parameters
    if request.raw.method == "HEAD":
        raise problem.METHOD_NOT_ALLOWED("cannot tell a stream's head without making it", remedy="use GET")
    wanted = ExportCall(which.snapshot, which.base, which.offset, which.sha256, which.pool)
    reader, writer = await request.context.open("export_snapshot", name=which.name, body=wanted)
    return Stream(OCTETS, pieces_of(reader, writer))


async def _begin_import(request: Request[Daemon, ByVolume, ImportRequest]) -> Reply[Import]:
    which = request.parameters
    wanted = ImportCall(request.body, which.pool)
    begun = await request.context.call("begin_import", Import, name=which.name, body=wanted)
    return Reply(begun, 202, {"Location": f"/v1/imports/{begun.operation}"})


async def _import(request: Request[Daemon, ByImport, NoBody]) -> Import:
    query = ImportQuery(request.parameters.operation, request.parameters.wait)
    return await request.context.call("import", Import, body=query)


async def _feed_import(request: Request[Daemon, ByImportStream, Upload]) -> Import:
    which = request.parameters
    reader, writer = await request.context.open("feed_import", body=FeedCall(which.operation, which.offset))
    settle(await upload(request.raw, reader, writer))
    return await request.context.call("import", Import, body=ImportQuery(which.operation, _SETTLE))


_CHANGE = (problem.NOT_FOUND, problem.CONFLICT, problem.UNAVAILABLE, problem.FULL)
_VOLUME = "/v1/volumes/{name}"
_IMPORT = "/v1/imports/{operation}"
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
        parameters=VolumeToPut,
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
    Route(
        "GET",
        f"{_SNAPSHOT}/stream",
        _OPERATOR,
        "Export a snapshot as a btrfs stream, all of it or what differs from an earlier one",
        _export,
        parameters=ByExport,
        errors=_CHANGE,
        streams=(OCTETS,),
    ),
    Route(
        "POST",
        f"{_VOLUME}/import",
        _OPERATOR,
        "Get ready for a stream; the same again finds where to go on",
        _begin_import,
        parameters=ByVolume,
        request=ImportRequest,
        response=Import,
        status=202,
        errors=_CHANGE,
    ),
    Route(
        "GET",
        _IMPORT,
        _OPERATOR,
        "A stream that comes, or came",
        _import,
        parameters=ByImport,
        response=Import,
        errors=(problem.NOT_FOUND,),
    ),
    Route(
        "PUT",
        f"{_IMPORT}/stream",
        _OPERATOR,
        "Bytes of a stream, from an offset to its end",
        _feed_import,
        parameters=ByImportStream,
        request=Upload,
        response=Import,
        errors=_CHANGE,
    ),
)
