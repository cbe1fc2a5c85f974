"""A site in network namespaces: a node with containers, a host on its LAN, a host in the Internet, real packets.

The node's part is the real network manager; a container is a namespace whose end of the link the template's own code
configures. A namespace has no process: a socket stays in the one where it was made.
"""

import asyncio
import contextlib
import errno
import os
import re
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from core0.init.phases import SYSCTLS
from core0.linux import namespaces, netlink, netlink_links
from core0.linux.netlink import End, Netlink
from core0.names.manager import Names
from core0.networks.manager import Networks
from core0.wire.network import GATEWAY, GATEWAY6
from core0.wire.networks import NetworkSpec
from core0.wire.types import PublishedPort
from tests.core0.networks.kept import KeptInMemory

NODE = ("192.168.7.1", "2001:db8:7::1")
LAN = ("192.168.7.2", "2001:db8:7::2")
INTERNET = ("203.0.113.9", "2001:db8:99::9")
_UPLINK = ("172.31.0.1", "fd31::1")
_ROUTER = ("172.31.0.2", "fd31::2")
ECHO_PORT = 7000
# Seconds that a packet between namespaces of one machine takes at most: what was dropped takes all of it. What shall
# arrive has the time that a busy machine needs.
_PATIENCE, _LONG = 0.2, 10.0
_ROOT = Path(__file__).parents[3]


def kernel_rules() -> str:
    """The packet filter in force, but for the links that it looks at: Linux 6.16 keeps the names of gone ones."""
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return re.sub(r"devices = \{.*?\}", "devices", listed)


def unasked_names() -> Names:
    """Who would answer for names, in tests where nobody asks."""

    async def fork(_: int) -> None:
        raise OSError("no template is there")

    return Names(lambda *_: None, tuple, fork)


