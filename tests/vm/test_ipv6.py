"""Booted images where routers speak: QEMU's own network advertises fec0::/64."""

from collections.abc import Awaitable, Callable

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec, UserNic
from core0.client.client import NodeClient
from tests.vm.shelf import until

Connect = Callable[[Machine], Awaitable[NodeClient]]
READY_SECONDS = 10.0


async def test_a_site_without_ipv4_is_a_network(machines: Machines, direct_boot: DirectBoot) -> None:
    machine = await machines.start(MachineSpec("six", direct_boot, nics=(UserNic(ipv4=False),)))
    phase = await machine.wait_for_phase("network", READY_SECONDS)
    assert phase.detail.startswith("fec0::")
    assert " on enp0s" in phase.detail


async def test_a_node_has_addresses_of_both_kinds(
    machines: Machines, direct_boot: DirectBoot, connect: Connect
) -> None:
    machine = await machines.start(MachineSpec("both", direct_boot))
    await machine.wait_for_phase("ready", READY_SECONDS)
    async with await connect(machine) as client:

        async def routed() -> bool:
            return len((await client.node()).addresses) == 2

        await until(client, routed)
        (link,) = await client.links()
        node = await client.node()
    assert link.state == "up"
    assert link.addresses[0] == "10.0.2.15/24"
    assert any(address.startswith("fec0::") for address in link.addresses)
    assert {address.interface for address in node.addresses} <= set(link.addresses)
