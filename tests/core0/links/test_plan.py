"""The link plan: what each situation needs, and that planning again after applying gives nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core0.links.check import check
from core0.links.model import Action, Bond, Lease, Route, SeenLink, SetMtu
from core0.links.plan import plan
from core0.links.uplinks import plan_rules
from core0.links.wanted import want
from core0.wire.control import RefusedError
from core0.wire.link_config import (
    BondConfig,
    BridgeConfig,
    LinkConfig,
    LinkSelector,
    NetworkConfig,
    RouteConfig,
    VlanConfig,
)
from tests.core0.links.kernel import Kernel

LEASE = Lease("10.0.2.15/24", "10.0.2.2", (), "10.0.2.2", 3600)
LEASED = Route("0.0.0.0/0", "10.0.2.2", 102)
LINK = SeenLink(2, "eth0", "52:54:00:12:34:56", is_up=True, carrier=True, addresses=frozenset())
OTHER = replace(LINK, index=3, name="eth1", hardware="52:54:00:12:34:57")
DOWN = replace(LINK, is_up=False, carrier=False)
AS_WANTED = replace(LINK, addresses=frozenset({"10.0.2.15/24"}), routes=frozenset({LEASED}))
BY_MAC = LinkSelector(mac=LINK.hardware)
OTHER_BY_MAC = LinkSelector(mac=OTHER.hardware)
CONTAINER = SeenLink(
    9, "zc1", "", True, True, frozenset({"169.254.1.1/32"}), "veth", routes=frozenset({Route("10.88.0.2/32")})
)


def planned(
    config: dict[str, LinkConfig], leases: dict[int, Lease], landscape: tuple[SeenLink, ...]
) -> tuple[Action, ...]:
    return plan(want(config, leases, landscape).links, landscape)


def apply_all(kernel: Kernel, config: dict[str, LinkConfig], leases: dict[int, Lease]) -> None:
    """What the manager does: the links, and the rules of several ways out."""
    wanted = want(config, leases, kernel.landscape())
    kernel.apply((*plan(wanted.links, kernel.landscape()), *plan_rules(wanted.rules, kernel.rules)))


@pytest.mark.parametrize(
    ("leases", "seen", "said"),
    [
        pytest.param({}, DOWN, ["set eth0 up"], id="a link that is down"),
        pytest.param({}, LINK, [], id="a link without a lease"),
        pytest.param(
            {2: LEASE},
            LINK,
            ["add 10.0.2.15/24 to eth0", "add route to 0.0.0.0/0 by 10.0.2.2 out of eth0"],
            id="a new lease",
        ),
        pytest.param({2: replace(LEASE, gateway=None)}, LINK, ["add 10.0.2.15/24 to eth0"], id="no router"),
        pytest.param({2: LEASE}, AS_WANTED, [], id="as wanted"),
        pytest.param(
            {},
            AS_WANTED,
            ["delete route to 0.0.0.0/0 by 10.0.2.2 out of eth0", "delete 10.0.2.15/24 from eth0"],
            id="a lost lease",
        ),
        pytest.param(
            {2: replace(LEASE, address="10.0.2.16/24")},
            AS_WANTED,
            [
                "delete 10.0.2.15/24 from eth0",
                "add 10.0.2.16/24 to eth0",
                "add route to 0.0.0.0/0 by 10.0.2.2 out of eth0",
            ],
            id="another address, whose routes went with the earlier one",
        ),
        pytest.param({9: LEASE}, LINK, [], id="a lease of a link that is gone"),
    ],
)
def test_a_link_without_config_follows_its_lease(
    leases: dict[int, Lease], seen: SeenLink, said: list[str]
) -> None:
    assert [str(action) for action in planned({}, leases, (seen, CONTAINER))] == said


MADE_BOND = SeenLink(
    7, "bond0", "", True, True, frozenset(), "bond", ours=True, bond=Bond("active-backup", 100, "eth0")
)
MADE_VLAN = SeenLink(8, "v10", "", True, True, frozenset(), "vlan", ours=True, parent="eth0", vlan=10)
CARDS = {"a": LinkConfig(select=BY_MAC), "b": LinkConfig(select=OTHER_BY_MAC)}
A_BOND = LinkConfig(bond=BondConfig(("a", "b"), primary="a"))


@pytest.mark.parametrize(
    ("config", "landscape", "said"),
    [
        pytest.param(
            {
                "lan": LinkConfig(
                    select=BY_MAC,
                    addresses=("10.1.0.2/24", "FD00::2/64"),
                    routes=(RouteConfig("0.0.0.0/0", "10.1.0.1"),),
                    mtu=1400,
                )
            },
            (DOWN,),
            [
                "set the MTU of eth0 to 1400",
                "set eth0 up",
                "add 10.1.0.2/24 to eth0",
                "add fd00::2/64 to eth0",
                "add route to 0.0.0.0/0 by 10.1.0.1 out of eth0",
            ],
            id="static addresses",
        ),
        pytest.param(
            {"a": CARDS["a"], "v10": LinkConfig(vlan=VlanConfig("a", 10), addresses=("10.1.0.2/24",))},
            (LINK,),
            [
                "create v10, VLAN 10 of eth0",
                "set the MTU of v10 to 1500",
                "set v10 up",
                "add 10.1.0.2/24 to v10",
            ],
            id="a VLAN",
        ),
        pytest.param(
            {**CARDS, "bond0": A_BOND},
            (AS_WANTED, OTHER),
            [
                "create bond bond0 of mode active-backup",
                "delete route to 0.0.0.0/0 by 10.0.2.2 out of eth0",
                "delete 10.0.2.15/24 from eth0",
                "set the MTU of eth0 to 1500",
                "make eth0 a member of bond0",
                "set the MTU of eth1 to 1500",
                "make eth1 a member of bond0",
                "set the MTU of bond0 to 1500",
                "let bond0 look at carriers each 100 ms, preferring eth0",
                "set bond0 up",
            ],
            id="a bond of a card that has an address",
        ),
        pytest.param(
            {**CARDS, "bond0": A_BOND},
            (replace(LINK, master="bond0"), replace(OTHER, master="bond0"), MADE_BOND),
            [],
            id="a bond as wanted",
        ),
        pytest.param(
            {},
            (replace(LINK, master="bond0"), replace(OTHER, master="bond0"), MADE_BOND),
            ["delete link bond0", "set eth0 up", "set eth1 up"],
            id="a bond that the config has no more",
        ),
        pytest.param(
            {"a": CARDS["a"], "v10": LinkConfig(vlan=VlanConfig("a", 11))},
            (LINK, MADE_VLAN),
            ["delete link v10", "create v10, VLAN 11 of eth0", "set the MTU of v10 to 1500", "set v10 up"],
            id="a VLAN of another number",
        ),
        pytest.param({}, (LINK, replace(MADE_VLAN, ours=False)), [], id="a VLAN of somebody else's"),
        pytest.param(
            {},
            (replace(LINK, mtu=9000, original_mtu=1500),),
            ["set the MTU of eth0 to 1500"],
            id="own MTU again",
        ),
        pytest.param(
            {"a": LinkConfig(select=BY_MAC, up=False)}, (LINK,), ["set eth0 down"], id="a card to be down"
        ),
        pytest.param(
            {"a": LinkConfig(select=BY_MAC, ipv6="off")}, (LINK,), ["set IPv6 of eth0 off"], id="no IPv6"
        ),
        pytest.param(
            {
                "a": LinkConfig(select=BY_MAC, ipv6="off"),
                "bond0": LinkConfig(bond=BondConfig(("a",), primary="a")),
            },
            (
                replace(LINK, mtu=576, original_mtu=1500, ipv6=None, master="bond0"),
                replace(MADE_BOND, mtu=576, ipv6=None),
            ),
            ["set the MTU of bond0 to 1500", "set IPv6 of eth0 off"],
            id="a bond as large as IPv6 needs again, with a member without IPv6",
        ),
        pytest.param(
            {"br0": LinkConfig(bridge=BridgeConfig(("a",))), "a": CARDS["a"]},
            (LINK,),
            [
                "create bridge br0",
                "make eth0 a member of br0",
                "set the MTU of br0 to 1500",
                "set br0 up",
            ],
            id="a bridge",
        ),
    ],
)
def test_a_config_needs(
    config: dict[str, LinkConfig], landscape: tuple[SeenLink, ...], said: list[str]
) -> None:
    leases = {2: LEASE}
    held = {} if "a" not in config and not config.get("lan") else leases
    assert [
        str(action) for action in planned(config, held if landscape[0] == AS_WANTED else {}, landscape)
    ] == said


def test_a_link_whose_card_is_not_there_waits_and_so_does_what_is_on_it() -> None:
    config = {
        "a": LinkConfig(select=LinkSelector(mac="52:54:00:00:00:99")),
        "v10": LinkConfig(vlan=VlanConfig("a", 10)),
        "bond0": LinkConfig(bond=BondConfig(("b",))),
        "b": LinkConfig(select=OTHER_BY_MAC),
    }
    found = want(config, {}, (LINK, OTHER))
    assert found.waiting == {"a": "no card that is there fits it", "v10": "its link a waits"}
    assert found.dhcp == {"eth0", "bond0"}, (
        "a card without config asks, and so does a bond, but no member of one"
    )


SMALL = replace(LEASE, mtu=1400)
IN_USE = replace(AS_WANTED, mtu=1400, original_mtu=1500, largest_mtu=9000)


@pytest.mark.parametrize(
    ("config", "lease", "seen", "said"),
    [
        pytest.param({}, SMALL, AS_WANTED, ["set the MTU of eth0 to 1400"], id="taken"),
        pytest.param({}, SMALL, IN_USE, [], id="as given"),
        pytest.param({}, LEASE, IN_USE, ["set the MTU of eth0 to 1500"], id="given no more"),
        pytest.param(
            {"a": LinkConfig(select=BY_MAC, mtu=1300)},
            SMALL,
            AS_WANTED,
            ["set the MTU of eth0 to 1300"],
            id="the config's counts",
        ),
        pytest.param(
            {"a": CARDS["a"], "v10": LinkConfig(vlan=VlanConfig("a", 10))},
            SMALL,
            AS_WANTED,
            [
                "create v10, VLAN 10 of eth0",
                "set the MTU of eth0 to 1400",
                "set the MTU of v10 to 1400",
                "set v10 up",
            ],
            id="a VLAN follows its link",
        ),
        pytest.param(
            {"a": LinkConfig(select=BY_MAC, ipv6="off")},
            replace(LEASE, mtu=576),
            replace(AS_WANTED, ipv6=False),
            ["set the MTU of eth0 to 576"],
            id="the least of IPv4 alone",
        ),
    ],
)
def test_the_mtu_of_a_lease_is(
    config: dict[str, LinkConfig], lease: Lease, seen: SeenLink, said: list[str]
) -> None:
    assert [str(action) for action in planned(config, {2: lease}, (seen,))] == said
    assert want(config, {2: lease}, (seen,)).passed_over == {}


BONDED = {**CARDS, "bond0": LinkConfig(bond=BondConfig(("a", "b")))}


@pytest.mark.parametrize(
    ("config", "mtu", "least", "most"),
    [
        pytest.param({}, 68, 1280, 9000, id="too small for IPv6"),
        pytest.param({}, 0, 1280, 9000, id="nothing"),
        pytest.param({}, 9001, 1280, 9000, id="too large for the card"),
        pytest.param({"a": LinkConfig(select=BY_MAC, ipv6="off")}, 575, 576, 9000, id="too small for IPv4"),
        pytest.param(
            {"a": CARDS["a"], "v10": LinkConfig(vlan=VlanConfig("a", 10), mtu=1450)},
            1400,
            1450,
            9000,
            id="too small for a VLAN on it",
        ),
    ],
)
def test_a_lease_with_an_mtu_that_cannot_be_is_used_without_it_and_that_is_told(
    config: dict[str, LinkConfig], mtu: int, least: int, most: int
) -> None:
    seen = replace(AS_WANTED, largest_mtu=9000)
    found = want(config, {2: replace(LEASE, mtu=mtu)}, (seen,))
    said = f"the MTU of {mtu} that the DHCP server 10.0.2.2 gives is not used: it must be {least} to {most} here; "
    assert found.passed_over == {"eth0": f"{said}correct the server's option 26"}
    changed = plan(found.links, (seen,))
    assert not [action for action in changed if action.link == "eth0" and isinstance(action, SetMtu)]


def test_a_bond_gets_no_larger_than_it_is_by_a_lease() -> None:
    members = replace(LINK, master="bond0"), replace(OTHER, master="bond0")
    seen = (*members, replace(MADE_BOND, bond=Bond("active-backup", 100)))
    assert "must be 1280 to 1500" in want(BONDED, {7: replace(LEASE, mtu=9000)}, seen).passed_over["bond0"]


NAMES = ("a", "b", "c", "bond0", "br0", "v10", "v20")
MACS = [f"52:54:00:00:00:0{number}" for number in range(4)]
ADDRESSES = ("10.0.0.1/24", "10.0.0.2/24", "10.1.0.1/24", "10.2.0.1/16", "fd00::1/64", "fd01::1/64")
ROUTES = (
    RouteConfig("0.0.0.0/0", "10.0.0.254", onlink=True),
    RouteConfig("0.0.0.0/0", "10.1.0.254", metric=7, onlink=True),
    RouteConfig("::/0", "fe80::1"),
    RouteConfig("172.16.0.0/12", "10.0.0.253", onlink=True),
)
mtus = st.none() | st.sampled_from([576, 1280, 1400, 1500, 9000])


@st.composite
def configs(draw: st.DrawFn) -> dict[str, LinkConfig]:
    """Configs that the check takes."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    config: dict[str, LinkConfig] = {}
    for name in names:
        kind: dict[str, object] = {"select": LinkSelector(mac=draw(st.sampled_from(MACS)))}
        others = st.sampled_from(names)
        if name.startswith("v"):
            kind = {"vlan": VlanConfig(draw(others), draw(st.sampled_from([10, 20])))}
        elif name == "bond0":
            members = draw(st.lists(others, unique=True, min_size=1, max_size=2))
            primary = draw(st.none() | st.sampled_from(members))
            kind = {"bond": BondConfig(tuple(members), primary=primary)}
        elif name == "br0":
            kind = {"bridge": BridgeConfig(tuple(draw(st.lists(others, unique=True, max_size=2))))}
        config[name] = LinkConfig(
            **kind,  # type: ignore[arg-type]
            ipv6=draw(st.sampled_from(["auto", "off"])),
            addresses=tuple(draw(st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=2))),
            routes=tuple(draw(st.lists(st.sampled_from(ROUTES), unique=True, max_size=2))),
            mtu=draw(mtus),
            up=draw(st.sampled_from([True, True, True, False])),
        )
    return sound(config)


