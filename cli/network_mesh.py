"""`zn network mesh`, `join`, `leave` and `rotate`: networks that span nodes, and single machines in them."""

import asyncio
import base64
import ipaddress
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, TextIO

import msgspec
import typer

from cli import context
from cli.connect import call, client_of
from cli.frame import Settings
from cli.outcome import ExitCode, Failure
from cli.output import print_line, print_text
from core0.client.client import NodeClient, RefusedError
from core0.wire.mesh import Mesh, MeshPeer, MeshSpec, PeerName
from core0.wire.networks import Network, NetworkSpec
from core0.wire.subnets import Subnet, parse_part, parse_subnet

# Seconds between packets of who is behind a NAT; those forget a way after 30 or more.
_KEEPALIVE = 25
# A node's part of a mesh that `zn` chooses: bits of its prefix.
_PARTS = {"ipv4": 24, "ipv6": 64}
# Numbers that no container and no machine has: the subnet's, and the node's own.
_FIRST_HOST = 2
# Seconds until the peers of a node must have taken its other key: they look each second, and shake hands again after
# five when a packet was lost.
_FOLLOW, _LOOK_AGAIN = 30.0, 0.5

Nodes = Annotated[str, typer.Option(help="Contexts of the nodes, with commas between them.")]


@dataclass(frozen=True)
class _Node:
    """A node of a mesh: its context's name is how the others call it."""

    name: str
    client: NodeClient
    host: str

    async def network(self, name: str) -> Network | None:
        """Its part of a network; None if it has none of that name."""
        try:
            return await self.client.network(name)
        except RefusedError as error:
            if error.problem.status != HTTPStatus.NOT_FOUND:
                raise
        return None


def join(
    ctx: typer.Context,
    network: str,
    name: Annotated[str, typer.Option(help="How the node calls this machine.")] = "laptop",
    endpoint: Annotated[
        str | None, typer.Option(help="HOST:PORT of the node; otherwise its context's host.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write instead of printing it.")] = None,
) -> None:
    """Let a machine into a network that spans nodes: prints a ready config for wg-quick, with a new key.

    Example: zn network join span --name laptop --endpoint 203.0.113.1:51820 --out laptop.conf
    """
    host = _host_of(context.choose(ctx.obj.contexts, ctx.obj.context).address)

    async def work(client: NodeClient) -> str:
        return await _join(client, network, _peer_name(name), endpoint, host)

    with _secret_file(out) as file:
        text = call(ctx.obj, work)
        if file:
            file.write(text)
    print_text(f"{out} is ready: wg-quick up ./{out}" if out else text.rstrip())


