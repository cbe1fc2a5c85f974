"""Several ways out of the node: whoever asks an address of one link is answered by that link's router. Pure.

The routing table of all knows one best way out, by which the answers of all links would leave: to routers that never
saw the question, and drop them. So each link with a way out has a table of its own, with that way alone, and a rule
for each of its addresses: what leaves with it as its source goes by the link's table (ip-rule(8)). Routes to networks
come first, for all. A link without a carrier has no way out, and its addresses go by the table of all.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from core0.links.model import AddRule, DeleteRule, Route, Rule, WantedLink
from core0.linux.netlink import OWN_TABLES

# A prime, so that all letters of a name count.
_SPREAD = 16777213
_WHOLE = {4: "0.0.0.0/0", 6: "::/0"}


def divide(links: Sequence[WantedLink]) -> tuple[tuple[WantedLink, ...], frozenset[Rule]]:
    """The links, with a way out of their own where there are several, and the rules for their addresses."""
    rules: set[Rule] = set()
    made = {link.name: link for link in links}
    for version in _WHOLE:
        ways = {link.name: way for link in links if (way := _way_out(link, version))}
        if len(ways) < 2:
            continue
        rules.add(Rule(version))
        for name, table in _tables(ways):
            made[name] = replace(made[name], routes=made[name].routes | {replace(ways[name], table=table)})
            rules |= {Rule(version, source, table) for source in _sources(made[name], version)}
    return tuple(made.values()), frozenset(rules)


def _way_out(link: WantedLink, version: int) -> Route | None:
    """The best route out of a link to everywhere."""
    ways = (route for route in link.routes if route.to == _WHOLE[version] and route.via)
    return min(ways, key=lambda route: (route.metric, route.via), default=None)


def _sources(link: WantedLink, version: int) -> Iterator[str]:
    for address in link.addresses:
        if (":" in address) == (version == 6):
            yield address.partition("/")[0]


def _tables(names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Of each link a table, by its name: it has no number before it is made."""
    taken: set[int] = set()
    for name in sorted(names):
        number = int.from_bytes(name.encode()) % _SPREAD
        while number in taken:
            number = (number + 1) % _SPREAD
        taken.add(number)
        yield name, OWN_TABLES[number]


def plan_rules(wanted: frozenset[Rule], seen: frozenset[Rule]) -> tuple[AddRule | DeleteRule, ...]:
    """The changes from the rules that are there to those that shall be; routes come before, links after."""
    return (*map(DeleteRule, sorted(seen - wanted)), *map(AddRule, sorted(wanted - seen)))
