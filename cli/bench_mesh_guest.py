"""The first program of the machine of `zn bench mesh`: it leaves a process behind and becomes the real /init.

That process makes network namespaces of its own: two nodes with a container each, which the node's real managers link
by a mesh, and two hosts that have WireGuard by hand. It does what is typed at the console, as `bench_guest.py` does.
Nothing here is imported by `zn`.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping

sys.path += ["/usr/lib/zeronode/site", "/usr/lib/zeronode"]

from core0.init.phases import Boot, mount_kernel_files
from core0.linux import files, namespaces, netlink, netlink_links, tools
from core0.linux.modules import Modules
from core0.linux.netlink import End, Netlink
from core0.linux.openssl import new_x25519
from core0.linux.wireguard import PeerChange, WireGuard
from core0.mesh.manager import Meshes
from core0.mesh.model import Span
from core0.mesh.resolve import Found
from core0.names.manager import Names
from core0.networks.manager import Networks
from core0.wire.mesh import MeshPeer, MeshSpec
from core0.wire.networks import NetworkSpec

_PORT, _PIECE = 5001, 1 << 18
_WHOLE, _WITHIN = "10.60.0.0/16", "10.61.0.0/24"
# By hand: a host's address within its tunnel, and that of the guest behind a host.
_BARE, _GUEST = "10.70.0.{}", "10.71.{}.2"
_MTU = 1420


def main() -> None:
    """Leave the process behind, become /init."""
    if os.fork() == 0:
        serve()
    os.execv("/init", ["/init", *sys.argv[1:]])  # noqa: S606 — the node's own first program


def serve() -> None:
    """Obey for ever."""
    os.setsid()
    namespaces.leave(namespaces.NEWNS | namespaces.NEWNET)
    mount_kernel_files(Boot())
    console = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
    spaces: dict[str, int] = {}
    with os.fdopen(console, "rb") as lines:
        for line in lines:
            verb, *rest = json.loads(line)
            answer = prepare(spaces) if verb == "prepare" else throughput(spaces, *rest)
            os.write(console, f"bench: {json.dumps(answer)}\n".encode())


class _Keep:
    """A node's state that is nowhere."""

    def __init__(self) -> None:
        self.node = os.urandom(16).hex()
        self._sections: dict[str, bytes] = {}

    def get(self, section: str) -> bytes | None:
        return self._sections.get(section)

    def names(self, prefix: str = "") -> tuple[str, ...]:
        return tuple(sorted(name for name in self._sections if name.startswith(prefix)))

    async def put(self, section: str, value: bytes) -> None:
        self._sections[section] = value

    async def remove(self, section: str) -> None:
        del self._sections[section]


class _Around:
    """A node without names and published ports; the drivers are loaded."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    def spans(self) -> Mapping[str, Span]:
        return {name: Span(spec, *subnets) for name, (spec, subnets) in self._networks.spans().items()}

    def enforce(self) -> None:
        self._networks.guard()

    def watch(self, link: str) -> None:
        self._networks.watch_mesh(link)

    def load(self) -> None:
        return

    def port_owner(self, _: int) -> str:
        return ""

    async def resolve(self, host: str) -> Found:
        return Found(error=f"nobody is asked for {host}")


def prepare(spaces: dict[str, int]) -> str:
    """Make both pairs."""
    tools.mount_tools(Modules.of_running_kernel())
    modules = tools.all_modules()
    for name in ("veth", "wireguard"):
        modules.load(name)
    pairs = (
        "left right",
        "bare1 bare2",
        "host1 host2",
        "container1 container2",
        "guest1 guest2",
        "end1 end2",
    )
    for pair in (*pairs, "beside1", "within1 within2"):
        spaces |= {name: _new_namespace() for name in pair.split()}
    for one, two in (("left", "right"), ("bare1", "bare2"), ("host1", "host2"), ("end1", "end2")):
        _wire(spaces, one, two)
    asyncio.run(_span(spaces))
    _by_hand(spaces, "bare")
    _by_hand(spaces, "host")
    for number in (1, 2):
        _put_behind(spaces[f"host{number}"], spaces[f"guest{number}"], number)
    return "prepared"


def _new_namespace() -> int:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.leave(namespaces.NEWNET)
    made = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with Netlink() as rt:
        rt.apply([netlink.set_up(1)])
    namespaces.enter(before, namespaces.NEWNET)
    os.close(before)
    return made


@contextlib.contextmanager
def _inside(space: int) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.enter(space, namespaces.NEWNET)
    try:
        yield
    finally:
        namespaces.enter(before, namespaces.NEWNET)
        os.close(before)


def _wire(spaces: Mapping[str, int], one: str, two: str) -> None:
    """A cable between two hosts."""
    with _inside(spaces[one]), Netlink() as rt:
        rt.apply([netlink.add_veth(End("wire0"), End("wire0"), spaces[two])])
    for number, name in enumerate((one, two), 1):
        with _inside(spaces[name]), Netlink() as rt:
            index = next(link.index for link in rt.links() if link.name == "wire0")
            rt.apply([netlink.set_up(index), netlink.add_address(index, f"192.0.2.{number}/24")])


async def _span(spaces: Mapping[str, int]) -> None:
    """The node's way: two nodes with a network that spans them, and a container on each."""
    found = [await _node(spaces[name], number) for number, name in enumerate(("left", "right"), 1)]
    keys = [_key_of(meshes) for _, meshes in found]
    for number, ((networks, meshes), space) in enumerate(
        zip(found, (spaces["left"], spaces["right"]), strict=True), 1
    ):
        other = 3 - number
        peer = MeshPeer((keys[other - 1],), f"10.60.{other}.0/24", endpoint=f"192.0.2.{other}:51820")
        with _inside(space):
            await networks.put("span", _network_spec(number, {"other": peer}))
            running = asyncio.create_task(meshes.run())
            await asyncio.sleep(0)
            await meshes.follow()
            running.cancel()
        _attach(networks, "span", 1, space, spaces[f"container{number}"])
    networks, left = found[0][0], spaces["left"]
    _attach(networks, "span", 2, left, spaces["beside1"])
    with _inside(left):
        await networks.put("within", NetworkSpec(_WITHIN, egress="none"))
    for number, name in ((3, "within1"), (4, "within2")):
        _attach(networks, "within", number, left, spaces[name])