async def _join(client: NodeClient, network: str, name: str, endpoint: str | None, host: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    there = await client.network(network)
    mesh, spec = _mesh_of(there)
    if name in spec.peers:
        raise Failure(f"cannot join as {name}: there is a peer of that name; choose another with --name")
    reached = endpoint or _reached(host, mesh)
    key = X25519PrivateKey.generate()
    own = _free_addresses(there, spec)
    peer = MeshPeer((_text(key.public_key().public_bytes_raw()),), own.get("ipv4"), own.get("ipv6"))
    await client.put_network(network, _with_peers(there, {**spec.peers, name: peer}))
    return _wg_quick(_text(key.private_bytes_raw()), own, spec, mesh, reached)


def _wg_quick(private: str, own: Mapping[str, str], spec: MeshSpec, mesh: Mesh, endpoint: str) -> str:
    """A file for wg-quick(8)."""
    addresses = ", ".join(f"{address}/{128 if ':' in address else 32}" for address in own.values())
    wholes = ", ".join(filter(None, (spec.ipv4, spec.ipv6)))
    return (
        f"[Interface]\nPrivateKey = {private}\nAddress = {addresses}\nMTU = {spec.mtu}\n\n"
        f"[Peer]\nPublicKey = {mesh.public_key}\nAllowedIPs = {wholes}\nEndpoint = {endpoint}\n"
        f"PersistentKeepalive = {_KEEPALIVE}\n"
    )


def _free_addresses(network: Network, spec: MeshSpec) -> dict[str, str]:
    """The first number of the node's part that nobody has, as an address of each family that spans nodes."""
    parts = {family: parse_subnet(getattr(network, family)) for family in _PARTS if getattr(spec, family)}
    taken = {getattr(member, family) for member in network.containers for family in _PARTS}
    taken |= {
        parse_part(text).address(0) for peer in spec.peers.values() for text in (peer.ipv4, peer.ipv6) if text
    }
    last = min(part.size for part in parts.values()) - 1
    for host in range(_FIRST_HOST, last):
        found = {family: part.address(host) for family, part in parts.items()}
        if taken.isdisjoint(found.values()):
            return found
    raise Failure(f"cannot join: all addresses of {network.ipv4} are in use; remove a container or a peer")


def leave(ctx: typer.Context, network: str, name: str) -> None:
    """Let a machine, or another node, into a network no more.

    Example: zn network leave span laptop
    """

    async def work(client: NodeClient) -> None:
        there = await client.network(network)
        _, spec = _mesh_of(there)
        if name not in spec.peers:
            known = ", ".join(sorted(spec.peers)) or "none"
            raise Failure(
                f"cannot leave: network {network} has no peer {name!r}; it has {known}", ExitCode.REFUSED
            )
        left = {other: peer for other, peer in spec.peers.items() if other != name}
        await client.put_network(network, _with_peers(there, left))

    call(ctx.obj, work)
    print_line(f"{name} is no peer of network {network} any more")


def mesh(
    ctx: typer.Context,
    network: str,
    nodes: Nodes,
    ipv4: Annotated[
        str | None, typer.Option(help="The whole mesh, for nodes that have no part of it yet.")
    ] = None,
    ipv6: Annotated[str | None, typer.Option(help="The same for IPv6.")] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="NODE=HOST or NODE=HOST:PORT, where the others reach it; else its context's host."),
    ] = None,
    hidden: Annotated[
        list[str] | None, typer.Option(help="A node that the others cannot reach: it reaches them.")
    ] = None,
) -> None:
    """Have a network span nodes: each gets a part of the mesh, and knows the others' keys. Idempotent.

    Example: zn network mesh span --nodes hub,left --ipv4 10.60.0.0/16 --ipv6 fd60::/48
    """
    wholes = {"ipv4": ipv4, "ipv6": ipv6}
    given = dict(_pair(text) for text in endpoint or ())

    async def work(found: Sequence[_Node]) -> None:
        parts = await _spread(found, network, wholes)
        ends = {one.name: _end(one, parts, given) for one in found if one.name not in (hidden or ())}
        await _introduce(found, parts, {name: text for name, text in ends.items() if text})

    _with_nodes(ctx.obj, nodes, work)
    print_line(f"network {network} spans {nodes}; see zn network show {network}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, where = text.partition("=")
    if not equals or not where:
        raise Failure(f"cannot read --endpoint {text!r}: write it as NODE=HOST:PORT", ExitCode.USAGE)
    return name, where


async def _spread(
    nodes: Sequence[_Node], network: str, wholes: Mapping[str, str | None]
) -> dict[str, Network]:
    """The network on each node; made where there is none, with a part of the mesh that no other has."""
    found = {node.name: await node.network(network) for node in nodes}
    parts = {name: there for name, there in found.items() if there and there.mesh}
    for node in nodes:
        if node.name not in parts:
            spec = _part_spec(node.name, found[node.name], tuple(parts.values()), wholes)
            parts[node.name] = await node.client.put_network(network, spec)
    return parts


def _part_spec(
    name: str, there: Network | None, others: Sequence[Network], wholes: Mapping[str, str | None]
) -> NetworkSpec:
    given = {family: text for family, text in wholes.items() if text}
    if not given:
        said = f"cannot have node {name} in the mesh: it has no part of it; give --ipv4 or --ipv6, the whole mesh"
        raise Failure(said, ExitCode.USAGE)
    own = {family: str(_free_part(family, text, others)) for family, text in given.items()}
    base = there.spec if there else NetworkSpec()
    return msgspec.structs.replace(base, **own, mesh=MeshSpec(given.get("ipv4"), given.get("ipv6")))


def _free_part(family: str, text: str, others: Sequence[Network]) -> Subnet:
    """The first part of a mesh that none of its nodes has, not counting the one that begins as the mesh does."""
    try:
        whole = parse_subnet(text)
    except ValueError as error:
        raise Failure(f"cannot use {text!r} as the mesh: {error}", ExitCode.USAGE) from None
    length = _PARTS[family]
    taken = [parse_subnet(getattr(other, family)) for other in others]
    for number in range(1, 1 << max(0, min(length - whole.length, 16))):
        part = Subnet(whole.family, whole.first + (number << (whole.bits - length)), length)
        if not any(part.overlaps(other) for other in taken):
            return part
    raise Failure(f"cannot find a /{length} within {text} that no node has; give a shorter prefix")


def _end(node: _Node, parts: Mapping[str, Network], given: Mapping[str, str]) -> str:
    """Where the others reach a node: as given, as they know already, or where its context does.

    Empty if they do not: a loopback address is this machine's alone.
    """
    there, _ = _mesh_of(parts[node.name])
    if node.name in given:
        where = given[node.name]
        has_port = where.rpartition(":")[2].isdecimal() and (where.count(":") == 1 or "]:" in where)
        return where if has_port else _joined(where.strip("[]"), there.port)
    known = _known_end(there.public_key, parts.values())
    return known or ("" if _is_loopback(node.host) else _joined(node.host, there.port))


def _known_end(key: str, others: Iterable[Network]) -> str:
    """Where one of the nodes reaches the peer of a key; empty if none does."""
    peers = (peer for other in others for peer in _mesh_of(other)[1].peers.values())
    return next((peer.endpoint for peer in peers if peer.endpoint and key in peer.public_keys), "")


async def _introduce(nodes: Sequence[_Node], parts: Mapping[str, Network], ends: Mapping[str, str]) -> None:
    """Tell each node of the others; its other peers stay."""
    hub = next(iter(ends), None)
    if hub is None:
        said = "cannot connect them: none of the nodes can be reached by the others; give one an --endpoint"
        raise Failure(said, ExitCode.USAGE)
    for node in nodes:
        own, spec = parts[node.name], _mesh_of(parts[node.name])[1]
        peers = {
            other.name: _peer_of(
                parts[other.name], ends.get(other.name), hub, is_hidden=node.name not in ends
            )
            for other in nodes
            if other is not node
        }
        await node.client.put_network(own.name, _with_peers(own, {**spec.peers, **peers}))


def _peer_of(part: Network, end: str | None, hub: str, *, is_hidden: bool) -> MeshPeer:
    """A node as another one sees it, which may be hidden itself."""
    there, spec = _mesh_of(part)
    keys = tuple(key for key in (there.public_key, there.next_public_key) if key)
    own = {family: getattr(part, family) for family in _PARTS if getattr(spec, family)}
    if end:
        return MeshPeer(keys, **own, endpoint=end, keepalive=_KEEPALIVE if is_hidden else None)
    return MeshPeer(keys, **own, via=hub if is_hidden else None)


def rotate(ctx: typer.Context, network: str, nodes: Nodes) -> None:
    """Give the chosen node another key, without dropping a flow; `--nodes` are its peers (itself does not matter).

    Example: zn --context left network rotate span --nodes hub,left,hidden
    """
    contexts = context.load(ctx.obj.contexts)
    name = ctx.obj.context or contexts.current or ""
    names = [one for one in _names(nodes) if one != name]

    async def work(found: Sequence[_Node]) -> None:
        await _rotate(found[0].client, found[1:], network)

    _with_nodes(ctx.obj, ",".join((name, *names)), work)
    print_line(f"{name} has another key in network {network}")


async def _rotate(client: NodeClient, peers: Sequence[_Node], network: str) -> None:
    old, _ = _mesh_of(await client.network(network))
    prepared, _ = _mesh_of(await client.prepare_mesh_key(network))
    new = prepared.next_public_key
    assert new  # noqa: S101 — the node has just said so
    for peer in peers:
        await _declare(peer, network, old.public_key, (old.public_key, new))
    await client.activate_mesh_key(network)
    late = [peer.name for peer in peers if not await _follows(peer, network, new)]
    for peer in peers:
        if peer.name not in late:
            await _declare(peer, network, new, (new,))
    if late:
        said = (
            f"the key was changed, but {', '.join(late)} did not follow within {_FOLLOW:.0f} s and knows both"
        )
        raise Failure(f"{said}; see 'zn network show {network}' there, and run zn network mesh later")


async def _declare(node: _Node, network: str, known: str, keys: tuple[str, ...]) -> None:
    """Let a node know the peer of a key by these keys. Raises Failure: it does not know that one."""
    there = await node.client.network(network)
    _, spec = _mesh_of(there)
    name = next((name for name, peer in spec.peers.items() if known in peer.public_keys), None)
    if name is None:
        said = f"cannot change the key: node {node.name} does not know it; run zn network mesh first"
        raise Failure(said, ExitCode.REFUSED)
    changed = msgspec.structs.replace(spec.peers[name], public_keys=keys)
    await node.client.put_network(network, _with_peers(there, {**spec.peers, name: changed}))


async def _follows(node: _Node, network: str, new: str) -> bool:
    """Whether a node uses a peer's other key in time; one that had no handshake with it need not."""
    try:
        async with asyncio.timeout(_FOLLOW):
            while True:
                there, spec = _mesh_of(await node.client.network(network))
                name = next(name for name, peer in spec.peers.items() if new in peer.public_keys)
                seen = next(peer for peer in there.peers if peer.name == name)
                if spec.peers[name].via or seen.public_key == new or seen.handshake_seconds is None:
                    return True
                await asyncio.sleep(_LOOK_AGAIN)
    except TimeoutError:
        return False


def _mesh_of(network: Network) -> tuple[Mesh, MeshSpec]:
    """A network's mesh as it is, and as it is wished for. Raises Failure: it has none."""
    if network.mesh is None or network.spec.mesh is None:
        said = f"cannot do that with network {network.name}: it does not span nodes; zn network mesh has it do so"
        raise Failure(said, ExitCode.REFUSED)
    return network.mesh, network.spec.mesh


def _with_peers(network: Network, peers: Mapping[str, MeshPeer]) -> NetworkSpec:
    spec = network.spec
    assert spec.mesh  # noqa: S101 — asked before
    return msgspec.structs.replace(spec, mesh=msgspec.structs.replace(spec.mesh, peers=dict(peers)))


def _with_nodes(settings: Settings, nodes: str, work: Callable[[Sequence[_Node]], Awaitable[None]]) -> None:
    """Do some work with several nodes, by the names of their contexts."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            found = []
            for name in _names(nodes):
                chosen = context.choose(settings.contexts, name)
                client = await stack.enter_async_context(client_of(settings.contexts, chosen))
                found.append(_Node(_peer_name(name), client, _host_of(chosen.address)))
            await work(found)

    asyncio.run(run())


def _names(nodes: str) -> list[str]:
    names = [name.strip() for name in nodes.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise Failure(f"cannot read --nodes {nodes!r}: name each context once", ExitCode.USAGE)
    return names


def _peer_name(name: str) -> str:
    try:
        return msgspec.convert(name, PeerName)
    except msgspec.ValidationError:
        said = f"cannot call a peer {name!r}: use small letters, digits and hyphens, 40 at most"
        raise Failure(said, ExitCode.USAGE) from None


def _host_of(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached(host: str, mesh: Mesh) -> str:
    if _is_loopback(host):
        said = f"cannot tell where the node is reached: its context says {host}; give --endpoint HOST:{mesh.port}"
        raise Failure(said, ExitCode.USAGE)
    return _joined(host, mesh.port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


@contextmanager
def _secret_file(path: Path | None) -> Iterator[TextIO | None]:
    """A new file that only its owner reads; it goes again if the block fails."""
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}; choose another file", ExitCode.USAGE) from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
