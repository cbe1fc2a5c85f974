"""What a byte between two containers of a node costs, against a bare pair of links between two namespaces.

Real sockets and the kernel's own TCP; in turn, so that both ways see the same machine. The way between containers is
routed and filtered: two pairs of links, the node between them.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from cli.measure import Measure, ratios
from core0.linux import namespaces, netlink
from core0.linux.netlink import End, Netlink
from core0.networks.manager import Networks
from core0.wire.networks import DEFAULT

_SIZE, _PIECE = 512 << 20, 1 << 20
# Between containers at least 95 % of what passes between the bare ends.
_GOAL = 1 / 0.95
_BARE = ("10.0.0.1", "10.0.0.2")


def measure_throughput(networks: Networks, container: Callable[[], int], runs: int) -> list[Measure]:
    """Send the same by both ways, in turn.

    Args:
        networks: the manager of the namespace that this thread is in.
        container: makes a network namespace, and returns a descriptor of it.
        runs: how often.
    """
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    ours = _containers(networks, container)
    bare = _bare_pair(container)
    took: tuple[list[float], list[float]] = ([], [])
    for way in (ours, bare):
        _transfer(*way)  # the first one finds buffers small
    for _ in range(runs):
        for way, samples in zip((ours, bare), took, strict=True):
            samples.append(_transfer(*way))
    for end in (*ours, *bare):
        end.close()
    between = Measure("512 MiB between two containers", "ms", tuple(took[0]))
    directly = Measure("512 MiB over a bare pair of links", "ms", tuple(took[1]))
    return [between, directly, ratios("between containers, against the bare pair", between, directly, _GOAL)]


def _containers(networks: Networks, container: Callable[[], int]) -> tuple[socket.socket, socket.socket]:
    """A connection from one container to another."""
    spaces, addresses = [], []
    for number, name in ((1, "one"), (2, "two")):
        space = container()
        networks.attach(number, name, DEFAULT, number + 1, space)
        spaces.append(space)
        addresses.append(networks.addresses(DEFAULT, number + 1)[0])
    return _connect(spaces, addresses[1])


def _bare_pair(container: Callable[[], int]) -> tuple[socket.socket, socket.socket]:
    """A connection over two links that are each other's ends."""
    spaces = [container(), container()]
    _inside(spaces[0], _add_pair, spaces[1])
    for space, address in zip(spaces, _BARE, strict=True):
        _inside(space, _set_up, address)
    return _connect(spaces, _BARE[1])


def _add_pair(other: int) -> None:
    with Netlink() as rtnetlink:
        rtnetlink.apply([netlink.add_veth(End("eth0"), End("eth0"), other)])


def _set_up(address: str) -> None:
    with Netlink() as rtnetlink:
        index = next(link.index for link in rtnetlink.links() if link.name == "eth0")
        rtnetlink.apply([netlink.set_up(index), netlink.add_address(index, f"{address}/30")])


def _inside(space: int, work: Callable[..., object], *arguments: object) -> object:
    """Do something in a network namespace: a socket that it makes stays there."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.enter(space, namespaces.NEWNET)
    try:
        return work(*arguments)
    finally:
        namespaces.enter(before, namespaces.NEWNET)
        os.close(before)


def _connect(spaces: list[int], address: str) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection from the first namespace to the second one's address."""
    server = _inside(spaces[1], socket.create_server, (address, 0))
    assert isinstance(server, socket.socket)  # noqa: S101
    with server:
        client = _inside(spaces[0], socket.create_connection, server.getsockname(), 10.0)
        assert isinstance(client, socket.socket)  # noqa: S101
        client.settimeout(None)
        accepted, _ = server.accept()
    for space in spaces:
        os.close(space)
    return client, accepted


def _transfer(client: socket.socket, server: socket.socket) -> float:
    """Milliseconds that a process takes to send all to this one."""
    begun = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        piece = bytes(_PIECE)
        for _ in range(_SIZE // _PIECE):
            client.sendall(piece)
        os._exit(0)
    left, space = _SIZE, bytearray(_PIECE)
    while left:
        left -= server.recv_into(space, min(left, _PIECE))
    taken = 1000 * (time.perf_counter() - begun)
    os.waitpid(pid, 0)
    return taken