def sound(config: dict[str, LinkConfig]) -> dict[str, LinkConfig]:
    """What the check leaves of a config when each link that it refuses is simplified, or taken out."""
    while True:
        try:
            check(NetworkConfig(config), ())
        except RefusedError as error:
            name = error.refusal.pointer.split("/")[3]
            link = config[name]
            bare = LinkConfig(select=link.select, vlan=link.vlan, bond=link.bond, bridge=link.bridge)
            left = {other: made for other, made in config.items() if other != name}
            config = left if link == bare else {**config, name: bare}
        else:
            return config


@st.composite
def landscapes(draw: st.DrawFn) -> tuple[SeenLink, ...]:
    """Cards in any state, links of containers, and whatever an earlier config had made."""
    cards = tuple(
        SeenLink(
            index=2 + number,
            name=f"eth{number}",
            hardware=mac,
            is_up=draw(st.booleans()),
            carrier=draw(st.booleans()),
            addresses=frozenset(draw(st.sets(st.sampled_from(ADDRESSES[:4]), max_size=2))),
            mtu=draw(st.sampled_from([1500, 9000])),
            largest_mtu=draw(st.sampled_from([0, 9000, 16110])),
        )
        for number, mac in enumerate(MACS[: draw(st.integers(0, 4))])
    )
    kernel = Kernel((*cards, CONTAINER, replace(CONTAINER, name="br1", kind="bridge", index=10)))
    earlier = draw(configs())
    kernel.apply(planned(earlier, draw(leases), kernel.landscape()))
    return kernel.landscape()