def _attach(networks: Networks, network: str, number: int, node: int, container: int) -> None:
    with _inside(node):
        networks.attach(number, f"bench{number}", network, number + 1, container)


def _key_of(meshes: Meshes) -> str:
    mesh = meshes.show("span", _mesh_spec(), ("", ""))
    assert mesh  # noqa: S101 — the network was put a moment ago
    return mesh.public_key


async def _node(space: int, number: int) -> tuple[Networks, Meshes]:
    with _inside(space):
        for name in ("ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv6/conf/all/forwarding"):
            files.write(f"/proc/sys/net/{name}", "1")  # as a node has it (core0.init.phases)
        keep = _Keep()
        networks = Networks(keep, lambda *_: None, Names(lambda *_: None, tuple, _no_fork), lambda _: {})
        meshes = Meshes(keep, lambda *_: None, _Around(networks), new_x25519)
        networks.meshes = lambda: meshes
        await networks.put("span", _network_spec(number, {}))
        return networks, meshes


async def _no_fork(_: int) -> None:
    raise OSError("nobody asks for names here")


def _network_spec(number: int, peers: Mapping[str, MeshPeer]) -> NetworkSpec:
    return NetworkSpec(f"10.60.{number}.0/24", mesh=_mesh_spec(peers))


def _mesh_spec(peers: Mapping[str, MeshPeer] = {}) -> MeshSpec:
    return MeshSpec(_WHOLE, mtu=_MTU, peers=dict(peers))


def _by_hand(spaces: Mapping[str, int], name: str) -> None:
    """The same without a node: two hosts, a link of WireGuard's on each, no filter, no connection tracking."""
    keys = [new_x25519() for _ in range(2)]
    for number in (1, 2):
        other = 3 - number
        with _inside(spaces[f"{name}{number}"]), Netlink() as rt:
            rt.apply([netlink_links.add_wireguard("wg0", 7000, _MTU)])
            wireguard = WireGuard()
            wireguard.set_device(7000, private_key=keys[number - 1][0], port=51820)
            subnets = frozenset({f"{_BARE.format(other)}/32", f"{_GUEST.format(other)}/32"})
            peer = PeerChange(keys[other - 1][1], (f"192.0.2.{other}", 51820), 0, subnets)
            wireguard.set_peers(7000, [peer])
            wireguard.close()
            rt.apply([netlink.set_up(7000), netlink.add_address(7000, f"{_BARE.format(number)}/24")])
            rt.apply([netlink.add_route(f"{_GUEST.format(other)}/32", 7000)])


def _put_behind(host: int, guest: int, number: int) -> None:
    """A guest behind a host, as a container is behind a node, but with nothing in between."""
    address, gateway = _GUEST.format(number), f"10.71.{number}.1"
    with _inside(host), Netlink() as rt:
        files.write("/proc/sys/net/ipv4/ip_forward", "1")
        rt.apply([netlink.add_veth(End("guest", index=8000), End("eth0"), guest, mtu=_MTU)])
        rt.apply([netlink.add_address(8000, f"{gateway}/24")])
    with _inside(guest), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "eth0")
        rt.apply([netlink.set_up(index), netlink.add_address(index, f"{address}/24")])
        rt.apply([netlink.add_route("0.0.0.0/0", index, gateway)])


def throughput(spaces: Mapping[str, int], pair: str, size: int) -> float:
    """Bytes per second of one TCP connection that brings so many bytes from the first to the second."""
    sender, receiver, address = {
        "mesh": ("container1", "container2", "10.60.2.2"),
        "bare": ("bare1", "bare2", _BARE.format(2)),
        "routed": ("guest1", "guest2", _GUEST.format(2)),
        "beside": ("container1", "beside1", "10.60.1.3"),
        "within": ("within1", "within2", "10.61.0.5"),
        "pair": ("end1", "end2", "192.0.2.2"),
    }[pair]
    with _inside(spaces[receiver]):
        server = socket.create_server((address, _PORT))
    child = os.fork()
    if child == 0:
        _swallow(server, size)
    server.close()
    with _inside(spaces[sender]):
        client = socket.create_connection((address, _PORT), timeout=30)
    data = bytes(_PIECE)
    begun = time.perf_counter()
    with client:
        for _ in range(size // _PIECE):
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)  # the other end says when it has all
    taken = time.perf_counter() - begun
    os.waitpid(child, 0)
    return size / taken


def _swallow(server: socket.socket, size: int) -> None:
    connection, _ = server.accept()
    left, place = size, bytearray(_PIECE)
    while left and (got := connection.recv_into(place)):
        left -= got
    connection.sendall(b"!")
    os._exit(0)


if __name__ == "__main__":
    main()
