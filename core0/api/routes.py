"""The routes that a boot waits for; the others are in modules of their own (core0.api.table)."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from core0.api.daemon import Daemon
from core0.wire.control import ContainerQuery, EventsQuery
from core0.wire.types import (
    Boot,
    Container,
    ContainerName,
    Containers,
    ContainerSpec,
    Events,
    Health,
    Node,
    PowerRequest,
)
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Reply, Request, Route

OPERATOR = "operator"

Seconds = Annotated[float, msgspec.Meta(ge=0, le=60)]


class ByName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which container, and how long to wait until it has settled."""

    name: ContainerName
    wait: Seconds = 0.0


class ToPut(ByName, frozen=True, forbid_unknown_fields=True):
    """The same; with `new`, it is a conflict if one that is there would have to be changed."""

    new: bool = False


class Labelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only those with labels: `key` or `key=value`, and commas between several."""

    label: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class After(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events behind a cursor, waiting up to `wait` seconds for the first."""

    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    wait: Seconds = 0.0


async def _node(request: Request[Daemon, NoParameters, NoBody]) -> Node:
    return await request.context.call("node", Node)


async def _health(request: Request[Daemon, NoParameters, NoBody]) -> Health:
    return await request.context.call("health", Health)


async def _boot(request: Request[Daemon, NoParameters, NoBody]) -> Boot:
    return await request.context.call("boot", Boot)


async def _events(request: Request[Daemon, After, NoBody]) -> Events:
    query = EventsQuery(request.parameters.after, request.parameters.wait)
    return await request.context.call("events", Events, body=query)


async def _containers(request: Request[Daemon, Labelled, NoBody]) -> Containers:
    found = await request.context.call("containers", Containers)
    wanted = [label.partition("=") for label in request.parameters.label.split(",") if label]
    return Containers(tuple(one for one in found.containers if _has_labels(one, wanted)))


def _has_labels(container: Container, wanted: Sequence[tuple[str, str, str]]) -> bool:
    has = container.spec.labels
    return all(key in has and (not equals or has[key] == value) for key, equals, value in wanted)


async def _container(request: Request[Daemon, ByName, NoBody]) -> Container:
    return await _settled(request.context, request.parameters, traffic=True)


async def _put_container(request: Request[Daemon, ToPut, ContainerSpec]) -> Reply[Container]:
    which = request.parameters
    await request.context.call("put_container", Container, name=which.name, body=request.body, new=which.new)
    return await accepted(request.context, request.parameters)


async def _start_container(request: Request[Daemon, ByName, NoBody]) -> Reply[Container]:
    await request.context.call("start_container", Container, name=request.parameters.name)
    return await accepted(request.context, request.parameters)


async def _stop_container(request: Request[Daemon, ByName, NoBody]) -> Reply[Container]:
    await request.context.call("stop_container", Container, name=request.parameters.name)
    return await accepted(request.context, request.parameters)


async def _delete_container(request: Request[Daemon, ByName, NoBody]) -> None:
    await request.context.call("delete_container", type(None), name=request.parameters.name)


async def _power(request: Request[Daemon, NoParameters, PowerRequest]) -> None:
    await request.context.call("power", type(None), body=request.body)


async def _settled(daemon: Daemon, which: ByName, *, traffic: bool = False) -> Container:
    query = ContainerQuery(which.wait, traffic)
    return await daemon.call("container", Container, name=which.name, body=query)


async def accepted(daemon: Daemon, which: ByName) -> Reply[Container]:
    """202 while the work goes on, 200 once it has ended within the wait that was asked for."""
    container = await _settled(daemon, which)
    status = 200 if container.state in ("running", "paused", "stopped") else 202
    return Reply(container, status, {"Location": f"/v1/containers/{which.name}"})


_ABSENT = (problem.NOT_FOUND,)
_NAME = "/v1/containers/{name}"

ROUTES = (
    Route("GET", "/v1/node", OPERATOR, "What this node is", _node, response=Node),
    Route("GET", "/v1/health", OPERATOR, "Whether the node can do its work", _health, response=Health),
    Route("GET", "/v1/boot", OPERATOR, "How this boot went", _boot, response=Boot),
    Route("GET", "/v1/events", OPERATOR, "What happened", _events, parameters=After, response=Events),
    Route(
        "GET",
        "/v1/containers",
        OPERATOR,
        "All containers",
        _containers,
        parameters=Labelled,
        response=Containers,
    ),
    Route(
        "GET",
        _NAME,
        OPERATOR,
        "One container",
        _container,
        parameters=ByName,
        response=Container,
        errors=_ABSENT,
    ),
    Route(
        "PUT",
        _NAME,
        OPERATOR,
        "Have a container as the spec says, running",
        _put_container,
        parameters=ToPut,
        request=ContainerSpec,
        response=Container,
        status=202,
        errors=(problem.CONFLICT,),
    ),
    Route(
        "DELETE",
        _NAME,
        OPERATOR,
        "Stop and remove a container with its files",
        _delete_container,
        parameters=ByName,
        status=202,
        errors=_ABSENT,
    ),
    Route(
        "POST",
        f"{_NAME}/start",
        OPERATOR,
        "Start a stopped container",
        _start_container,
        parameters=ByName,
        response=Container,
        status=202,
        errors=_ABSENT,
    ),
    Route(
        "POST",
        f"{_NAME}/stop",
        OPERATOR,
        "Stop a container",
        _stop_container,
        parameters=ByName,
        response=Container,
        status=202,
        errors=_ABSENT,
    ),
    Route("POST", "/v1/power", OPERATOR, "Reboot or power off", _power, request=PowerRequest, status=202),
)
