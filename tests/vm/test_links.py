"""Network cards of a booted node: as many and of such kinds as there are, each is told with what it lacks."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.segment import Segment
from ci.qemu.spec import CardModel, DirectBoot, MachineSpec, UserNic, mac_address
from core0.client.client import NodeClient
from core0.links.names import name_of
from core0.wire.links import Link

Connect = Callable[[Machine], Awaitable[NodeClient]]
READY_SECONDS = 10.0
# After so many seconds the node tells of cards that it cannot use.
TOLD_SECONDS = 30.0
NO_DRIVER = "has no driver in this image; plug another card, or boot an image that has one"


async def until(machine: Machine, node: NodeClient, fits: Callable[[Link], bool]) -> Link:
    """The first link that fits, as soon as there is one."""
    found: tuple[Link, ...] = ()
    try:
        async with asyncio.timeout(machine.acceleration.seconds(READY_SECONDS)):
            while not any(map(fits, found)):
                found = await node.links()
    except TimeoutError:
        pytest.fail(f"no link fits: {found}")
    return next(filter(fits, found))


@pytest.mark.parametrize(
    ("model", "driver", "pci_id"),
    [("virtio", "virtio_net", "1af4:1000"), ("vmxnet3", "vmxnet3", "15ad:07b0")],
)
async def test_a_node_with_one_card_is_reached_by_it_and_tells_what_it_is(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, model: CardModel, driver: str, pci_id: str
) -> None:
    machine = await machines.start(MachineSpec("single", direct_boot, nics=(UserNic(model=model),)))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as node:
        link = await node.link("eth0")
    assert (link.state, link.carrier, link.mtu) == ("up", True, 1500)
    assert (link.driver, link.pci_id, link.mac) == (driver, pci_id, mac_address("single", "net0"))
    assert link.why.startswith("it has 10.0.2.15/24 by DHCP from 10.0.2.2")
    assert "10.0.2.15/24" in link.addresses
    assert link.dhcp
    assert (link.dhcp.address, link.dhcp.server) == ("10.0.2.15/24", "10.0.2.2")
    assert 0 < (link.dhcp.ends_in_seconds or 0) <= 86400


async def test_a_card_that_nobody_answers_hinders_no_other_and_tells_its_carrier(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    async with Segment(tmp_path) as lan:
        nics = (lan.nic("silent"), UserNic())
        machine = await machines.start(MachineSpec("half", direct_boot, nics=nics))
        await machine.wait_for_phase("ready", READY_SECONDS)
        await machine.wait_for_line(
            r"zn: network (en\w+): No lease: no DHCP server answered on \1", TOLD_SECONDS
        )
        async with await connect(machine) as node:
            silent = await node.link("eth0")
            assert silent.state == "waiting"
            assert silent.why.startswith(
                f"it has no address: no DHCP server answered on {silent.name}; "
                "see that a DHCP server serves its network"
            )
            assert silent.dhcp
            assert silent.dhcp.state == "unanswered"
            assert (await node.link("eth1")).state == "up"
            await machine.take_carrier("silent")
            pulled = await until(machine, node, lambda link: not link.carrier)
            assert (pulled.state, pulled.dhcp and pulled.dhcp.state) == ("no-carrier", "no-carrier")
            assert "plug in its cable" in pulled.why
            assert (await node.link("eth1")).state == "up"
            await machine.give_carrier("silent")
            back = await until(machine, node, lambda link: link.name == silent.name and link.carrier)
            assert back.state == "waiting"


async def test_of_four_cards_those_without_a_driver_are_told_on_the_console_and_in_the_api(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    async with Segment(tmp_path) as lan:
        nics = (UserNic(), lan.nic("fast", "vmxnet3"), lan.nic("intel", "e1000e"), lan.nic("old", "rtl8139"))
        machine = await machines.start(MachineSpec("mixed", direct_boot, nics=nics))
        await machine.wait_for_phase("ready", READY_SECONDS)
        for ids in ("8086:10d3", "10ec:8139"):
            said = rf"zn: network 0000:\S+: Not used: network controller {ids} {NO_DRIVER}"
            await machine.wait_for_line(said, TOLD_SECONDS)
        async with await connect(machine) as node:
            links = await node.links()
            assert {link.pci_id: link.driver for link in links} == {
                "1af4:1000": "virtio_net",
                "15ad:07b0": "vmxnet3",
                "8086:10d3": None,
                "10ec:8139": None,
            }
            assert [link.name for link in links[:2]] == [name_of(link.pci or "") for link in links[:2]]
            assert {link.state for link in links[2:]} == {"no-driver"}
            assert links[2] == await node.link(links[2].name)
            assert links[2].why == f"not used: network controller 8086:10d3 {NO_DRIVER}"


async def test_a_card_without_a_driver_that_is_plugged_and_pulled_later_is_listed_meanwhile(
    machine: Machine, node: NodeClient
) -> None:
    before = await node.links()
    await machine.plug_nic(UserNic("net1", model="e1000e"))
    plugged = await until(machine, node, lambda link: link.pci_id == "8086:10d3")
    assert (plugged.state, plugged.why) == (
        "no-driver",
        f"not used: network controller 8086:10d3 {NO_DRIVER}",
    )
    await machine.pull("net1", READY_SECONDS)
    assert [link.name for link in await node.links()] == [link.name for link in before]
