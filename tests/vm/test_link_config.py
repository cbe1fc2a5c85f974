"""A booted node's links by config, as their neighbours see them; and a config that would cut the node off."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ci.pytest_machines import Machines
from ci.qemu.machine import Machine
from ci.qemu.segment import Segment
from ci.qemu.spec import DirectBoot, MachineSpec, UserNic, mac_address
from cli import context
from core0.client.client import NodeClient, RefusedError
from core0.wire.config import parse
from core0.wire.links import Link
from core0.wire.networks import EgressRule, NetworkSpec
from core0.wire.ports import API
from core0.wire.types import ContainerSpec
from corex.client.client import Client as CorexClient
from corex.wire.api import LogLine
from tests.vm.inside import inside, running
from tests.vm.neighbour import Neighbour
from tests.vm.sabotage import sabotage

Connect = Callable[[Machine], Awaitable[NodeClient]]

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 10.0
# Seconds until a neighbour has its answer.
ANSWER_SECONDS = 10.0
# Until two ends of a bond have agreed.
AGREED_SECONDS = 15.0
# Connects again and again.
ASK = "while :; do nc -w 30 $1 $2 -e /bin/busybox true 2>/dev/null && echo answered || echo lost; sleep 0.2; done"
HERE = "198.51.100.1"


def card(name: str, machine: str = "node1") -> str:
    """The selector of a card by its hardware address."""
    return f'select = {{ mac = "{mac_address(machine, name)}" }}'


async def name(node: NodeClient, nic: str = "net0", machine: str = "node1") -> str:
    """What the node calls a card."""
    return next(link.name for link in await node.links() if link.mac == mac_address(machine, nic))


async def addresses(node: NodeClient) -> dict[str, list[str]]:
    """The node's addresses by link, but for those that QEMU's router gives."""
    found: dict[str, list[str]] = {}
    for address in (await node.node()).addresses:
        if not address.interface.startswith("fec0:"):
            found.setdefault(address.link, []).append(address.interface)
    return found


async def kill_daemon(machine: Machine) -> None:
    """Let the node daemon die, and wait until its successor serves."""
    start = len(machine.console.lines)
    await machine.type("kill node\n")
    await machine.wait_for_line("zn: node api: Answers authenticated requests", READY_SECONDS, start)


async def zn_apply(folder: Path, text: str, duration: str) -> tuple[int, str]:
    """Give a config by the command line, on trial; its exit code and what it said."""
    (folder / "node.toml").write_text(text)
    words = (
        "--contexts",
        folder / "contexts.toml",
        "config",
        "apply",
        folder / "node.toml",
        "--try",
        duration,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *words, stdin=subprocess.DEVNULL, stdout=-1, stderr=subprocess.STDOUT, cwd=ROOT
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_a_card_that_is_plugged_later_gets_its_static_address_and_mtu_and_vlans_beside_it(
    machine: Machine, node: NodeClient, tmp_path: Path
) -> None:
    async with Segment(tmp_path) as lan:
        neighbours = lan.nic("plain"), lan.nic("tagged")
        status = await node.put_config(
            parse(f"""
