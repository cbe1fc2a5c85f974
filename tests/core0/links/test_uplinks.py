"""Ways out of the node: each link its own, where there are several."""

from hypothesis import given
from hypothesis import strategies as st

from core0.links.model import Route, Rule, WantedLink
from core0.links.uplinks import divide, plan_rules
from core0.linux.netlink import OWN_TABLES

LEFT = WantedLink(
    "left",
    addresses=frozenset({"10.1.0.7/24", "10.1.0.8/24", "2001:db8::7/64"}),
    routes=frozenset({Route("0.0.0.0/0", "10.1.0.1", 102), Route("172.16.0.0/12", "10.1.0.2")}),
)
RIGHT = WantedLink(
    "right",
    addresses=frozenset({"10.2.0.7/24"}),
    routes=frozenset({Route("0.0.0.0/0", "10.2.0.1", 103), Route("0.0.0.0/0", "10.2.0.2", 9)}),
)
INNER = WantedLink("inner", addresses=frozenset({"10.3.0.7/24"}))


def test_one_way_out_needs_nothing_of_its_own() -> None:
    assert divide((LEFT, INNER)) == ((LEFT, INNER), frozenset())


def test_of_two_ways_out_each_has_a_table_with_its_best_and_rules_for_its_addresses() -> None:
    (left, right, inner), rules = divide((LEFT, RIGHT, INNER))
    (own,) = left.routes - LEFT.routes
    (other,) = right.routes - RIGHT.routes
    assert (own.via, other.via, inner) == ("10.1.0.1", "10.2.0.2", INNER)
    assert own.table != other.table
    assert {own.table, other.table} <= set(OWN_TABLES)
    assert rules == {
        Rule(4),
        Rule(4, "10.1.0.7", own.table),
        Rule(4, "10.1.0.8", own.table),
        Rule(4, "10.2.0.7", other.table),
    }
    assert [str(action) for action in plan_rules(rules, frozenset())] == [
        "let routes to networks of IPv4 come before ways out",
        "let 10.1.0.7 leave by its own link's router",
        "let 10.1.0.8 leave by its own link's router",
        "let 10.2.0.7 leave by its own link's router",
    ]
    assert str(own) == "0.0.0.0/0 by 10.1.0.1 for its own addresses"


names = st.text("abn", min_size=1, max_size=15)
links = st.lists(
    st.builds(
        WantedLink,
        names,
        addresses=st.frozensets(st.sampled_from(["10.0.0.1/24", "10.0.0.2/24", "fd00::1/64"])),
        routes=st.frozensets(
            st.builds(
                Route, st.sampled_from(["0.0.0.0/0", "::/0"]), st.sampled_from(["", "r"]), st.integers(0, 2)
            )
        ),
    ),
    unique_by=lambda link: link.name,
    max_size=6,
)


@given(links)
def test_no_two_links_share_a_table_and_only_routes_are_added(wanted: list[WantedLink]) -> None:
    divided, rules = divide(wanted)
    own = [(route.to, route.table) for link in divided for route in link.routes if route.table]
    assert len(set(own)) == len(own)
    for before, after in zip(wanted, divided, strict=True):
        assert before.routes == {route for route in after.routes if not route.table}
        assert before.addresses == after.addresses
    assert {rule.table for rule in rules} <= {0, *(table for _, table in own)}


rules = st.frozensets(
    st.builds(Rule, st.sampled_from([4, 6]), st.sampled_from(["", "a", "b"]), st.integers(0, 2))
)


@given(rules, rules)
def test_planned_rules_are_what_is_there_after_them(wanted: frozenset[Rule], seen: frozenset[Rule]) -> None:
    for action in plan_rules(wanted, seen):
        seen ^= {action.rule}
    assert seen == wanted
