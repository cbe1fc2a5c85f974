"""`zn network mesh`, `join`, `leave` and `rotate` against a node's real API."""

import base64
import configparser
import stat
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace

from cli import context as contexts
from cli.network_mesh import _end, _Node
from core0.wire.mesh import Mesh, MeshPeer
from core0.wire.networks import Network
from tests.cli.conftest import Said, Zn
from tests.host_node import HostNode

MESH = (
    "--nodes",
    "local",
    "--ipv4",
    "10.60.0.0/16",
    "--ipv6",
    "fd60::/48",
    "--endpoint",
    "local=203.0.113.1",
)


def shown(zn: Zn, name: str = "span") -> tuple[Mesh, dict[str, MeshPeer], Network]:
    said = zn("network", "show", name, "--json")
    assert said.code == 0, said.err
    network = msgspec.json.decode(said.out, type=Network)
    assert network.mesh
    assert network.spec.mesh
    return network.mesh, network.spec.mesh.peers, network


def done(said: Said) -> str:
    assert said.code == 0, said.err
    return said.out


def test_a_node_gets_a_part_of_the_mesh_and_the_same_again_changes_nothing(node: HostNode, zn: Zn) -> None:
    assert "spans local" in done(zn("network", "mesh", "span", *MESH))
    before = shown(zn)
    assert (before[2].ipv4, before[2].ipv6) == ("10.60.1.0/24", "fd60:0:0:1::/64")
    done(zn("network", "mesh", "span", "--nodes", "local", "--endpoint", "local=203.0.113.1:7"))
    assert shown(zn) == before
    table = done(zn("network", "show", "span"))
    assert before[0].public_key in table
    assert "no peers" in table


def test_a_laptop_joins_with_a_ready_config_and_leaves(node: HostNode, zn: Zn, tmp_path: Path) -> None:
    done(zn("network", "mesh", "span", *MESH))
    file = tmp_path / "laptop.conf"
    joined = zn("network", "join", "span", "--endpoint", "203.0.113.1:51820", "--out", str(file))
    assert "wg-quick up" in done(joined)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    read = configparser.ConfigParser()
    read.read(file)
    mesh, peers, _ = shown(zn)
    private = X25519PrivateKey.from_private_bytes(base64.b64decode(read["Interface"]["PrivateKey"]))
    assert base64.b64decode(peers["laptop"].public_keys[0]) == private.public_key().public_bytes_raw()
    assert read["Interface"]["Address"] == "10.60.1.2/32, fd60:0:0:1::2/128"
    assert (peers["laptop"].ipv4, peers["laptop"].ipv6) == ("10.60.1.2", "fd60:0:0:1::2")
    assert dict(read["Peer"]) == {
        "publickey": mesh.public_key,
        "allowedips": "10.60.0.0/16, fd60::/48",
        "endpoint": "203.0.113.1:51820",
        "persistentkeepalive": "25",
    }
    printed = done(zn("network", "join", "span", "--name", "phone", "--endpoint", "[2001:db8::1]:51820"))
    assert "10.60.1.3/32" in printed
    assert "Endpoint = [2001:db8::1]:51820" in printed
    assert "laptop is no peer" in done(zn("network", "leave", "span", "laptop"))
    assert set(shown(zn)[1]) == {"phone"}


def test_what_cannot_join_leaves_no_file_and_no_peer(node: HostNode, zn: Zn, tmp_path: Path) -> None:
    done(zn("network", "mesh", "span", *MESH))
    file = tmp_path / "laptop.conf"
    where = ("--endpoint", "203.0.113.1:51820", "--out", str(file))
    for words, said in (
        (("join", "default", *where), "it does not span nodes"),
        (("join", "span", "--name", "My Laptop", *where), "use small letters"),
        (("join", "span", "--out", str(file)), "give --endpoint HOST:51820"),
        (("join", "span", "--out", str(tmp_path)), "choose another file"),
        (("leave", "span", "laptop"), "has no peer 'laptop'; it has none"),
        (("rotate", "span", "--nodes", "local,local"), "name each context once"),
        (("mesh", "span", "--nodes", "local,other"), "cannot find context 'other'"),
        (("mesh", "other", "--nodes", "local"), "give --ipv4 or --ipv6"),
        (("mesh", "other", "--nodes", "local", "--ipv4", "10.1"), "cannot use '10.1' as the mesh"),
        (("mesh", "other", "--nodes", "local", "--ipv4", "10.61.0.0/16"), "give one an --endpoint"),
        (("mesh", "span", "--nodes", "local", "--endpoint", "local"), "write it as NODE=HOST:PORT"),
    ):
        refused = zn("network", *words)
        assert refused.code != 0
        assert said in refused.err, words
    assert not file.exists()
    assert shown(zn)[1] == {}


def test_a_node_whose_peers_are_none_gets_another_key_at_once(
    node: HostNode, zn: Zn, contexts_file: Path
) -> None:
    done(zn("network", "mesh", "span", *MESH))
    before = shown(zn)[0]
    assert "local has another key" in done(zn("network", "rotate", "span", "--nodes", "local"))
    after = shown(zn)[0]
    assert after.public_key != before.public_key
    assert after.next_public_key is None
    assert contexts.load(contexts_file).current == "local"


def test_a_node_is_reached_where_it_is_said_to_be_else_where_the_others_know_it(
    node: HostNode, zn: Zn
) -> None:
    done(zn("network", "mesh", "span", *MESH))
    mesh, _, network = shown(zn)
    assert network.spec.mesh
    key = "A" * 42 + "E="
    peers = {"far": MeshPeer((key,), "10.60.9.0/24", endpoint="far.example:7")}
    other = replace(network, spec=replace(network.spec, mesh=replace(network.spec.mesh, peers=peers)))
    parts = {"far": replace(network, mesh=replace(mesh, public_key=key)), "other": other}
    for host, given, end in (
        ("127.0.0.1", {}, "far.example:7"),
        ("192.0.2.1", {}, "far.example:7"),
        ("192.0.2.1", {"far": "2001:db8::1"}, "[2001:db8::1]:51820"),
        ("192.0.2.1", {"far": "[2001:db8::1]:9"}, "[2001:db8::1]:9"),
        ("192.0.2.1", {"far": "far.example"}, "far.example:51820"),
    ):
        assert _end(_Node("far", None, host), parts, given) == end  # type: ignore[arg-type]  # it is not asked
    alone = {"far": parts["far"]}
    assert _end(_Node("far", None, "192.0.2.1"), alone, {}) == "192.0.2.1:51820"  # type: ignore[arg-type]
    assert _end(_Node("far", None, "127.0.0.1"), alone, {}) == ""  # type: ignore[arg-type]
