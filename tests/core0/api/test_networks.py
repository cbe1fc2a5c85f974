"""Networks over the node's API: real TLS, the real node daemon and managers; what is wrong is told by its field."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from core0.client.client import NodeClient, RefusedError
from core0.wire.networks import EgressRule, NetworkSpec
from core0.wire.types import ContainerSpec, PublishedPort
from tests.host_node import HostNode

SPEC = ContainerSpec("http://127.0.0.1:9/demo/", "ab" * 32)


@pytest.fixture
async def client(host_node: HostNode) -> AsyncIterator[NodeClient]:
    async with host_node.daemon(), host_node.api(), host_node.operator() as client:
        yield client


def spec(network: str, **more: object) -> ContainerSpec:
    return msgspec.structs.replace(SPEC, network=network, **more)


async def test_there_is_always_a_default_network(client: NodeClient) -> None:
    (default,) = await client.networks()
    assert (default.name, default.spec) == ("default", NetworkSpec())
    assert default.ipv6.startswith("fd")
    with pytest.raises(RefusedError, match="containers that name no network are in it"):
        await client.delete_network("default")


async def test_the_life_of_a_network(client: NodeClient) -> None:
    made = await client.put_network("web", NetworkSpec("10.201.0.0/24"))
    assert (made.ipv4, made.state) == ("10.201.0.0/24", "ready")
    assert await client.put_network("web", NetworkSpec("10.201.0.0/24")) == made
    changed = await client.put_network("web", NetworkSpec(egress="none"))
    assert changed.spec.egress == "none"
    assert changed.ipv6 == made.ipv6, "what the node chose stays"
    with pytest.raises(RefusedError, match="there is one of that name"):
        await client.put_network("web", NetworkSpec(), new=True)
    await client.delete_network("web")
    with pytest.raises(RefusedError, match="cannot find network 'web'") as refused:
        await client.network("web")
    assert refused.value.problem.status == 404


async def test_chosen_subnets_never_overlap(client: NodeClient) -> None:
    made = [await client.put_network(f"net{number}", NetworkSpec()) for number in range(5)]
    assert len({one.ipv4 for one in made}) == len({one.ipv6 for one in made}) == 5
    assert all(one.state == "ready" for one in await client.networks() if one.name != "default")


@pytest.mark.parametrize(
    ("given", "status", "pointer", "told"),
    [
        ({"ipv4": "10.201.0.0/33"}, 422, "/ipv4", "prefix length"),
        ({"ipv4": "10.201.0.1/24"}, 422, "/ipv4", "10.201.0.0/24 would be"),
        ({"ipv4": "wide"}, 422, "/ipv4", "no address"),
        ({"ipv4": "fd00::/64"}, 422, "/ipv4", "other family"),
        ({"ipv4": "10.201.0.0/30"}, 422, "/ipv4", "from 8 to 29"),
        ({"ipv4": "127.0.0.0/16"}, 422, "/ipv4", "127.0.0.0/8"),
        ({"ipv4": "10.201.0.0/24 }; flush ruleset"}, 422, "/ipv4", "prefix length"),
        ({"ipv6": "fe80::/64"}, 422, "/ipv6", "fe80::/10"),
        ({"ipv6": "fd00::/127"}, 422, "/ipv6", "from 32 to 112"),
        ({"ipv4": "10.200.7.0/24"}, 409, "/ipv4", "10.200.0.0/16 of network there"),
        ({"ipv4": "10.0.0.0/8"}, 409, "/ipv4", "of network"),
        ({"ipv6": "fd77::/48"}, 409, "/ipv6", "fd77::/64 of network there"),
        ({"mtu": 20}, 422, "/mtu", ">= 1280"),
        ({"egress": "open"}, 422, "/egress", "open"),
        ({"egress_allow": ({"to": "10.0.0.1/8"},)}, 422, "/egress_allow/0/to", "10.0.0.0/8 would be"),
        ({"egress_allow": ({"to": "internet"}, {"to": "lan"})}, 422, "/egress_allow/1/to", "no address"),
        ({"egress_allow": ({"to": "internet", "port": 80},)}, 422, "/egress_allow/0/protocol", "tcp or udp"),
        ({"egress_allow": ({"to": "10.0.0.0/8", "protocol": "icmp", "port": 1},)}, 422, None, "tcp or udp"),
        ({"egress": "none", "egress_allow": ({"to": "10.0.0.0/8"},)}, 422, "/egress_allow", "stay within"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field_and_changes_nothing(
    client: NodeClient, given: dict[str, object], status: int, pointer: str | None, told: str
) -> None:
    await client.put_network("there", NetworkSpec("10.200.0.0/16", "fd77::/64"))
    before = await client.networks()
    raw = msgspec.defstruct("Raw", [(name, object) for name in given])(**given)
    with pytest.raises(RefusedError) as refused:
        await client.put_network("new", raw)
    problem = refused.value.problem
    assert problem.status == status
    assert pointer in (None, problem.pointer)
    assert told in f"{problem.detail} {problem.remedy}"
    assert await client.networks() == before


async def test_a_network_with_containers_keeps_its_subnets_and_is_not_deleted(client: NodeClient) -> None:
    await client.put_network("web", NetworkSpec("10.201.0.0/24"))
    await client.put_container("demo", spec("web"))
    with pytest.raises(RefusedError, match="cannot delete network web: container demo is in it"):
        await client.delete_network("web")
    with pytest.raises(RefusedError, match="cannot change the subnet") as refused:
        await client.put_network("web", NetworkSpec("10.202.0.0/24"))
    assert (refused.value.problem.status, refused.value.problem.pointer) == (409, "/ipv4")
    await client.put_network("web", NetworkSpec("10.201.0.0/24", egress_allow=(EgressRule("10.9.0.0/16"),)))


async def test_a_container_keeps_its_addresses_and_others_get_others(client: NodeClient) -> None:
    await client.put_network("web", NetworkSpec("10.201.0.0/29", "fd77::/64"))
    for name in ("one", "two"):
        await client.put_container(name, spec("web"))
    await client.put_container("one", spec("web", env={"A": "b"}))
    await client.stop_container("one")
    await client.put_container("three", spec("web"))
    members = {one.container: (one.ipv4, one.ipv6) for one in (await client.network("web")).containers}
    assert members == {
        "one": ("10.201.0.2", "fd77::2"),
        "two": ("10.201.0.3", "fd77::3"),
        "three": ("10.201.0.4", "fd77::4"),
    }
    for name in ("four", "five"):
        await client.put_container(name, spec("web"))
    with pytest.raises(RefusedError, match=r"all addresses of 10\.201\.0\.0/29 are in use") as refused:
        await client.put_container("six", spec("web"))
    assert (refused.value.problem.status, refused.value.problem.pointer) == (409, "/network")


async def test_addresses_outlive_the_node_daemon(host_node: HostNode) -> None:
    async with host_node.daemon(), host_node.api(), host_node.operator() as client:
        await client.put_network("web", NetworkSpec("10.201.0.0/24", egress="routed"))
        for name in ("one", "two", "three"):
            await client.put_container(name, spec("web"))
        await client.delete_container("one")
        before = await client.network("web")
    async with host_node.daemon(), host_node.api(), host_node.operator() as client:
        found = await client.network("web")
        assert found.spec == before.spec
        assert [one for one in found.containers if one.container != "one"] == [
            one for one in before.containers if one.container != "one"
        ]


async def test_a_container_in_no_network_is_refused(client: NodeClient) -> None:
    with pytest.raises(RefusedError, match="there is no network web") as refused:
        await client.put_container("demo", spec("web"))
    assert (refused.value.problem.status, refused.value.problem.pointer) == (422, "/network")
    assert await client.containers() == ()


@pytest.mark.parametrize(
    ("first", "second", "owner"),
    [
        (PublishedPort(8080, 80), PublishedPort(8080, 81), "container one"),
        (PublishedPort(8080, 80), PublishedPort(8080, 80, address="192.0.2.1"), "container one"),
        (PublishedPort(8080, 80, address="192.0.2.1"), PublishedPort(8080, 80), "container one"),
        (
            PublishedPort(8080, 80, address="fd00::1"),
            PublishedPort(8080, 80, address="fd00:0::1"),
            "container one",
        ),
        (PublishedPort(8080, 80), PublishedPort(8080, 80, "udp"), None),
        (PublishedPort(8080, 80, address="192.0.2.1"), PublishedPort(8080, 80, address="192.0.2.2"), None),
    ],
)
async def test_a_taken_port_is_refused_and_its_owner_named(
    client: NodeClient, first: PublishedPort, second: PublishedPort, owner: str | None
) -> None:
    await client.put_container("one", spec("default", ports=(first,)))
    if owner is None:
        await client.put_container("two", spec("default", ports=(second,)))
        return
    with pytest.raises(RefusedError, match=f"{owner} has it") as refused:
        await client.put_container("two", spec("default", ports=(second,)))
    assert (refused.value.problem.status, refused.value.problem.pointer) == (409, "/ports/0/node")


async def test_a_port_at_what_is_no_address_is_refused(client: NodeClient) -> None:
    with pytest.raises(RefusedError, match="it is no address") as refused:
        await client.put_container("one", spec("default", ports=(PublishedPort(80, 80, address="eth0"),)))
    assert (refused.value.problem.status, refused.value.problem.pointer) == (422, "/ports/0/address")
