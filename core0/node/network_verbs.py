"""The node daemon's verbs for networks of containers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import Call
from core0.wire.networks import Network, Networks, NetworkSpec

if TYPE_CHECKING:
    from core0.node.verbs import NodeState


async def _networks(state: "NodeState", _: Call) -> Networks:
    return Networks(state.networks.list())


async def _network(state: "NodeState", call: Call) -> Network:
    return state.networks.get(call.name)


async def _put_network(state: "NodeState", call: Call) -> Network:
    spec = msgspec.json.decode(call.body, type=NetworkSpec)
    return await state.networks.put(call.name, spec, new=call.new)


async def _delete_network(state: "NodeState", call: Call) -> None:
    await state.networks.delete(call.name)


async def _prepare_mesh_key(state: "NodeState", call: Call) -> Network:
    state.networks.get(call.name)
    await state.meshes.prepare_key(call.name)
    return state.networks.get(call.name)


async def _activate_mesh_key(state: "NodeState", call: Call) -> Network:
    state.networks.get(call.name)
    await state.meshes.activate_key(call.name)
    return state.networks.get(call.name)


NETWORK_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "networks": _networks,
    "network": _network,
    "put_network": _put_network,
    "delete_network": _delete_network,
    "prepare_mesh_key": _prepare_mesh_key,
    "activate_mesh_key": _activate_mesh_key,
}
