"""Subnets against Python's ipaddress, and numbers that are never given twice."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.networks.addresses import FIRST_HOST, free_host, free_ipv4, free_ipv6, last_host
from core0.wire.subnets import parse_interface, parse_subnet, unusable

V4 = st.builds(lambda number, length: (number, length, 32), st.integers(0, 2**32 - 1), st.integers(0, 32))
V6 = st.builds(lambda number, length: (number, length, 128), st.integers(0, 2**128 - 1), st.integers(0, 128))


def _text(drawn: tuple[int, int, int]) -> str:
    number, length, bits = drawn
    return f"{ipaddress.IPv4Address(number) if bits == 32 else ipaddress.IPv6Address(number)}/{length}"


@given(V4 | V6)
def test_an_interface_reads_as_ipaddress_reads_it(drawn: tuple[int, int, int]) -> None:
    text = _text(drawn)
    subnet, host = parse_interface(text)
    known = ipaddress.ip_interface(text)
    assert ipaddress.ip_network(str(subnet)) == known.network
    assert int(known) - int(known.network.network_address) == host
    assert ipaddress.ip_address(subnet.address(host)) == known.ip
    assert subnet.size == known.network.num_addresses


@given(V4 | V6, V4 | V6)
def test_subnets_overlap_as_ipaddress_says(one: tuple[int, int, int], two: tuple[int, int, int]) -> None:
    first, second = (ipaddress.ip_network(_text(drawn), strict=False) for drawn in (one, two))
    expected = first.version == second.version and first.overlaps(second)  # type: ignore[arg-type]
    assert parse_subnet(str(first)).overlaps(parse_subnet(str(second))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.0",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/1_0",
        "10.0.0.0/²",
        "10.0.0/24",
        "0x0a.0.0.0/8",
        "010.0.0.0/8",
        "10.0.0.1/24",
        "fd00::1/64",
        "fd00::/129",
        "fd00::%eth0/64",
        "fd00:::/64",
        "a\x00b/8",
        "10.0.0.0/8; flush ruleset",
        "internet",
    ],
)
def test_what_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address|prefix"):
        parse_subnet(text)


@pytest.mark.parametrize(
    "text", ["127.1.0.0/16", "169.254.0.0/24", "239.0.0.0/8", "0.0.0.0/0", "fe80::/64", "::/64"]
)
def test_what_no_container_can_have_is_known(text: str) -> None:
    assert unusable(parse_subnet(text))


@given(st.sets(st.integers(0, 40)), st.integers(2, 40))
def test_a_number_is_free_in_range_and_the_lowest(used: set[int], last: int) -> None:
    host = free_host(used, last)
    every = [one for one in range(FIRST_HOST, last + 1) if one not in used]
    assert host == (every[0] if every else None)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_containers_that_come_and_go_never_share_a_number(steps: list[tuple[bool, int]]) -> None:
    last = last_host(parse_subnet("10.1.0.0/29"), parse_subnet("fd00::/64"))
    held: dict[int, int] = {}
    for come, who in steps:
        if not come:
            held.pop(who, None)
        elif who not in held and (host := free_host(set(held.values()), last)) is not None:
            held[who] = host
        assert len(set(held.values())) == len(held)
        assert all(FIRST_HOST <= host <= last for host in held.values())


def test_a_small_subnet_has_neither_its_first_nor_its_broadcast_address_for_containers() -> None:
    subnet = parse_subnet("192.168.7.0/29")
    last = last_host(subnet, parse_subnet("fd00::/64"))
    assert subnet.address(last) == "192.168.7.6"
    assert subnet.address(FIRST_HOST) == "192.168.7.2"


def test_chosen_subnets_overlap_with_none() -> None:
    used = [parse_subnet("10.88.0.0/16"), parse_subnet("10.90.4.0/24"), parse_subnet("fd00::/8")]
    assert [str(free_ipv4(used[:1])), str(free_ipv4([*used, parse_subnet("10.89.0.0/16")]))] == [
        "10.89.0.0/16",
        "10.91.0.0/16",
    ]
    assert free_ipv4([parse_subnet("10.0.0.0/8")]) is None
    node = "0123456789abcdef" * 2
    first = free_ipv6(node, [])
    assert first
    assert str(first) == "fd01:2345:6789::/64"
    assert str(free_ipv6(node, [first])) == "fd01:2345:6789:1::/64"
    assert first.family == socket.AF_INET6
    assert free_ipv6(node, [parse_subnet("fd00::/8")]) is None