class Site:
    """The namespaces by name, and the node's manager. Use it with `with`, inside a running loop."""

    def __init__(self) -> None:
        self._spaces: dict[str, int] = {}
        self._servers: list[socket.socket] = []
        self._linked: dict[int, tuple[tuple[str, str], Sequence[PublishedPort]]] = {}
        self._of_links: dict[str, tuple[int, list[netlink.Request]]] = {}
        self._patience = _PATIENCE
        self.hosts: dict[str, dict[str, int]] = {}
        self.keep = KeptInMemory()
        self.nameservers: tuple[str, ...] = (LAN[0],)
        self.answering: list[subprocess.Popen[bytes]] = []
        self.names = Names(self.keep.report, lambda: self.nameservers, self._fork_names)
        self.addresses: dict[str, tuple[str, str]] = {"node": NODE, "lan": LAN, "internet": INTERNET}

    def __enter__(self) -> "Site":
        for name in ("node", "lan", "internet"):
            self._make(name)
        self._link("node", "lan", (NODE, LAN), (24, 64))
        self._link("node", "internet", (_UPLINK, _ROUTER), (30, 64))
        with self.inside("internet"), Netlink() as rt:
            rt.apply(
                [netlink.add_address(1, f"{INTERNET[0]}/32"), netlink.add_address(1, f"{INTERNET[1]}/128")]
            )
        with self.inside("node"):
            self._route("internet0", ("0.0.0.0/0", "::/0"), _ROUTER)
            for name, value in SYSCTLS.items():
                if name.startswith("net/"):
                    Path("/proc/sys", name).write_text(value)
            self.networks = self._manage()
        return self

    def _manage(self) -> Networks:
        return Networks(self.keep, self.keep.report, self.names, lambda name: self.hosts.get(name, {}))

    async def answer_names(self) -> asyncio.Task[None]:
        """Have containers' questions for names answered, as the node daemon has it."""
        running = asyncio.create_task(self.names.run())
        with self.inside("node"):  # where it listens
            for _ in range(4):
                await asyncio.sleep(0)
        return running

    async def _fork_names(self, talk: int) -> None:
        """What the template does, but for the privileges: a process in the node's namespace."""
        code = "import socket, sys; from core0.names.main import main; main(socket.socket(fileno=int(sys.argv[1])))"
        with self.inside("node"):
            command = [sys.executable, "-c", code, str(talk)]
            self.answering.append(subprocess.Popen(command, pass_fds=[talk], cwd=_ROOT))  # noqa: ASYNC220

    async def restart(self) -> None:
        """Have another manager, as another node daemon of the same boot has it."""
        self.networks.close()
        with self.inside("node"):
            self.networks = self._manage()
            for number, (addresses, ports) in self._linked.items():
                name = next(name for name, its in self.addresses.items() if its == addresses)
                network = next(network for network, hosts in self.hosts.items() if name in hosts)
                self.networks.resume(number, name, network, addresses, ports)
            self.networks.enforce()

    def __exit__(self, *_: object) -> None:
        self.networks.close()
        self.names.close()
        for process in self.answering:
            process.kill()
            process.wait()
        for server in self._servers:
            server.close()
        for space in self._spaces.values():
            os.close(space)

    def _make(self, name: str) -> None:
        before = namespaces.open_namespace(os.getpid(), "net")
        try:
            namespaces.leave(namespaces.NEWNET)
            self._spaces[name] = namespaces.open_namespace(os.getpid(), "net")
            with Netlink() as rt:
                rt.apply([netlink.set_up(1)])
        finally:
            namespaces.enter(before, namespaces.NEWNET)
            os.close(before)

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Have this thread in a namespace: what it makes belongs there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        namespaces.enter(self._spaces[name], namespaces.NEWNET)
        try:
            yield
        finally:
            namespaces.enter(before, namespaces.NEWNET)
            os.close(before)

    def _link(self, here: str, there: str, ends: Sequence[tuple[str, str]], lengths: tuple[int, int]) -> None:
        with self.inside(here), Netlink() as rt:
            rt.apply([netlink.add_veth(End(f"{there}0"), End(f"{here}0"), self._spaces[there])])
        for inside, name, addresses in ((here, f"{there}0", ends[0]), (there, f"{here}0", ends[1])):
            with self.inside(inside), Netlink() as rt:
                index = next(link.index for link in rt.links() if link.name == name)
                pairs = zip(addresses, lengths, strict=True)
                added = [
                    netlink.add_address(index, f"{one}/{length}", properties=netlink.UNIQUE)
                    for one, length in pairs
                ]
                rt.apply([netlink.set_up(index), *added])

    def _route(self, link: str, destinations: Sequence[str], gateways: Sequence[str]) -> None:
        with Netlink() as rt:
            index = next(one.index for one in rt.links() if one.name == link)
            ways = zip(destinations, gateways, strict=True)
            rt.apply([netlink.add_route(destination, index, gateway) for destination, gateway in ways])

    def link(
        self, index: int, link: str, name: str, reached: Sequence[str], addresses: dict[str, tuple[str, str]]
    ) -> None:
        """A host behind another link of the node: with these addresses, and every way leads back to the node.

        Args:
            index: the link's number on the node.
            link: what the node calls it.
            name: the host.
            reached: what the node reaches by it.
            addresses: the host's, by names that probes can use.
        """
        self._make(name)
        with self.inside("node"), Netlink() as rt:
            end, peer = End(link, "02:5a:4e:02:00:01", index), End("node0", "02:5a:4e:02:00:02")
            rt.apply([netlink.add_veth(end, peer, self._spaces[name])])
            ways = [netlink.add_route(way, index) for way in reached]
            known = [
                netlink.add_neighbour(index, one, peer.hardware)
                # all by the gateways: a link of WireGuard's asks for nobody's hardware address
                for both in (*addresses.values(), (GATEWAY, GATEWAY6))
                for one in both
            ]
            self._of_links[link] = (index, [netlink.forbid_link_local(index), *ways, *known])
            rt.apply(self._of_links[link][1])
        with self.inside(name), Netlink() as rt:
            index = next(one.index for one in rt.links() if one.name == "node0")
            own = [
                netlink.add_address(index, f"{one}/{128 if ':' in one else 32}", properties=netlink.UNIQUE)
                for both in addresses.values()
                for one in both
            ]
            gateways = (GATEWAY, GATEWAY6)
            known = [netlink.add_neighbour(index, gateway, end.hardware) for gateway in gateways]
            rt.apply([netlink.set_up(index), *own, *known, netlink.add_route(f"{GATEWAY}/32", index)])
            self._route("node0", ("0.0.0.0/0", "::/0"), gateways)
        for alias, both in addresses.items():
            self._spaces[alias] = os.dup(self._spaces[name])
            self.addresses[alias] = both

    @contextlib.contextmanager
    def without_link(self, link: str) -> Iterator[None]:
        """A link that was made by `link` is down meanwhile."""
        index, requests = self._of_links[link]
        with self.inside("node"), Netlink() as rt:
            rt.apply([netlink_links.set_down(index)])
        yield
        with self.inside("node"), Netlink() as rt:
            rt.apply([netlink.set_up(index), *requests])

    def route_back(self, subnets: tuple[str, str], host: str = "internet") -> None:
        """Have a host send a routed network's packets to the node."""
        gateways = _UPLINK if host == "internet" else NODE
        with self.inside(host):
            self._route("node0", subnets, gateways)

    async def put(self, name: str, spec: NetworkSpec) -> tuple[str, str]:
        """Have a network; returns its subnets."""
        with self.inside("node"):
            made = await self.networks.put(name, spec)
        return made.ipv4, made.ipv6

    def add_container(self, name: str, network: str = "default", ports: Sequence[PublishedPort] = ()) -> None:
        """Link a container, as the container manager does it."""
        number = 1 + sum(map(len, self.hosts.values()))
        self._make(name)
        used = tuple(self.hosts.get(network, {}).values())
        host = self.networks.choose_host(network, used)
        self.hosts.setdefault(network, {})[name] = host
        with self.inside("node"):
            self.networks.attach(number, name, network, host, self._spaces[name])
            self.addresses[name] = self.networks.addresses(network, host)
            self.networks.publish(number, ports)
        self._linked[number] = (self.addresses[name], ports)

    @contextlib.contextmanager
    def come_and_go(self, network: str, ports: Sequence[PublishedPort]) -> Iterator[None]:
        """A container that is linked for a while."""
        self._make("guest")
        with self.inside("node"):
            used = tuple(self.hosts.get(network, {}).values())
            host = self.networks.choose_host(network, used)
            self.networks.attach(500, "guest", network, host, self._spaces["guest"])
            self.networks.publish(500, ports)
        yield
        with self.inside("node"):
            self.networks.detach(500)
        os.close(self._spaces.pop("guest"))

    # traffic

    @contextlib.contextmanager
    def without_forwarding(self) -> Iterator[None]:
        """The node's IP stack forwards no packet meanwhile."""
        for value in ("0", "1"):
            with self.inside("node"):
                for family in ("ipv4", "ipv6"):
                    Path(f"/proc/sys/net/{family}/conf/all/forwarding").write_text(value)
            if value == "0":
                yield

    def serve(self, name: str, port: int = ECHO_PORT) -> None:
        """Answer on TCP and UDP, on both families."""
        with self.inside(name):
            for address in self.addresses[name]:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    server = socket.socket(_family(address), kind)
                    server.bind((address, port))
                    if kind == socket.SOCK_STREAM:
                        server.listen(512)
                    self._servers.append(server)

    def listener(self, name: str, family: int, port: int = ECHO_PORT) -> socket.socket:
        """Where a host that serves accepts connections."""
        wanted = (self.addresses[name][family], port)
        streams = (one for one in self._servers if one.type == socket.SOCK_STREAM)
        return next(one for one in streams if one.getsockname()[:2] == wanted)

    def gets_through(self, source: str, target: str, how: str, port: int = ECHO_PORT) -> bool:
        """The same of a packet that shall get there and back."""
        self._patience = _LONG
        try:
            return self.reaches(source, target, how, port)
        finally:
            self._patience = _PATIENCE

    def reaches(self, source: str, target: str, how: str, port: int = ECHO_PORT) -> bool:
        """Whether a packet of a host gets to an address and an answer back: by tcp, udp or icmp."""
        with self.inside(source):
            return {"tcp": self._tcp, "udp": self._udp, "icmp": self._icmp}[how](target, port)

    def _tcp(self, target: str, port: int) -> bool:
        with socket.socket(_family(target), socket.SOCK_STREAM) as client:
            client.setblocking(False)
            done = client.connect_ex((target, port))
            if done == errno.EINPROGRESS:
                select.select([], [client], [], self._patience)
                done = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                with contextlib.suppress(OSError):
                    client.getpeername()
                    return done == 0
                return False
            return done == 0

    def _udp(self, target: str, port: int) -> bool:
        """The servers' sockets are in this process: they are asked to answer here."""
        with socket.socket(_family(target), socket.SOCK_DGRAM) as client:
            try:
                client.sendto(b"hello", (target, port))
            except OSError:
                return False
            ready = self.arrived()
            for server in ready:
                data, sender = server.recvfrom(64)
                server.sendto(data, sender)
            return bool(select.select([client], [], [], self._patience if ready else 0)[0])

    def arrived(self) -> list[socket.socket]:
        """The servers for which datagrams wait, as soon as there is one."""
        datagrams = [one for one in self._servers if one.type == socket.SOCK_DGRAM]
        return select.select(datagrams, [], [], self._patience)[0]

    def _icmp(self, target: str, _: int) -> bool:
        family = _family(target)
        protocol, kind = (
            (socket.IPPROTO_ICMP, 8) if family == socket.AF_INET else (socket.IPPROTO_ICMPV6, 128)
        )
        with socket.socket(family, socket.SOCK_RAW, protocol) as client:
            header = struct.pack(">BBHHH", kind, 0, 0, 77, 1)
            if family == socket.AF_INET:
                header = struct.pack(">BBHHH", kind, 0, 0xFFFF - (kind << 8) - 77 - 1, 77, 1)
            client.settimeout(self._patience)
            try:
                client.sendto(header, (target, 0))
                while True:
                    data, sender = client.recvfrom(1500)
                    answer = data[20:] if family == socket.AF_INET else data
                    if sender[0] == target and answer[0] in (0, 129) and answer[4:6] == b"\0M":
                        return True
            except OSError:
                return False


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
