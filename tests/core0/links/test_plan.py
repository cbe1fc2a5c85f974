"""The link plan: what each situation needs, and that planning again after applying gives nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core0.links.model import Action, AddAddress, DeleteAddress, Lease, SeenLink, SetUp
from core0.links.plan import plan

LEASE = Lease("10.0.2.15/24", "10.0.2.2", (), "10.0.2.2", 3600)
LINK = SeenLink(2, "eth0", "52:54:00:12:34:56", is_up=True, carrier=True, addresses=frozenset())
DOWN = replace(LINK, is_up=False, carrier=False)


@pytest.mark.parametrize(
    ("leases", "seen", "said"),
    [
        pytest.param({}, [DOWN], ["set eth0 up"], id="a link that is down"),
        pytest.param({}, [LINK], [], id="a link without a lease"),
        pytest.param(
            {2: LEASE}, [LINK], ["add 10.0.2.15/24 to eth0, default route by 10.0.2.2"], id="a new lease"
        ),
        pytest.param({2: replace(LEASE, gateway=None)}, [LINK], ["add 10.0.2.15/24 to eth0"], id="no router"),
        pytest.param({2: LEASE}, [replace(LINK, addresses=frozenset({"10.0.2.15/24"}))], [], id="as wanted"),
        pytest.param(
            {},
            [replace(LINK, addresses=frozenset({"10.0.2.15/24"}))],
            ["delete 10.0.2.15/24 from eth0"],
            id="a lost lease",
        ),
        pytest.param({9: LEASE}, [LINK], [], id="a lease of a link that is gone"),
    ],
)
def test_plan(leases, seen, said):
    assert [str(action) for action in plan(leases, seen)] == said


def applied(seen: list[SeenLink], actions: tuple[Action, ...]) -> list[SeenLink]:
    links = {link.index: link for link in seen}
    for action in actions:
        link = links[action.link.index]
        match action:
            case SetUp():
                link = replace(link, is_up=True)
            case AddAddress(_, lease):
                link = replace(link, addresses=link.addresses | {lease.address})
            case DeleteAddress(_, address):
                link = replace(link, addresses=link.addresses - {address})
        links[link.index] = link
    return list(links.values())


addresses = st.sampled_from(["10.0.0.1/8", "10.0.0.2/8", "192.168.1.5/24"])
links = st.lists(
    st.builds(
        SeenLink,
        index=st.integers(2, 5),
        name=st.just("eth"),
        hardware=st.just("52:54:00:12:34:56"),
        is_up=st.booleans(),
        carrier=st.booleans(),
        addresses=st.frozensets(addresses),
    ),
    unique_by=lambda link: link.index,
)
leases = st.dictionaries(
    st.integers(2, 5),
    st.builds(Lease, addresses, st.none() | st.just("10.0.0.254"), st.just(()), st.just("s"), st.just(60)),
)


@given(leases, links)
def test_planning_after_applying_gives_nothing(wanted, seen):
    assert plan(wanted, applied(seen, plan(wanted, seen))) == ()
