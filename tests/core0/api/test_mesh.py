"""Networks that span nodes over the real API: what is refused by which field, and keys that nobody sees."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from core0.client.client import NodeClient, RefusedError
from core0.wire.mesh import Mesh, MeshPeer, MeshSpec
from core0.wire.networks import Network, NetworkSpec
from core0.wire.types import ContainerSpec, PublishedPort
from tests.host_node import HostNode

CONTAINER = ContainerSpec("http://127.0.0.1:9/demo/", "ab" * 32, network="span")
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(1, 6)]


@pytest.fixture
async def client(host_node: HostNode) -> AsyncIterator[NodeClient]:
    async with host_node.daemon(), host_node.api(), host_node.operator() as client:
        yield client


def peer(number: int, **more: Any) -> MeshPeer:
    wanted = {"ipv4": f"10.60.{number}.0/24", "ipv6": f"fd60:0:0:{number}::/64", **more}
    return MeshPeer((KEYS[number - 2],), **wanted)


def span(own4: str | None = "10.60.1.0/24", own6: str | None = "fd60:0:0:1::/64", **mesh: Any) -> NetworkSpec:
    return NetworkSpec(own4, own6, mesh=MeshSpec(**{"ipv4": "10.60.0.0/16", "ipv6": "fd60::/48", **mesh}))


def mesh_of(network: Network) -> Mesh:
    assert network.mesh
    return network.mesh


async def test_a_network_that_spans_nodes_has_a_key_of_its_own_and_a_port(client: NodeClient) -> None:
    peers = {"left": peer(2, endpoint="203.0.113.2:51820"), "far": peer(3, via="left")}
    made = mesh_of(await client.put_network("span", span(peers=peers)))
    assert (made.port, made.link, made.state) == (51820, "zm1", "pending")
    assert len(base64.b64decode(made.public_key)) == 32
    assert {one.name: one.state for one in made.peers} == {"left": "waiting", "far": "waiting"}
    assert next(one.why for one in made.peers if one.name == "far").startswith("reached via left:")
    other = mesh_of(
        await client.put_network("other", span("10.61.1.0/24", None, ipv4="10.61.0.0/16", ipv6=None))
    )
    assert (other.port, other.link) == (51821, "zm2")
    assert other.public_key != made.public_key
    again = mesh_of(await client.put_network("span", span()))
    assert (again.public_key, again.port, again.peers) == (made.public_key, 51820, ())


async def test_the_private_key_is_shown_nowhere_and_kept_over_a_restart(host_node: HostNode) -> None:
    async with host_node.daemon() as state, host_node.api(), host_node.operator() as client:
        made = mesh_of(await client.put_network("span", span()))
        kept = msgspec.json.decode(state.remembered.store.get("mesh/span") or b"")
        private = kept["key"]["private"]
        answers = [
            await client.network("span"),
            await client.events(0),
            await client.prepare_mesh_key("span"),
        ]
        assert private.encode() not in b"".join(map(msgspec.json.encode, answers))
    async with host_node.daemon(), host_node.api(), host_node.operator() as client:
        found = mesh_of(await client.network("span"))
        assert (found.public_key, found.port) == (made.public_key, made.port)
        assert found.next_public_key


async def test_the_life_of_a_key(client: NodeClient) -> None:
    first = mesh_of(await client.put_network("span", span()))
    with pytest.raises(RefusedError, match="none is prepared"):
        await client.activate_mesh_key("span")
    prepared = mesh_of(await client.prepare_mesh_key("span"))
    assert prepared.public_key == first.public_key
    assert mesh_of(await client.prepare_mesh_key("span")) == prepared, "asking again changes nothing"
    changed = mesh_of(await client.activate_mesh_key("span"))
    assert (changed.public_key, changed.next_public_key) == (prepared.next_public_key, None)
    await client.put_network("span", NetworkSpec("10.60.1.0/24", "fd60:0:0:1::/64"))
    assert (await client.network("span")).mesh is None
    with pytest.raises(RefusedError, match="does not span nodes"):
        await client.prepare_mesh_key("span")
    again = mesh_of(await client.put_network("span", span()))
    assert again.public_key not in (first.public_key, changed.public_key), (
        "a mesh that ended took its key along"
    )


REFUSED = [
    pytest.param(span("10.88.0.0/16"), 422, "/ipv4", "not a part of the mesh", id="outside of the mesh"),
    pytest.param(span("10.60.0.0/16"), 422, "/ipv4", "not a part of the mesh", id="all of the mesh"),
    pytest.param(span(None), 422, "/ipv4", "not a part of the mesh", id="no part given"),
    pytest.param(span(own6="fd61::/64"), 422, "/ipv6", "not a part of the mesh", id="IPv6 outside"),
    pytest.param(NetworkSpec(mesh=MeshSpec()), 422, "/mesh", "no subnet", id="no subnets"),
    pytest.param(
        span(peers={"a": peer(2, ipv4="10.61.0.0/24")}),
        422,
        "/mesh/peers/a/ipv4",
        "not within",
        id="peer outside",
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4="10.60.1.0/25")}),
        422,
        "/mesh/peers/a/ipv4",
        "this node's own",
        id="peer in own part",
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4="10.60.0.0/16")}),
        422,
        "/mesh/peers/a/ipv4",
        "this node's own",
        id="peer around own part",
    ),
    pytest.param(
        span(peers={"a": peer(2), "b": peer(3, ipv4="10.60.2.128/25")}),
        422,
        "/mesh/peers/b/ipv4",
        "peer a",
        id="parts overlap",
    ),
    pytest.param(
        span(peers={"a": peer(2), "b": peer(3, ipv6="fd60:0:0:2::7")}),
        422,
        "/mesh/peers/b/ipv6",
        "peer a",
        id="IPv6 parts overlap",
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4="10.60.1.1")}),
        422,
        "/mesh/peers/a/ipv4",
        "the node's own",
        id="the node's address",
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4="10.60.1.255")}),
        422,
        "/mesh/peers/a/ipv4",
        "last one",
        id="the broadcast address",
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4="10.60.1.2")}),
        409,
        "/mesh/peers/a/ipv4",
        "container demo has it",
        id="a container's address",
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4=None, ipv6=None)}), 422, "/mesh/peers/a", "no address", id="no address"
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4="fd60::/64")}),
        422,
        "/mesh/peers/a/ipv4",
        "other family",
        id="families exchanged",
    ),
    pytest.param(
        span(peers={"a": peer(2, ipv4="x; flush ruleset")}),
        422,
        "/mesh/peers/a/ipv4",
        "no address",
        id="no subnet at all",
    ),
    pytest.param(span(ipv4="10.60.1.0/24"), 422, "/ipv4", "not a part", id="the mesh is the own part"),
    pytest.param(span(peers={"a": MeshPeer(())}), 422, "/mesh/peers/a/public_keys", "0 keys", id="no key"),
    pytest.param(
        span(peers={"a": MeshPeer(tuple(KEYS[:3]))}),
        422,
        "/mesh/peers/a/public_keys",
        "3 keys",
        id="three keys",
    ),
    pytest.param(
        span(peers={"a": MeshPeer(("AAAA",))}),
        422,
        "/mesh/peers/a/public_keys/0",
        "3 bytes",
        id="a short key",
    ),
    pytest.param(
        span(peers={"a": MeshPeer(("no key",))}), 422, "/mesh/peers/a/public_keys/0", "base64", id="no base64"
    ),
    pytest.param(
        span(peers={"a": MeshPeer((base64.b64encode(bytes(32)).decode(),))}),
        422,
        "/mesh/peers/a/public_keys/0",
        "zeros",
        id="zeros",
    ),
    pytest.param(
        span(peers={"a": peer(2), "b": msgspec.structs.replace(peer(3), public_keys=(KEYS[3], KEYS[0]))}),
        422,
        "/mesh/peers/b/public_keys/1",
        "both have",
        id="one key twice",
    ),
    pytest.param(
        span(peers={"a": peer(2, keepalive=70000)}),
        422,
        "/mesh/peers/a/keepalive",
        "70000",
        id="keepalive 70000",
    ),
    pytest.param(
        span(peers={"a": peer(2, keepalive=0)}), 422, "/mesh/peers/a/keepalive", "0 s", id="keepalive 0"
    ),
    pytest.param(
        span(peers={"a": peer(2, endpoint="203.0.113.1")}),
        422,
        "/mesh/peers/a/endpoint",
        "no port",
        id="no port",
    ),
    pytest.param(
        span(peers={"a": peer(2, endpoint="[203.0.113.1]:1")}),
        422,
        "/mesh/peers/a/endpoint",
        "IPv6",
        id="brackets",
    ),
    pytest.param(
        span(peers={"a": peer(2, endpoint="2001:db8::1:51820")}),
        422,
        "/mesh/peers/a/endpoint",
        "brackets",
        id="no brackets",
    ),
    pytest.param(
        span(peers={"a": peer(2, endpoint="bad_name:1")}),
        422,
        "/mesh/peers/a/endpoint",
        "neither",
        id="no host",
    ),
    pytest.param(
        span(peers={"a": peer(2, endpoint="host:65536")}),
        422,
        "/mesh/peers/a/endpoint",
        "no port",
        id="port 65536",
    ),
    pytest.param(
        span(peers={"a": peer(2, endpoint="10.60.2.1:51820")}),
        422,
        "/mesh/peers/a/endpoint",
        "within the mesh",
        id="within the mesh",
    ),
    pytest.param(
        span(peers={"a": peer(2, via="b"), "b": peer(3, via="a")}),
        422,
        "/mesh/peers/a/via",
        "a loop",
        id="a loop",
    ),
    pytest.param(span(peers={"a": peer(2, via="a")}), 422, "/mesh/peers/a/via", "a loop", id="via itself"),
    pytest.param(
        span(peers={"a": peer(2, via="nobody")}), 422, "/mesh/peers/a/via", "no such peer", id="via nobody"
    ),
    pytest.param(
        span(peers={"a": peer(2, via="b", endpoint="h:1"), "b": peer(3)}),
        422,
        "/mesh/peers/a/endpoint",
        "both via",
        id="via and endpoint",
    ),
    pytest.param(span(port=53000), 409, "/mesh/port", "container demo", id="a published port"),
    pytest.param(span(port=68), 409, "/mesh/port", "DHCP", id="the node's own port"),
    pytest.param(span(port=51999), 409, "/mesh/port", "the mesh of network there", id="another mesh's port"),
    pytest.param(
        span("10.200.1.0/24", ipv4="10.200.0.0/16"),
        409,
        "/mesh/ipv4",
        "of network plain",
        id="overlaps a network",
    ),
    pytest.param(
        span("10.70.2.0/24", ipv4="10.70.0.0/16"), 409, "/mesh/ipv4", "of network there", id="overlaps a mesh"
    ),
    pytest.param(span(ipv4="10.60.0.0"), 422, "/mesh/ipv4", "prefix length", id="no mesh subnet"),
    pytest.param(span(ipv4="224.0.0.0/8"), 422, "/mesh/ipv4", "224.0.0.0/3", id="multicast"),
]


@pytest.fixture
async def full(client: NodeClient) -> NodeClient:
    """A node that has a network of every kind, and a container in the one that is to span nodes."""
    await client.put_network("plain", NetworkSpec("10.200.7.0/24"))
    there = MeshSpec("10.70.0.0/16", port=51999)
    await client.put_network("there", NetworkSpec("10.70.1.0/24", mesh=there))
    await client.put_network("span", NetworkSpec("10.60.1.0/24", "fd60:0:0:1::/64"))
    port = PublishedPort(53000, 53, "udp")
    await client.put_container("demo", msgspec.structs.replace(CONTAINER, ports=(port,)))
    return client


async def test_what_cannot_be_is_refused_by_its_field_and_changes_nothing(full: NodeClient) -> None:
    before = await full.networks()
    for case in REFUSED:
        spec, status, pointer, said = case.values
        with pytest.raises(RefusedError) as refused:
            await full.put_network("span", spec)
        problem = refused.value.problem
        assert (problem.status, problem.pointer) == (status, pointer), (case.id, problem)
        assert said in problem.detail, case.id
        assert problem.remedy, case.id
    assert await full.networks() == before


async def test_this_nodes_own_key_is_no_peers(full: NodeClient) -> None:
    own = mesh_of(await full.network("there")).public_key
    with pytest.raises(RefusedError, match="this node's own") as refused:
        await full.put_network("span", span(peers={"a": MeshPeer((own,), "10.60.2.0/24")}))
    assert refused.value.problem.pointer == "/mesh/peers/a/public_keys/0"


async def test_a_port_of_a_mesh_is_not_published_and_a_single_machines_address_is_no_containers(
    full: NodeClient,
) -> None:
    taken = msgspec.structs.replace(CONTAINER, ports=(PublishedPort(51999, 53, "udp"),))
    with pytest.raises(RefusedError, match="the mesh of network there has it") as refused:
        await full.put_container("other", taken)
    assert (refused.value.problem.status, refused.value.problem.pointer) == (409, "/ports/0/node")
    await full.put_container("tcp", msgspec.structs.replace(CONTAINER, ports=(PublishedPort(51999, 53),)))
    lent = {
        "laptop": MeshPeer((KEYS[0],), "10.60.1.4/32"),
        "phone": MeshPeer((KEYS[1],), ipv6="fd60:0:0:1::5"),
    }
    await full.put_network("span", span(peers=lent))
    await full.put_container("next", CONTAINER)
    members = {one.container: one.ipv4 for one in (await full.network("span")).containers}
    assert members == {"demo": "10.60.1.2", "tcp": "10.60.1.3", "next": "10.60.1.6"}
