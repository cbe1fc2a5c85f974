"""Who may know which name: a table."""

import socket

import pytest

from core0.names import codec
from core0.names.codec import parse, written
from core0.names.zones import Found, Zones
from core0.wire.names import Host, Told, Zone
from tests.core0.names.messages import ask

ZONES = (
    Zone("web", "10.20.0.0/24", "fd20::/64", outside=True),
    Zone("blue", "10.30.0.0/24", "fd30::/64", outside=False, others=("10.31.0.1",)),
)
HOSTS = (
    Host("web", "a", "10.20.0.2", "fd20::2"),
    Host("web", "db", "10.20.0.3", "fd20::3"),
    Host("blue", "db", "10.30.0.2", "fd30::2"),
)
DB = socket.inet_aton("10.20.0.3")
DB6 = socket.inet_pton(socket.AF_INET6, "fd20::3")


@pytest.fixture
def zones() -> Zones:
    known = Zones()
    known.hear(Told(ZONES, None, HOSTS))
    return known


def find(zones: Zones, source: str, name: str, kind: str = "A") -> Found | None:
    asker = zones.asker(source)
    assert asker
    return zones.find(asker, parse(ask(name, kind)))


def nibbles(address: str) -> str:
    return ".".join(reversed(socket.inet_pton(socket.AF_INET6, address).hex())) + ".ip6.arpa"


NAME_OF_DB = written("db.web.internal")
NOTHING = "nothing"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("db.web.internal", "A", [DB]),
        ("DB.Web.INTERNAL", "A", [DB]),
        ("db.web.internal", "AAAA", [DB6]),
        ("db.web.internal", "ANY", [DB, DB6]),
        ("db.web.internal", "TXT", []),
        ("web.internal", "A", []),
        ("internal", "A", []),
        ("nobody.web.internal", "A", NOTHING),
        ("db.blue.internal", "A", NOTHING),
        ("blue.internal", "A", NOTHING),
        ("x.db.web.internal", "A", NOTHING),
        ("db.other.internal", "A", NOTHING),
        ("3.0.20.10.in-addr.arpa", "PTR", [NAME_OF_DB]),
        ("3.0.20.10.in-addr.arpa", "A", []),
        (nibbles("fd20::3"), "PTR", [NAME_OF_DB]),
        ("9.0.20.10.in-addr.arpa", "PTR", NOTHING),
        ("2.0.30.10.in-addr.arpa", "PTR", NOTHING),
        (nibbles("fd30::2"), "PTR", NOTHING),
        ("1.7.168.192.in-addr.arpa", "PTR", None),
        ("0.20.10.in-addr.arpa", "PTR", None),
        ("03.0.20.10.in-addr.arpa", "PTR", None),
        ("x.0.20.10.in-addr.arpa", "PTR", None),
        ("www.example.org", "A", None),
        ("db.web.internal.example.org", "A", None),
        ("", "A", None),
    ],
)
def test_a_container_knows_its_own_network(
    zones: Zones, name: str, kind: str, expected: list[bytes] | str | None
) -> None:
    found = find(zones, "10.20.0.2", name, kind)
    if expected is None:
        assert found is None
    elif expected == NOTHING:
        assert found
        assert (found.code, found.records) == (codec.NXDOMAIN, ())
    else:
        assert found
        assert (found.code, [data for _, data in found.records]) == (codec.NOERROR, expected)


def test_an_address_of_a_network_that_nobody_here_has_may_be_another_nodes(zones: Zones) -> None:
    assert find(zones, "10.30.0.2", "9.0.30.10.in-addr.arpa", "PTR") == Found(codec.NXDOMAIN, elsewhere=True)


def test_a_zone_is_not_handed_over_as_a_whole(zones: Zones) -> None:
    assert find(zones, "10.20.0.2", "web.internal", "AXFR") == Found(codec.REFUSED)


def test_a_stranger_is_nobody(zones: Zones) -> None:
    assert zones.asker("192.168.7.2") is None
    assert zones.asker("10.20.0.9") is None


def test_another_nodes_resolver_asks_for_its_network_only_and_is_not_asked_back(zones: Zones) -> None:
    asker = zones.asker("10.31.0.1")
    assert asker
    assert (asker.zone.network, asker.is_container) == ("blue", False)
    assert find(zones, "10.31.0.1", "db.blue.internal") == Found(
        codec.NOERROR, ((1, socket.inet_aton("10.30.0.2")),), "internal"
    )
    assert find(zones, "10.31.0.1", "db.web.internal") == Found(codec.NXDOMAIN, zone="internal")


def test_a_container_that_went_has_no_name_and_its_next_one_has(zones: Zones) -> None:
    zones.hear(Told(came=(Host("web", "db", "10.20.0.4", "fd20::4"),)))
    zones.hear(Told(went=("10.20.0.3",)))
    found = find(zones, "10.20.0.2", "db.web.internal")
    assert found
    assert found.records == ((1, socket.inet_aton("10.20.0.4")),)
    assert zones.asker("10.20.0.3") is None
    zones.hear(Told(went=("10.20.0.4", "10.20.0.77")))
    assert find(zones, "10.20.0.2", "db.web.internal") == Found(
        codec.NXDOMAIN, zone="internal", elsewhere=True
    )


def test_a_network_that_is_gone_asks_no_more(zones: Zones) -> None:
    zones.hear(Told(zones=ZONES[:1]))
    assert zones.asker("10.30.0.2") is None
    assert zones.asker("10.31.0.1") is None
