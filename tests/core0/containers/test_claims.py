"""What containers have that no other can have: the look-up says what a look at all of them would."""

from hypothesis import given
from hypothesis import strategies as st

from core0.containers.claims import Claims
from core0.wire.network import packed
from core0.wire.types import PublishedPort

NAMES, NETWORKS, THINGS = ("a", "b", "c"), ("default", "other"), ("data", "key")
ADDRESSES = (None, "192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8:0::1")
ports = st.builds(
    PublishedPort,
    st.sampled_from([80, 81]),
    st.just(1),
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from(ADDRESSES),
)
claims = st.tuples(
    st.sampled_from(NAMES),
    st.lists(ports, max_size=3),
    st.dictionaries(st.sampled_from(NETWORKS), st.integers(2, 4), max_size=2),
    st.lists(st.sampled_from(THINGS), max_size=3),
    st.lists(st.sampled_from(THINGS), max_size=3),
)
Claim = tuple[str, list[PublishedPort], dict[str, int], list[str], list[str]]


def meet(one: PublishedPort, other: PublishedPort) -> bool:
    """Whether two ports cannot be had by two containers."""
    if (one.protocol, one.node) != (other.protocol, other.node):
        return False
    return None in (one.address, other.address) or packed(one.address or "") == packed(other.address or "")


@given(st.lists(claims, max_size=12), ports)
def test_the_claims_are_those_that_were_noted_last(noted: list[Claim], port: PublishedPort) -> None:
    known, last = Claims(), dict[str, Claim]()
    for claim in noted:
        known.note(*claim)
        last[claim[0]] = claim
    for network in NETWORKS:
        wanted = {name: hosts[network] for name, _, hosts, *_ in last.values() if network in hosts}
        assert known.hosts(network) == wanted
    users = [name for name, its, *_ in last.values() if any(meet(port, one) for one in its)]
    assert sorted(known.users_of(port)) == sorted(users)
    for thing in THINGS:
        of_volume = sorted(name for name, _, _, volumes, _ in last.values() if thing in volumes)
        of_secret = sorted(name for name, *_, secrets in last.values() if thing in secrets)
        assert known.users_of_volume(thing) == tuple(of_volume)
        assert known.users_of_secret(thing) == tuple(of_secret)


def test_what_has_nothing_leaves_nothing() -> None:
    known = Claims()
    known.note("a", [PublishedPort(80, 80), PublishedPort(80, 81)], {"default": 2})
    known.note("a")
    assert not known.hosts("default")
    assert list(known.users_of(PublishedPort(80, 1))) == []
    known.note("never seen")