leases = st.dictionaries(
    st.integers(2, 5),
    st.builds(
        Lease,
        st.sampled_from(ADDRESSES[:4]),
        st.none() | st.just("10.0.0.254"),
        st.just(()),
        st.just("s"),
        st.just(60),
        mtu=st.sampled_from([None, None, 0, 68, 576, 1280, 1400, 1500, 9000, 65535]),
    ),
)


@given(configs(), leases, landscapes())
def test_planning_after_applying_gives_nothing_and_no_link_of_others_is_touched(
    config: dict[str, LinkConfig], held: dict[int, Lease], landscape: tuple[SeenLink, ...]
) -> None:
    kernel = Kernel(landscape)
    apply_all(kernel, config, held)
    wanted = want(config, held, kernel.landscape())
    again = (*plan(wanted.links, kernel.landscape()), *plan_rules(wanted.rules, kernel.rules))
    assert list(map(str, again)) == []
    tables = {route.table for link in kernel.landscape() for route in link.routes}
    assert {rule.table for rule in kernel.rules} <= tables | {0}
    assert kernel.touched.isdisjoint({"zc1", "br1"})
    assert kernel.links["zc1"] == CONTAINER


@given(configs(), configs(), leases, landscapes())
def test_going_back_to_an_earlier_config_brings_back_what_was(
    earlier: dict[str, LinkConfig],
    tried: dict[str, LinkConfig],
    held: dict[int, Lease],
    landscape: tuple[SeenLink, ...],
) -> None:
    kernel = Kernel(landscape)
    apply_all(kernel, earlier, held)
    before = {name: replace(link, index=0) for name, link in kernel.links.items()}, kernel.rules
    apply_all(kernel, tried, held)
    apply_all(kernel, earlier, held)
    after = {name: replace(link, index=0) for name, link in kernel.links.items()}, kernel.rules
    assert after == before
