"""The routes of containers that run."""

import msgspec

from core0.api.daemon import Daemon
from core0.api.routes import OPERATOR, ByName, accepted
from core0.wire.control import ContainerQuery
from core0.wire.types import Container, ContainerName, ContainerStats, Limits
from corex.http import problem
from corex.http.routes import NoBody, Reply, Request, Route


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
