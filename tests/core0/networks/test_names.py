"""Names with real packets: containers in namespaces ask the real process, and the packet filter is in between."""

import asyncio
import ctypes.util
import os
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from core0.linux import netlink
from core0.linux.netlink import Netlink
from core0.wire.names import PORT
from core0.wire.network import GATEWAY
from core0.wire.networks import NetworkSpec
from tests.core0.names.messages import ask, read, reply_to, wire
from tests.core0.networks.site import LAN, NODE, Site

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not ctypes.util.find_library("nftables"), reason="needs Debian's libnftables1"),
]
CONTAINERS = {"a": "default", "db": "default", "c": "blue", "w": "walled", "n": "nothing"}
NETWORKS = {
    "blue": NetworkSpec(),
    "walled": NetworkSpec(egress="none"),
    "nothing": NetworkSpec(egress_allow=()),
}
OUTSIDE = b"\x01\x02\x03\x04"
# What is answered takes no longer; what is dropped takes all of it.
PATIENCE, DROPPED = 10.0, 0.3


class Resolving(Site):
    """A site whose containers' questions are answered, and whose LAN has a name server."""

    async def begin(self) -> None:
        for network, spec in NETWORKS.items():
            await self.put(network, spec)
        for name, network in CONTAINERS.items():
            self.add_container(name, network)
        with self.inside("lan"):
            self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.server.bind((LAN[0], PORT))
        self.running = await self.answer_names()
        await self.until_answered()

    async def until_answered(self) -> None:
        """Wait until the process has been told of the containers."""
        await self.until(lambda: bool(self.ask("a", ask("db.default.internal"), PATIENCE / 50)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Ask until the process, which is told meanwhile, answers so."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 — the answer comes from another process
                await asyncio.sleep(0)

    async def end(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.server.close()
        self.__exit__()

    def ask(self, source: str, message: bytes, patience: float = PATIENCE, at: str = GATEWAY) -> bytes:
        """What a host is answered, if it is; the LAN's name server knows every name."""
        with self.inside(source), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(message, (at, PORT))
            while ready := select.select([client, self.server], [], [], patience)[0]:
                if client in ready:
                    return client.recv(65535)
                question, sender = self.server.recvfrom(4096)
                self.server.sendto(reply_to(question, OUTSIDE), sender)
        return b""


@pytest.fixture(scope="module")
def site(loop: asyncio.AbstractEventLoop) -> Iterator[Resolving]:
    async def build() -> Resolving:
        site = Resolving()
        site.__enter__()
        await site.begin()
        return site

    site = loop.run_until_complete(build())
    yield site
    loop.run_until_complete(site.end())


def address(site: Site, name: str, family: int = 0) -> bytes:
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    return socket.inet_pton(kind, site.addresses[name][family])


NOWHERE = (3, [])


@pytest.mark.parametrize("source", CONTAINERS)
@pytest.mark.parametrize("target", CONTAINERS)
def test_a_container_knows_the_names_of_its_own_network_only(
    site: Resolving, source: str, target: str
) -> None:
    own = CONTAINERS[source] == CONTAINERS[target]
    name = f"{target}.{CONTAINERS[target]}.internal"
    assert read(site.ask(source, ask(name))) == ((0, [address(site, target)]) if own else NOWHERE)
    assert read(site.ask(source, ask(name, "AAAA"))) == ((0, [address(site, target, 1)]) if own else NOWHERE)
    backward = ".".join(reversed(site.addresses[target][0].split("."))) + ".in-addr.arpa"
    assert read(site.ask(source, ask(backward, "PTR"))) == ((0, [wire(name)]) if own else NOWHERE)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("a", (0, [OUTSIDE])), ("c", (0, [OUTSIDE])), ("w", (5, [])), ("n", (5, []))],
    ids=["default", "another", "egress none", "nothing allowed"],
)
def test_who_may_reach_the_outside_may_ask_for_its_names(
    site: Resolving, source: str, expected: tuple[int, list[bytes]]
) -> None:
    assert read(site.ask(source, ask("www.example.org"))) == expected


def test_nobody_is_asked_past_the_node(site: Resolving) -> None:
    assert not site.ask("a", ask("www.example.org"), DROPPED, LAN[0])
    assert not site.ask("a", ask("www.example.org"), DROPPED, NODE[0])


def test_nobody_outside_is_answered(site: Resolving) -> None:
    with site.inside("lan"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "node0")
        rt.apply([netlink.add_route(f"{GATEWAY}/32", index, NODE[0])])
    assert not site.ask("lan", ask("db.default.internal"), DROPPED)


def test_a_flood_is_cut_and_others_are_answered(site: Resolving) -> None:
    message, before = ask("nobody.default.internal"), 0
    with site.inside("c"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        for _ in range(20_000):
            flood.sendto(message, (GATEWAY, PORT))
        assert read(site.ask("a", ask("db.default.internal"))) == (0, [address(site, "db")])
        while select.select([flood], [], [], 0)[0]:
            flood.recv(512)
            before += 1
    assert before < 10_000


def test_a_process_that_died_is_started_again_and_knows_all_names(
    site: Resolving, loop: asyncio.AbstractEventLoop
) -> None:
    site.answering[-1].kill()
    site.answering[-1].wait()
    site.keep.told.clear()
    loop.run_until_complete(site.until_answered())
    (told,) = [said for kind, subject, said in site.keep.told if subject == "names"]
    assert told == "Failed: the process that answers ended; starting it again in 0.1 s"
    assert len(site.answering) == 2
    assert read(site.ask("c", ask("c.blue.internal"))) == (0, [address(site, "c")])


def test_other_name_servers_of_the_node_are_asked_from_then_on(
    site: Resolving, loop: asyncio.AbstractEventLoop
) -> None:
    site.nameservers = ("192.168.7.77",)
    site.names.look()
    with site.inside("lan"), Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == "node0")
        rt.apply([netlink.add_address(index, "192.168.7.77/24")])
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with other:
        other.bind(("192.168.7.77", PORT))
        loop.run_until_complete(asyncio.sleep(0))
        site.server, before = other, site.server
        try:
            assert read(site.ask("a", ask("www.example.org"))) == (0, [OUTSIDE])
        finally:
            site.server = before


def test_a_network_that_may_reach_nothing_any_more_is_told_nothing_of_the_outside(
    site: Resolving, loop: asyncio.AbstractEventLoop
) -> None:
    loop.run_until_complete(site.put("blue", NetworkSpec(egress_allow=())))
    outside = ask("www.example.org")
    loop.run_until_complete(site.until(lambda: read(site.ask("c", outside)) == (5, [])))
    assert read(site.ask("c", ask("c.blue.internal"))) == (0, [address(site, "c")])


def test_a_container_that_is_gone_has_no_name(site: Resolving, loop: asyncio.AbstractEventLoop) -> None:
    guest = ask("guest.default.internal")
    with site.come_and_go("default", ()):
        loop.run_until_complete(site.until(lambda: read(site.ask("a", guest))[0] == 0))
    loop.run_until_complete(site.until(lambda: read(site.ask("a", guest)) == NOWHERE))
