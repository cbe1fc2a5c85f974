"""The node's clock: machines whose own is broken, with a time server and without."""

import asyncio
import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.spec import DirectBoot, MachineSpec
from core0.client.client import NodeClient, NotAllowedError
from core0.client.credentials import client_context, issue_certificate
from core0.wire.clock import ClockConfig
from core0.wire.config import NodeConfig
from core0.wire.ports import API
from tests.vm.time_server import time_server

Connect = Callable[[Machine], Awaitable[NodeClient]]
READY_SECONDS = 10.0
# chronyd sends four questions, two seconds apart, before it believes a server.
FOLLOWS_SECONDS = 60.0


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[str]:
    async with time_server() as address:
        yield address


async def says(client: NodeClient, word: str) -> str:
    """What the node's health says of the clock, once a word is in it."""
    async with asyncio.timeout(FOLLOWS_SECONDS):
        while True:
            checks = {check.name: check.why for check in (await client.health()).checks}
            if word in checks.get("clock", ""):
                return checks["clock"]
            await client.events((await client.events()).cursor, wait=1.0)


# The kernel that boots under QEMU 7.2 with a clock of 2099 reads 2063.
@pytest.mark.parametrize(
    ("broken", "said"), [("1970-01-01T00:00:00", "1970-01-01"), ("2099-06-01T00:00:00", "20")]
)
async def test_a_node_with_a_broken_clock_lets_its_operator_in_and_follows_a_time_server(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, server: str, broken: str, said: str
) -> None:
    machine = await machines.start(MachineSpec(f"clock{broken[:4]}", direct_boot, clock=broken))
    await machine.wait_for_phase("ready", READY_SECONDS)
    clock = next(phase for phase in machine.console.phases if phase.name == "clock")
    assert f"the machine's own clock said {said}" in clock.detail
    async with await connect(machine) as client:
        await client.put_config(NodeConfig(clock=ClockConfig((server,))))
        await machine.console.wait_for_line("System clock was stepped by", FOLLOWS_SECONDS)
        assert (await says(client, "follows")).startswith(f"it follows {server}, and is off by ")
        stepped = next(one for one in (await client.events()).events if "stepped" in one.message)
        assert abs(stepped.at - time.time()) < FOLLOWS_SECONDS


async def test_a_node_that_is_years_ahead_lets_its_operator_in_by_a_certificate_of_its_time(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, operator_key: Ed25519PrivateKey
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    ahead = (now + datetime.timedelta(days=1000)).strftime("%Y-%m-%dT%H:%M:%S")
    machine = await machines.start(MachineSpec("ahead", direct_boot, clock=ahead))
    await machine.wait_for_phase("ready", READY_SECONDS)
    clock = next(phase for phase in machine.console.phases if phase.name == "clock")
    assert not clock.detail, "else it was no clock that may be right"
    tls = client_context(issue_certificate(operator_key, "tests", now=now))
    identity = await machine.wait_for_phase("identity", READY_SECONDS)
    address = f"127.0.0.1:{await machine.forward(API)}"
    async with NodeClient(address, identity.detail.removeprefix("sha256:"), tls) as unbending:
        with pytest.raises(NotAllowedError, match="expired; check the clocks"):
            await unbending.node()
    async with await connect(machine) as client:
        assert (await client.events()).events[0].at > now.timestamp() + 999 * 86400
