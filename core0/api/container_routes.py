"""The routes of containers that run."""

import msgspec

from core0.api.daemon import Daemon
from core0.api.routes import OPERATOR, ByName, accepted
from core0.api.streams import pieces_of
from core0.wire.control import ContainerQuery
from core0.wire.image_store import Commit
from core0.wire.operations import Operation
from core0.wire.types import Container, ContainerName, ContainerStats, Limits, Rename
from corex.http import problem
from corex.http.routes import NoBody, Reply, Request, Route, Stream


class JustName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which container."""

    name: ContainerName


async def _limit(request: Request[Daemon, ByName, Limits]) -> Reply[Container]:
    await request.context.call("limit_container", Container, name=request.parameters.name, body=request.body)
    return await accepted(request.context, request.parameters)


async def _end(request: Request[Daemon, ByName, NoBody]) -> Container:
    which = request.parameters
    return await request.context.call(
        "container_end", Container, name=which.name, body=ContainerQuery(which.wait)
    )


async def _stats(request: Request[Daemon, JustName, NoBody]) -> ContainerStats:
    return await request.context.call("container_stats", ContainerStats, name=request.parameters.name)


async def _pause(request: Request[Daemon, ByName, NoBody]) -> Reply[Container]:
    await request.context.call("pause_container", Container, name=request.parameters.name)
    return await accepted(request.context, request.parameters)


async def _resume(request: Request[Daemon, ByName, NoBody]) -> Reply[Container]:
    await request.context.call("resume_container", Container, name=request.parameters.name)
    return await accepted(request.context, request.parameters)


async def _rename(request: Request[Daemon, JustName, Rename]) -> Container:
    which = request.parameters
    return await request.context.call("rename_container", Container, name=which.name, body=request.body)


async def _commit(request: Request[Daemon, JustName, Commit]) -> Reply[Operation]:
    which = request.parameters
    begun = await request.context.call("commit_container", Operation, name=which.name, body=request.body)
    return Reply(begun, 202, {"Location": f"/v1/operations/{begun.id}"})


async def _export(request: Request[Daemon, JustName, NoBody]) -> Stream:
    if request.raw.method == "HEAD":
        raise problem.METHOD_NOT_ALLOWED("cannot tell a stream's head without making it", remedy="use GET")
    reader, writer = await request.context.open("export_container", name=request.parameters.name)
    return Stream(_TAR, pieces_of(reader, writer))


_TAR = "application/x-tar"
_NAME = "/v1/containers/{name}"
_ERRORS = (problem.NOT_FOUND, problem.CONFLICT)

CONTAINER_ROUTES = (
    Route(
        "GET",
        f"{_NAME}/end",
        OPERATOR,
        "One container, once it does not run",
        _end,
        parameters=ByName,
        response=Container,
        errors=(problem.NOT_FOUND,),
    ),
    Route(
        "GET",
        f"{_NAME}/stats",
        OPERATOR,
        "What a container uses",
        _stats,
        parameters=JustName,
        response=ContainerStats,
        errors=_ERRORS,
    ),
    Route(
        "POST",
        f"{_NAME}/rename",
        OPERATOR,
        "Call a container that does not run something else",
        _rename,
        parameters=JustName,
        request=Rename,
        response=Container,
        errors=_ERRORS,
    ),
    Route(
        "GET",
        f"{_NAME}/export",
        OPERATOR,
        "The files of a container that runs, as a tar",
        _export,
        parameters=JustName,
        errors=_ERRORS,
        streams=(_TAR,),
    ),
    Route(
        "POST",
        f"{_NAME}/commit",
        OPERATOR,
        "Make an image of the node of a container that runs, which is halted meanwhile",
        _commit,
        parameters=JustName,
        request=Commit,
        response=Operation,
        status=202,
        errors=_ERRORS,
    ),
    Route(
        "PUT",
        f"{_NAME}/limits",
        OPERATOR,
        "Give a container other limits; one that runs goes on with them",
        _limit,
        parameters=ByName,
        request=Limits,
        response=Container,
        status=202,
        errors=_ERRORS,
    ),
    Route(
        "POST",
        f"{_NAME}/pause",
        OPERATOR,
        "Halt a container's processes where they are",
        _pause,
        parameters=ByName,
        response=Container,
        status=202,
        errors=_ERRORS,
    ),
    Route(
        "POST",
        f"{_NAME}/resume",
        OPERATOR,
        "Let a paused container's processes go on",
        _resume,
        parameters=ByName,
        response=Container,
        status=202,
        errors=_ERRORS,
    ),
)
