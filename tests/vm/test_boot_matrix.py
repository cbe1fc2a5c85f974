"""Booted nodes on segments as they are in the field: served late or not any more, shared, tagged, small, bad.

Rows that are elsewhere: no card, and cards that come later (test_faults); one card, and cards without a server or a
driver (test_links); no IPv4 (test_ipv6); static addresses, VLANs and bonds by config (test_link_config).
"""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from ci.pytest_machines import Machines, check_console, watch
from ci.qemu.accel import Acceleration
from ci.qemu.machine import Machine
from ci.qemu.segment import Quality, Segment
from ci.qemu.spec import DirectBoot, MachineSpec, UserNic, mac_address
from core0.client.client import NodeClient
from core0.wire.config import parse
from core0.wire.links import Link
from core0.wire.ports import API
from core0.wire.types import ContainerSpec, PublishedPort
from tests.vm import router
from tests.vm.inside import running
from tests.vm.router import Router
from tests.vm.sabotage import order, sabotage
from tests.vm.short_leases import leasing

pytestmark = [pytest.mark.root, pytest.mark.skipif(not router.IS_POSSIBLE, reason=router.REASON)]

Connect = Callable[..., Awaitable[NodeClient]]
READY_SECONDS = 10.0
# Until a lease is there, or gone, as people on the segment see it.
LEASE_SECONDS = 10.0
# Of a lease that nobody renews, and what a card waits for its server.
LEASE_OF_SECONDS, MINUTE = 12, 80.0
# A frame with a VLAN's tag and packets of 1,400 bytes.
SMALL_FRAME = 1400 + 14 + 4


async def link_when(node: NodeClient, machine: Machine, name: str, fits: Callable[[Link], bool]) -> Link:
    """A link, by its name or hardware address, as soon as it fits."""
    found: Link | None = None
    try:
        async with asyncio.timeout(machine.acceleration.seconds(LEASE_SECONDS)):
            while found is None or not fits(found):
                found = next((link for link in await node.links() if name in (link.name, link.mac)), None)
    except TimeoutError:
        pytest.fail(f"link {name} does not become so: {found}")
    return found


async def at(machine: Machine, connect: Connect, way: Router, address: str) -> NodeClient:
    """A client that comes over the segment to one of the node's addresses."""
    return await connect(machine, await way.forward(address.partition("/")[0], API))


async def ask(machine: Machine, connect: Connect, way: Router, address: str) -> tuple[Link, ...]:
    """What the node says of its links to who comes over the segment to one of its addresses."""
    async with await at(machine, connect, way, address) as node:
        return await node.links()


async def serving_links(machine: Machine, connect: Connect, way: Router, address: str) -> dict[str, Link]:
    """The links of cards on the segment that have a driver, by their hardware address, once all of them serve."""
    elsewhere = mac_address(machine.spec.name, "e")
    async with await at(machine, connect, way, address) as node:
        names = [link.name for link in await node.links() if link.driver and link.mac != elsewhere]
        found = [await link_when(node, machine, name, lambda link: link.state == "up") for name in names]
    return {link.mac: link for link in found}


def is_bound(link: Link) -> bool:
    """Whether its lease is in force, and told: the address comes a moment before."""
    return link.state == "up" and link.dhcp is not None and link.dhcp.state == "bound"


def last_card(machine: Machine) -> str:
    """Of the cards that have a driver the name of the one that comes last on the bus."""
    named = re.findall(r"zn: network enp0s(\d+): Is called by its place", "\n".join(machine.console.lines))
    return f"enp0s{max(map(int, named))}"


def ipv4_of(link: Link) -> str:
    """The link's only IPv4 address."""
    (address,) = (one for one in link.addresses if ":" not in one)
    return address


def serve(way: Router, folder: Path, first: str, last: str, *options: str):  # type: ignore[no-untyped-def]
    """A DHCP server for a range, whose name server is a machine that answers nothing: DNS is down everywhere here."""
    given = (
        f"--dhcp-range={first},{last},255.255.255.0,300",
        "--dhcp-option=6,10.9.0.99",
        "--dhcp-authoritative",
    )
    return way.serving(folder, *given, *options)


