"""The node daemon's verbs for what the node remembers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.wire.control import Call, Refusal, RefusedError
from core0.wire.state import Adoption, StateStatus

if TYPE_CHECKING:
    from core0.node.verbs import NodeState


async def _state(state: "NodeState", _: Call) -> StateStatus:
    return state.remembered.store.status()


async def _adopt_state(state: "NodeState", call: Call) -> StateStatus:
    book = state.disks.book
    disk = book.find(msgspec.json.decode(call.body, type=Adoption).disk)
    if not disk.content or not disk.content.state:
        detail = f"cannot adopt what {disk.id} remembers: no node has claimed it"
        raise RefusedError(Refusal(409, "conflict", detail, "'zn disk ls' shows what disks hold", "/disk"))
    others = [one.content.state for one in book.seen().disks if one.content and one.content.state]
    await state.remembered.store.adopt(disk.content.state, others)
    return state.remembered.store.status()


STATE_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "state": _state,
    "adopt_state": _adopt_state,
}
