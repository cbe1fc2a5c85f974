"""The node daemon's verbs for secrets of containers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import Call
from core0.wire.secrets import Secret, Secrets, SecretValue

if TYPE_CHECKING:
    from core0.node.verbs import NodeState


async def _secrets(state: "NodeState", _: Call) -> Secrets:
    return Secrets(state.containers.secrets())


async def _secret(state: "NodeState", call: Call) -> Secret:
    return state.containers.secret(call.name)


async def _put_secret(state: "NodeState", call: Call) -> Secret:
    return state.containers.put_secret(call.name, msgspec.json.decode(call.body, type=SecretValue).value)


async def _delete_secret(state: "NodeState", call: Call) -> None:
    state.containers.delete_secret(call.name)


SECRET_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "secrets": _secrets,
    "secret": _secret,
    "put_secret": _put_secret,
    "delete_secret": _delete_secret,
}