@dataclass(frozen=True)
class Site:
    """A node with four cards on a segment, and one on another where the server comes a minute late.

    Attributes:
        machine: the node's.
        lan: the four cards' segment.
        way: what is on the other one.
        late: waits for that minute, has the server serve then, and tells the card that it had waited.
    """

    machine: Machine
    lan: Segment
    way: Router
    late: asyncio.Task[str]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(
    direct_boot: DirectBoot, acceleration: Acceleration, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """It lives as long as the module's tests: the minute passes beside them."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "later").mkdir()
    async with (
        Segment(folder) as lan,
        Segment(folder / "later") as later,
        Router(later.nic("router"), "10.7.0.1/24") as way,
    ):
        cards = (lan.nic("a"), lan.nic("b", "vmxnet3"), lan.nic("c", "e1000e"), lan.nic("d", "rtl8139"))
        spec = MachineSpec("four", direct_boot, nics=(*cards, later.nic("e")))
        async with Machine(spec, acceleration, folder) as machine:
            await machine.wait_for_phase("ready", READY_SECONDS)
            with ExitStack() as serving:
                late = asyncio.create_task(serve_late(machine, way, folder / "later", serving))
                yield Site(machine, lan, way, late)
                late.cancel()
        check_console(machine.console, spec.name)


async def serve_late(machine: Machine, way: Router, folder: Path, serving: ExitStack) -> str:
    """Serve as soon as a card has asked for a minute: its fourth try ends some 65 s after the first began."""
    said = await machine.wait_for_line(r"zn: network enp0s\d+: No lease: .*; trying again in 8 s", MINUTE)
    serving.enter_context(serve(way, folder, "10.7.0.50", "10.7.0.59"))
    return said.partition("zn: network ")[2].partition(":")[0]


async def test_four_cards_on_one_segment_are_served_late_then_by_another_server_and_at_last_by_ipv6_too(
    site: Site, connect: Connect, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    machine, lan = site.machine, site.lan
    watch(request.node, machine)
    async with Router(lan.nic("router"), "10.9.0.1/24") as way:
        assert "network" not in {phase.name for phase in machine.console.phases}
        late = r"No lease: no DHCP server answered on enp\S+; trying again in 1 s"
        await machine.wait_for_line(late, LEASE_SECONDS)
        with serve(way, tmp_path, "10.9.0.50", "10.9.0.59"):
            phase = await machine.wait_for_phase("network", LEASE_SECONDS)
            leased, _, server = phase.detail.partition(" from ")
            assert server == "10.9.0.1"
            served = await serving_links(machine, connect, way, leased)
            assert len(served) >= 2
            for link in served.values():
                assert (link.dhcp and link.dhcp.server) == "10.9.0.1", link
                assert await ask(machine, connect, way, ipv4_of(link))
            moved, *others = (served.pop(mac_address("four", "a")), *served.values())
            await machine.take_carrier("a")
            async with await at(machine, connect, way, ipv4_of(others[0])) as node:
                await link_when(node, machine, moved.name, lambda link: link.state == "no-carrier")
        way.set_addresses("10.8.0.1/24", "2001:db8::1/64")
        six = ("--enable-ra", "--dhcp-range=2001:db8::50,2001:db8::59,64,300", "--ra-param=lan,4,60")
        with serve(way, tmp_path, "10.8.0.50", "10.8.0.59", *six):
            await machine.give_carrier("a")
            refused = f"Lease of {ipv4_of(moved)} not renewed: the DHCP server 10.8.0.1 refused"
            await machine.wait_for_line(f"{moved.name}: {refused}", LEASE_SECONDS)
            said = await machine.wait_for_line("zn: network en.*: Has 2001:db8::5.* by DHCPv6", LEASE_SECONDS)
            async with await at(machine, connect, way, said.partition("Has ")[2].split()[0]) as node:
                own = await link_when(node, machine, moved.name, lambda link: link.state == "up")
                assert ipv4_of(own).startswith("10.8.0.5")


async def test_an_address_that_another_machine_has_is_declined_and_another_one_used(
    machine: Machine, node: NodeClient, connect: Connect, tmp_path: Path
) -> None:
    async with (
        Segment(tmp_path) as lan,
        Router(lan.nic("router"), "10.9.0.1/24") as way,
        Router(lan.nic("squatter"), "10.9.0.50/24"),
    ):
        with serve(way, tmp_path, "10.9.0.50", "10.9.0.51", "--dhcp-sequential-ip", "--dhcp-option=26,68"):
            await machine.plug_nic(lan.nic("a0"))
            said = "No lease: the server gave 10.9.0.50/24, which machine .* has; take the address from one of them"
            await machine.wait_for_line(f"zn: network en.*: {said}", LEASE_SECONDS)
            mac = mac_address("node1", "a0")
            found = await link_when(node, machine, mac, lambda link: "10.9.0.51/24" in link.addresses)
            assert (ipv4_of(found), found.mtu) == ("10.9.0.51/24", 1500)
            hostile = f"{found.name}: The MTU of 68 that the DHCP server 10.9.0.1 gives is not used"
            await machine.wait_for_line(hostile, LEASE_SECONDS)
            assert await ask(machine, connect, way, "10.9.0.51")
        await machine.pull("a0", READY_SECONDS)


async def test_each_of_two_ways_out_answers_who_asks_from_beyond_its_router(
    machine: Machine, node: NodeClient, connect: Connect, tmp_path: Path
) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    async with (
        Segment(folders[0]) as one,
        Segment(folders[1]) as two,
        Router(one.nic("router"), "10.9.0.1/24", "198.51.100.1/24") as left,
        Router(two.nic("router"), "10.8.0.1/24", "203.0.113.1/24") as right,
    ):
        with (
            serve(left, folders[0], "10.9.0.50", "10.9.0.59"),
            serve(right, folders[1], "10.8.0.50", "10.8.0.59"),
        ):
            await machine.plug_nic(one.nic("a0"))
            await machine.plug_nic(two.nic("a1"))
            for way, card, beyond in ((left, "a0", "198.51.100.1"), (right, "a1", "203.0.113.1")):
                mac = mac_address("node1", card)
                leased = ipv4_of(await link_when(node, machine, mac, is_bound)).partition("/")[0]
                await machine.wait_for_line(f"Let {leased} leave by its own link's router", LEASE_SECONDS)
                async with await connect(machine, await way.forward(leased, API, beyond)) as client:
                    assert len(await client.links()) == 3
            await machine.pull("a1", READY_SECONDS)
            await machine.wait_for_line(f"No longer let {leased} leave", LEASE_SECONDS)
        await machine.pull("a0", READY_SECONDS)


TRUNK = f"""
[network.links.trunk]
select = {{ mac = "{mac_address("node1", "a0")}" }}
dhcp4 = false
[network.links.v10]
vlan = {{ link = "trunk", id = 10 }}
"""


async def test_a_vlan_of_a_trunk_gets_its_lease_through_a_segment_of_small_packets_that_loses_and_reorders(
    machine: Machine, node: NodeClient, connect: Connect, tmp_path: Path
) -> None:
    async with (
        Segment(tmp_path) as lan,
        Router(lan.nic("untagged"), "10.9.0.1/24") as other,
        Router(lan.nic("router"), "10.10.0.1/24", vlan=10, mtu=1400) as way,
    ):
        lan.quality = Quality(loss=0.2, late=0.1, largest=SMALL_FRAME)
        untagged, tagged = tmp_path / "untagged", tmp_path / "tagged"
        untagged.mkdir()
        tagged.mkdir()
        with (
            serve(other, untagged, "10.9.0.50", "10.9.0.59"),
            serve(way, tagged, "10.10.0.50", "10.10.0.59", "--dhcp-option=26,1400"),
        ):
            await machine.plug_nic(lan.nic("a0"))
            await node.put_config(parse(TRUNK))
            found = await link_when(node, machine, "v10", is_bound)
            assert found.why == f"VLAN 10 of {found.parent}: it has {ipv4_of(found)} by DHCP from 10.10.0.1"
            assert (ipv4_of(found)[:9], found.mtu) == ("10.10.0.5", 1400)
            (trunk,) = (
                link for link in await ask(machine, connect, way, ipv4_of(found)) if link.name == found.parent
            )
            assert (trunk.state, trunk.dhcp) == ("up", None)
            assert lan.lost, "else this segment was none that loses"
            assert (
                trunk.why == "it has no address: its config gives it none, and lets it ask for none by DHCP"
            )
        await node.put_config(parse(""))
        await machine.pull("a0", READY_SECONDS)


# A node as a switch between two segments, where each frame waits, a quarter overtakes, and a fifth is lost.
BETWEEN = f"""
[network.links.near]
select = {{ mac = "{mac_address("between", "m1")}" }}
[network.links.far]
select = {{ mac = "{mac_address("between", "m2")}" }}
[network.links.br0]
bridge = {{ members = ["near", "far"] }}
dhcp4 = false
"""
NETEM = ("20", "25", "30")


async def test_a_node_behind_another_whose_kernel_loses_reorders_and_delays_gets_its_lease_and_serves(
    machines: Machines,
    machine: Machine,
    node: NodeClient,
    direct_boot: DirectBoot,
    connect: Connect,
    spec: Callable[..., ContainerSpec],
    tmp_path: Path,
) -> None:
    async with (
        Segment(tmp_path) as one,
        Segment(tmp_path) as two,
        Router(one.nic("router"), "10.9.0.1/24") as way,
    ):
        boot = sabotage(direct_boot, tmp_path, "sch_netem")
        cards = (UserNic(), one.nic("m1"), two.nic("m2"))
        between = await machines.start(MachineSpec("between", boot, nics=cards))
        await running(node, "web", spec(ports=(PublishedPort(node=8080, container=80),)))
        await between.wait_for_phase("ready", READY_SECONDS)
        async with await connect(between) as client:
            await client.put_config(parse(BETWEEN))
            bridge = await link_when(client, between, "br0", lambda link: len(link.members) == 2)
        for link in bridge.members:
            assert await order(between, "netem", link, *NETEM) == "Success"
        with serve(way, tmp_path, "10.9.0.50", "10.9.0.59"):
            await machine.plug_nic(two.nic("a0"))
            mac = mac_address("node1", "a0")
            leased = ipv4_of(await link_when(node, machine, mac, lambda link: link.state == "up"))
            assert leased.startswith("10.9.0.5")
            assert await ask(machine, connect, way, leased)
            page = await way.forward(leased.partition("/")[0], 8080)
            async with aiohttp.ClientSession() as session, session.get(f"http://{page}/") as answer:
                assert await answer.text() == "served from a container\n"
        for link in bridge.members:
            assert int(await order(between, "lost", link)), "else this was no bad way"
        await machine.pull("a0", READY_SECONDS)


@pytest.mark.skipif(not shutil.which("nmap"), reason="needs Debian's nmap")
async def test_nmap_finds_the_declared_ports_and_no_other(
    machine: Machine, node: NodeClient, spec: Callable[..., ContainerSpec], tmp_path: Path
) -> None:
    async with Segment(tmp_path) as lan, Router(lan.nic("router"), "10.9.0.1/24") as way:
        await machine.plug_nic(lan.nic("a0"))
        ports = (
            PublishedPort(node=8080, container=80),
            PublishedPort(node=5353, container=53, protocol="udp"),
        )
        there = await running(node, "web", spec(ports=ports))
        with serve(way, tmp_path, "10.9.0.50", "10.9.0.59"):
            mac = mac_address("node1", "a0")
            leased = ipv4_of(await link_when(node, machine, mac, lambda link: link.state == "up"))
            address = leased.partition("/")[0]
            assert there.corex
            declared = {API, 8080, there.corex.port}
            # at that rate answers may be lost
            assert await nmap(way, address, "-sS", "--min-rate", "5000", "-p-") <= declared
            assert await nmap(way, address, "-sS", "-p", ",".join(map(str, declared))) == declared
            # who answers nothing may be open
            assert await nmap(way, address, "-sU", "-p", "53,67,68,123,323,546,5353,51820") <= {5353}
        await machine.pull("a0", READY_SECONDS)


async def nmap(way: Router, address: str, *options: str) -> set[int]:
    """The ports that nmap takes to be open (nmap(1), grepable output)."""
    words = ("nmap", "-n", "-Pn", "-T4", *options, "-oG", "-", address)
    with way.inside():
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: ASYNC220
    said, failed = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, failed
    (line,) = (one for one in said.splitlines() if "Ports: " in one)
    return {int(port) for port in re.findall(r"(\d+)/open", line)}


BOND = f"""
[network.links.left]
select = {{ mac = "{mac_address("node1", "b0")}" }}
[network.links.right]
select = {{ mac = "{mac_address("node1", "b1")}" }}
[network.links.bond0]
bond = {{ members = ["left", "right"], primary = "left" }}
"""


async def test_traffic_of_a_bond_goes_on_while_the_member_that_serves_is_pulled(
    machine: Machine, node: NodeClient, connect: Connect, tmp_path: Path
) -> None:
    async with Segment(tmp_path) as lan, Router(lan.nic("router"), "10.9.0.1/24") as way:
        with serve(way, tmp_path, "10.9.0.50", "10.9.0.59"):
            await machine.plug_nic(lan.nic("b0"))
            await machine.plug_nic(lan.nic("b1"))
            await node.put_config(parse(BOND))
            leased = ipv4_of(await link_when(node, machine, "bond0", lambda link: link.state == "up"))
            async with (
                way.pinging(leased.partition("/")[0]) as echoes,
                await at(machine, connect, way, leased) as beside,
            ):
                await beside.links()
                await machine.pull("b0", READY_SECONDS)
                left = {link.name: link for link in await beside.links()}
                start = echoes["came"]
                async with asyncio.timeout(machine.acceleration.seconds(LEASE_SECONDS)):
                    while echoes["came"] < start + 10:  # noqa: ASYNC110 — nothing tells of an echo
                        await asyncio.sleep(0.1)
            (member,) = left["bond0"].members
            assert (left["bond0"].state, left[member].mac) == ("up", mac_address("node1", "b1"))
            assert left[member].why == "it is a member of bond0, which has the addresses"
            assert echoes["sent"] - echoes["came"] <= 10, echoes
        await node.put_config(parse(""))
        await machine.pull("b1", READY_SECONDS)


async def test_a_lease_ends_with_its_address_where_the_server_is_gone_and_comes_back_with_it(
    machine: Machine, node: NodeClient, tmp_path: Path
) -> None:
    mac, lease = mac_address("node1", "a0"), ("10.9.0.1", "10.9.0.50", LEASE_OF_SECONDS)
    async with Segment(tmp_path) as lan, Router(lan.nic("router"), "10.9.0.1/24") as way:
        async with leasing(way, *lease):
            await machine.plug_nic(lan.nic("a0"))
            held = await link_when(node, machine, mac, lambda link: link.state == "up")
        said = f"{held.name}: Lease of 10.9.0.50/24 ended: nobody renewed it"
        await machine.wait_for_line(said, LEASE_SECONDS)
        lost = await link_when(node, machine, mac, lambda link: link.state == "waiting")
        assert not [address for address in lost.addresses if ":" not in address]
        assert lost.dhcp
        assert lost.dhcp.address is None
        async with leasing(way, *lease):
            again = await link_when(node, machine, mac, lambda link: link.state == "up")
        assert ipv4_of(again) == "10.9.0.50/24"
        await machine.pull("a0", READY_SECONDS)


async def test_a_card_whose_server_is_a_minute_late_is_served_then(
    site: Site, connect: Connect, request: pytest.FixtureRequest
) -> None:
    machine = site.machine
    watch(request.node, machine)
    name = await site.late
    assert name == last_card(machine)
    said = await machine.wait_for_line(f"Add 10.7.0.5./24 to {name}", LEASE_SECONDS)
    links = await ask(machine, connect, site.way, said.split("Add ")[1].split("/")[0])
    (link,) = (link for link in links if link.name == name)
    assert (link.state, link.mac) == ("up", mac_address("four", "e"))