[network.links.lan]
{card("a0")}
addresses = ["198.51.100.7/24"]
mtu = 1400
[network.links.v10]
vlan = {{ link = "lan", id = 10 }}
addresses = ["203.0.113.7/24"]
""")
        )
        assert status.state == "applied"
        await machine.wait_for_line("zn: network lan: Waits: no card that is there fits it", READY_SECONDS)
        await machine.plug_nic(lan.nic("a0"))
        patience = machine.acceleration.seconds(ANSWER_SECONDS)
        async with (
            Neighbour(neighbours[0], HERE) as plain,
            Neighbour(neighbours[1], "203.0.113.1", 10) as tagged,
        ):
            assert await plain.find("198.51.100.7", patience) == mac_address("node1", "a0")
            assert max(await plain.echo("198.51.100.7", 3000, patience)) in range(1390, 1401)
            assert await tagged.find("203.0.113.7", patience) == mac_address("node1", "a0")
            assert max(await tagged.echo("203.0.113.7", 3000, patience)) in range(1390, 1401)
            found = await addresses(node)
            assert (found["v10"], found[await name(node)]) == (["203.0.113.7/24"], ["10.0.2.15/24"])
            with pytest.raises(RefusedError, match="cannot have an MTU of 20; use 576"):
                await node.put_config(parse(f"[network.links.lan]\n{card('a0')}\nmtu = 20"))
            await plain.echo("198.51.100.7", 100, patience)
            await node.put_config(parse(""))
            assert "v10" not in await addresses(node)
        await machine.pull("a0", READY_SECONDS)


BONDED = f"""
[network.links.left]
{card("b0")}
[network.links.right]
{card("b1")}
[network.links.bond0]
bond = {{ members = ["left", "right"], primary = "left" }}
[network.links.v20]
vlan = {{ link = "bond0", id = 20 }}
addresses = ["203.0.113.7/24"]
[network.links.br0]
bridge = {{ members = ["v21"] }}
addresses = ["192.0.2.7/24"]
[network.links.v21]
vlan = {{ link = "bond0", id = 21 }}
"""


async def test_a_bond_goes_on_when_the_card_that_serves_is_pulled(
    machine: Machine, node: NodeClient, tmp_path: Path
) -> None:
    async with Segment(tmp_path) as lan:
        nic = lan.nic("neighbour")
        await machine.plug_nic(lan.nic("b0"))
        await machine.plug_nic(lan.nic("b1"))
        await node.put_config(parse(BONDED))
        patience = machine.acceleration.seconds(ANSWER_SECONDS)
        found = await addresses(node)
        assert (found["v20"], found["br0"]) == (["203.0.113.7/24"], ["192.0.2.7/24"])
        async with Neighbour(nic, "203.0.113.1", 20) as neighbour:
            served_by = await neighbour.find("203.0.113.7", patience)
            assert served_by in (mac_address("node1", "b0"), mac_address("node1", "b1"))
            await neighbour.echo("203.0.113.7", 100, patience)
            preferred = await name(node, "b0")
            await machine.pull("b0", READY_SECONDS)
            await neighbour.echo("203.0.113.7", 100, patience)
            await machine.wait_for_line(
                "zn: network left: Waits: no card that is there fits it", READY_SECONDS
            )
        told = [
            event.message
            for event in (await node.events(0)).events
            if event.subject in ("bond0", "v20", "br0")
        ]
        assert f"Let bond0 look at carriers each 100 ms, preferring {preferred}" in told
        assert sorted(set(told)) == sorted(told), "what was done once is seen as done"
        changed = BONDED.replace('primary = "left"', 'mode = "802.3ad"')
        assert (await node.put_config(parse(changed))).state == "applied"
        assert await addresses(node) == found
        await node.put_config(parse(""))
        assert list(await addresses(node)) == [await name(node)]
        await machine.pull("b1", READY_SECONDS)


def aggregated(machine: str, cards: tuple[str, str], address: str) -> str:
    """A config of two cards that are one link by LACP."""
    return f"""
[network.links.left]
{card(cards[0], machine)}
[network.links.right]
{card(cards[1], machine)}
[network.links.bond0]
bond = {{ members = ["left", "right"], mode = "802.3ad" }}
addresses = ["{address}"]
"""


async def lacp_when(node: NodeClient, machine: Machine, partner: str | None, members: int) -> Link:
    """The node's bond, as soon as so many members serve with that partner."""
    found: Link | None = None
    try:
        async with asyncio.timeout(machine.acceleration.seconds(AGREED_SECONDS)):
            while not (
                found and found.lacp and (found.lacp.partner, len(found.lacp.members)) == (partner, members)
            ):
                found = next((link for link in await node.links() if link.name == "bond0"), None)
    except TimeoutError:
        pytest.fail(f"the bond does not come to {members} members with {partner}: {found}")
    return found


async def requests_go_on(corex: CorexClient, deadline: float) -> None:
    """Wait until ten more requests of the container that asks again and again were answered; none may be lost."""

    async def answered() -> int:
        said = [line.text for line in (await corex.logs()).records if isinstance(line, LogLine)]
        first = said.index("answered") if "answered" in said else len(said)
        assert "lost" not in said[first:], "".join(one[0] for one in said[first:])
        return len(said) - first

    before = await answered()
    async with asyncio.timeout(deadline):
        while await answered() < before + 10:  # noqa: ASYNC110 — nothing tells of a request
            await asyncio.sleep(0.2)


