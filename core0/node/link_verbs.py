"""The node daemon's verbs for its own links, and what it says of them by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from core0.links.inventory import find_unused, take_inventory
from core0.wire.control import Call, absent
from core0.wire.links import Link, LinkQuery, Links

if TYPE_CHECKING:
    from core0.node.verbs import NodeState


async def _links(state: "NodeState", _: Call) -> Links:
    talks, wanted = dict(state.links.conversations), state.links.wanted
    return Links(await asyncio.to_thread(take_inventory, state.links.indexes(), talks, wanted))


async def _link(state: "NodeState", call: Call) -> Link:
    name = msgspec.json.decode(call.body, type=LinkQuery).name
    for link in (await _links(state, call)).links:
        if name in (link.name, link.pci, *link.other_names):
            return link
    raise absent(
        f"cannot show link {name}: there is none of that name or bus address", "see 'zn network links'"
    )


async def tell_unused(state: "NodeState") -> None:
    """Say which network controllers cannot be used: on a node that nobody can reach, the console alone tells it."""
    for link in await asyncio.to_thread(find_unused):
        state.events("network", link.name, link.why[0].upper() + link.why[1:])


LINK_VERBS: Mapping[str, Callable[["NodeState", Call], Awaitable[Any]]] = {
    "links": _links,
    "link": _link,
}
