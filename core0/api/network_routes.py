"""The routes of containers' networks."""

import msgspec

from core0.api.daemon import Daemon
from core0.api.routes import OPERATOR
from core0.wire.networks import Network, Networks, NetworkSpec
from core0.wire.types import NetworkName
from corex.http import problem
from corex.http.routes import NoBody, NoParameters, Request, Route


class ByNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which network."""

    name: NetworkName


class NetworkToPut(ByNetwork, frozen=True, forbid_unknown_fields=True):
    """The same; with `new`, it is a conflict if one that is there would have to be changed."""

    new: bool = False


async def _networks(request: Request[Daemon, NoParameters, NoBody]) -> Networks:
    return await request.context.call("networks", Networks)


async def _network(request: Request[Daemon, ByNetwork, NoBody]) -> Network:
    return await request.context.call("network", Network, name=request.parameters.name)


async def _put_network(request: Request[Daemon, NetworkToPut, NetworkSpec]) -> Network:
    which = request.parameters
    return await request.context.call(
        "put_network", Network, name=which.name, body=request.body, new=which.new
    )


async def _delete_network(request: Request[Daemon, ByNetwork, NoBody]) -> None:
    await request.context.call("delete_network", type(None), name=request.parameters.name)


async def _prepare_key(request: Request[Daemon, ByNetwork, NoBody]) -> Network:
    return await request.context.call("prepare_mesh_key", Network, name=request.parameters.name)


async def _activate_key(request: Request[Daemon, ByNetwork, NoBody]) -> Network:
    return await request.context.call("activate_mesh_key", Network, name=request.parameters.name)


_CHANGE = (problem.NOT_FOUND, problem.CONFLICT, problem.UNAVAILABLE)
_NETWORK = "/v1/networks/{name}"

NETWORK_ROUTES = (
    Route("GET", "/v1/networks", OPERATOR, "All networks of containers", _networks, response=Networks),
    Route(
        "GET",
        _NETWORK,
        OPERATOR,
        "One network",
        _network,
        parameters=ByNetwork,
        response=Network,
        errors=(problem.NOT_FOUND,),
    ),
    Route(
        "PUT",
        _NETWORK,
        OPERATOR,
        "Have a network as the spec says: make it, or change what its containers may reach",
        _put_network,
        parameters=NetworkToPut,
        request=NetworkSpec,
        response=Network,
        errors=_CHANGE,
    ),
    Route(
        "DELETE",
        _NETWORK,
        OPERATOR,
        "Delete a network that no container is in",
        _delete_network,
        parameters=ByNetwork,
        errors=_CHANGE,
    ),
    Route(
        "POST",
        f"{_NETWORK}/mesh/next-key",
        OPERATOR,
        "Prepare another key of a network's mesh, for its peers to know before it is used; idempotent",
        _prepare_key,
        parameters=ByNetwork,
        response=Network,
        errors=_CHANGE,
    ),
    Route(
        "POST",
        f"{_NETWORK}/mesh/activate-key",
        OPERATOR,
        "Use the key that was prepared, and forget the one before",
        _activate_key,
        parameters=ByNetwork,
        response=Network,
        errors=_CHANGE,
    ),
)