async def test_two_nodes_bond_two_cards_by_lacp_and_a_flow_outlives_each_change_of_them(
    machines: Machines,
    machine: Machine,
    node: NodeClient,
    direct_boot: DirectBoot,
    connect: Connect,
    spec: Callable[..., ContainerSpec],
    tmp_path: Path,
) -> None:
    async with Segment(tmp_path) as one, Segment(tmp_path) as two:
        nics = (UserNic(), one.nic("d0"), two.nic("d1"))
        other = await machines.start(MachineSpec("partner", direct_boot, nics=nics))
        here = one.nic("c0"), two.nic("c1")
        for nic in here:
            await machine.plug_nic(nic)
        await node.put_config(parse(aggregated("node1", ("c0", "c1"), "10.77.0.1/24")))
        alone = await lacp_when(node, machine, None, 1)
        assert alone.state == "up"
        said = f"no LACP partner answers on {', '.join(alone.members)}, so that"
        assert said in alone.why
        assert alone.why.endswith("configure the switch's ports as one LACP group")
        await node.put_network("lan", NetworkSpec(egress_allow=(EgressRule("10.77.0.2/32"),)))
        ask = ("/bin/sh", "-c", ASK, "sh", "10.77.0.2", str(API))
        container = await running(node, "asking", spec(network="lan", argv=ask, env={"PATH": "/bin"}))
        await other.wait_for_phase("ready", READY_SECONDS)
        async with await connect(other) as beside, inside(machine, container) as corex:
            await beside.put_config(parse(aggregated("partner", ("d0", "d1"), "10.77.0.2/24")))
            theirs = await lacp_when(beside, other, alone.mac, 2)
            ours = await lacp_when(node, machine, theirs.mac, 2)
            assert set(ours.members) == set(ours.lacp.members if ours.lacp else ())
            assert ours.why == f"bond of {', '.join(ours.members)}: it has 10.77.0.1/24"
            patience = machine.acceleration.seconds(ANSWER_SECONDS)
            await requests_go_on(corex, patience)
            await other.take_carrier("d0")
            await machine.pull("c0", READY_SECONDS)
            await lacp_when(node, machine, theirs.mac, 1)
            await requests_go_on(corex, patience)
            await machine.plug_nic(here[0])
            await other.give_carrier("d0")
            await lacp_when(node, machine, theirs.mac, 2)
            await lacp_when(beside, other, alone.mac, 2)
            await requests_go_on(corex, patience)
        await node.put_config(parse(""))
        for nic in here:
            await machine.pull(nic.name, READY_SECONDS)


async def test_a_config_that_cuts_the_node_off_goes_back_by_itself_and_zn_says_so(
    machine: Machine, node: NodeClient, operator_key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    identity = await machine.wait_for_phase("identity", READY_SECONDS)
    pem = operator_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "operator.pem").touch(0o600)
    (tmp_path / "operator.pem").write_bytes(pem)
    address, fingerprint = f"127.0.0.1:{await machine.forward(API)}", identity.detail.removeprefix("sha256:")
    context.put(tmp_path / "contexts.toml", "test", context.Context(address, fingerprint, "operator.pem"))
    text = f'[network.links.lan]\n{card("net0")}\naddresses = ["192.0.2.9/24"]\n'
    code, said = await zn_apply(tmp_path, text, "12s")
    assert (code, "did not answer for 12 s, and it went back to the earlier one" in said) == (1, True), said
    await machine.wait_for_line("zn: config api: Went back to the earlier one", READY_SECONDS)
    assert (await addresses(node))[await name(node)] == ["10.0.2.15/24"]
    code, said = await zn_apply(tmp_path, f"{text}dhcp4 = true", "60s")
    assert code == 0, said
    assert (await node.config()).state == "applied"
    assert (await addresses(node))[await name(node)] == ["10.0.2.15/24", "192.0.2.9/24"]


async def test_links_stay_as_they_are_while_the_node_daemon_dies_and_a_trial_ends_with_it(
    machines: Machines, direct_boot: DirectBoot, connect: Connect, tmp_path: Path
) -> None:
    boot = sabotage(direct_boot, tmp_path)
    async with Segment(tmp_path) as lan:
        nic = lan.nic("neighbour")
        machine = await machines.start(MachineSpec("solo", boot, nics=(UserNic(), lan.nic("a0"))))
        await machine.wait_for_line("saboteur: listens", READY_SECONDS)
        await machine.wait_for_phase("ready", READY_SECONDS)
        patience = machine.acceleration.seconds(ANSWER_SECONDS)
        text = f"[network.links.lan]\n{card('a0', 'solo')}\n"
        vlan = '[network.links.v10]\nvlan = { link = "lan", id = 10 }\naddresses = ["203.0.113.7/24"]\n'
        async with await connect(machine) as node, Neighbour(nic, HERE) as neighbour:
            await node.put_config(parse(f'{text}addresses = ["198.51.100.7/24"]\n{vlan}'))
            await kill_daemon(machine)
            settled = len(machine.console.lines)
            assert (await addresses(node))["v10"] == ["203.0.113.7/24"]
            await neighbour.echo("198.51.100.7", 100, patience)
            await machine.wait_for_line(
                "zn: config api: Applied: as it was given over the API", READY_SECONDS, settled
            )
            assert not [line for line in machine.console.lines[settled:] if "zn: network" in line]
            await node.put_config(parse(f'{text}addresses = ["198.51.100.8/24"]'), 600.0)
            await neighbour.echo("198.51.100.8", 100, patience)
            await kill_daemon(machine)
            await neighbour.echo("198.51.100.7", 100, patience)
            assert (await node.config()).state == "applied"
