"""`zn network` against a node's real API."""

import msgspec
import pytest

from cli.container_spec import port_of
from cli.sizes import traffic_text
from core0.wire.networks import EgressRule, Network
from core0.wire.types import PublishedPort, Traffic
from tests.cli.conftest import Said, Zn
from tests.host_node import HostNode


def network(said: Said) -> Network:
    """The network that a command printed as JSON."""
    assert said.code == 0, said.err
    return msgspec.json.decode(said.out, type=Network)


def test_the_life_of_a_network(node: HostNode, zn: Zn) -> None:
    assert [line.split()[0] for line in zn("network", "ls").out.splitlines()] == ["network", "default"]
    allowed = ("--allow", "internet:tcp:443", "--allow", "10.99.0.0/24:udp:53", "--allow", "fd99::/64")
    made = network(zn("network", "create", "web", "--ipv4", "10.20.0.0/24", *allowed, "--json"))
    assert made.ipv4 == "10.20.0.0/24"
    assert made.spec.egress_allow == (
        EgressRule("internet", "tcp", 443),
        EgressRule("10.99.0.0/24", "udp", 53),
        EgressRule("fd99::/64"),
    )
    assert "internet:tcp:443, 10.99.0.0/24:udp:53, fd99::/64" in zn("network", "show", "web").out
    again = zn("network", "create", "web", "--egress", "none")
    assert again.code != 0
    assert "there is one of that name" in again.err
    closed = network(zn("network", "create", "web", "--egress", "none", "--update", "--json"))
    assert closed.spec.egress == "none"
    assert network(zn("network", "create", "quiet", "--allow-nothing", "--json")).spec.egress_allow == ()
    assert zn("network", "rm", "quiet").out == "network quiet is deleted\n"
    assert "there is none" in zn("network", "show", "quiet").err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--allow", "everything"), "cannot allow 'everything'"),
        (("--allow", "10.0.0.0/8:tcp:x"), "cannot allow"),
        (("--allow", "10.0.0.0/8:tcp:80:1"), "cannot allow"),
        (("--allow", "internet", "--allow-nothing"), "both something and nothing"),
        (("--egress", "open"), "cannot create the network"),
        (("--mtu", "20"), "cannot create the network"),
    ],
)
def test_what_cannot_be_is_refused_before_the_node_is_asked(
    node: HostNode, zn: Zn, options: tuple[str, ...], said: str
) -> None:
    refused = zn("network", "create", "web", *options)
    assert refused.code == 2
    assert said in refused.err


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("80", PublishedPort(80, 80)),
        ("8080:80", PublishedPort(8080, 80)),
        ("53:5353/udp", PublishedPort(53, 5353, "udp")),
        ("192.168.7.1:8080:80", PublishedPort(8080, 80, address="192.168.7.1")),
        ("[fd00::1]:8080:80/udp", PublishedPort(8080, 80, "udp", "fd00::1")),
    ],
)
def test_a_port_is_published_as_people_write_it(text: str, port: PublishedPort) -> None:
    assert port_of(text) == port


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        (None, "-"),
        (Traffic(0, 0, 0, 0, 0, 0, 0), "0 B in, 0 B out"),
        (Traffic(2048, 3, 1, 1 << 30, 9, 2, 0), "2.0 KiB in, 1.0 GiB out, 3 dropped"),
        (Traffic(1, 1, 0, 1, 1, 0, 7), "1 B in, 1 B out, 7 refused"),
    ],
)
def test_traffic_is_told_in_a_few_words(traffic: Traffic | None, said: str) -> None:
    assert traffic_text(traffic) == said
