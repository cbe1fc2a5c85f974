"""`zn network` against a node's real API: the links of this machine, and of one that is written down."""

import re
from pathlib import Path

import msgspec
import pytest

from core0.links import inventory
from core0.links.hardware import Controller, Hardware
from core0.links.model import Conversation, Lease, WantedLink
from core0.links.wanted import Wanted
from core0.linux.netlink import IFF_UP, Address
from core0.linux.netlink import Link as Device
from core0.wire.links import Lacp, Link
from tests.cli.conftest import Zn
from tests.host_node import HostNode

DEVICES = [
    Device(2, "enp0s6", "52:54:00:00:00:02", 1500, IFF_UP, True, other_names=("eth0",)),
    Device(3, "enp0s7", "52:54:00:00:00:03", 1500, IFF_UP, True),
    Device(4, "enp0s8", "52:54:00:00:00:04", 1500, IFF_UP, False),
    Device(5, "zc1", "52:54:00:00:00:05", 1500, IFF_UP, True, "veth"),
    Device(6, "enp0s10", "52:54:00:00:00:06", 1500, IFF_UP, True, master=7),
    Device(7, "bond0", "52:54:00:00:00:06", 1500, IFF_UP, True, "bond", alias="zeronode"),
    Device(8, "v20", "52:54:00:00:00:06", 1500, IFF_UP, True, "vlan", parent=7, alias="zeronode", vlan=20),
]
ADDRESSES = [Address(2, "fe80::2/64"), Address(2, "10.0.2.15/24"), Address(8, "192.0.2.7/24")]
HARDWARE = {
    "enp0s6": Hardware("0000:00:06.0", "1af4:1041", "virtio_net"),
    "enp0s7": Hardware("0000:00:07.0", "1af4:1041", "virtio_net", speed_mbps=10000),
    "enp0s8": Hardware("0000:00:08.0", "1af4:1041", "virtio_net"),
    "enp0s10": Hardware("0000:00:0a.0", "1af4:1041", "virtio_net"),
}
CONFIGURED = ("enp0s10", "bond0", "v20")
TALKS = {
    2: Conversation("bound", 0.0, Lease("10.0.2.15/24", None, (), "10.0.2.2", 86400)),
    3: Conversation("unanswered", 0.0, cause="no DHCP server answered on enp0s7"),
}


class Kernel:
    """What a node sees of its links."""

    devices = DEVICES

    def __enter__(self) -> "Kernel":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def link(self, index: int) -> Device | None:
        return next((device for device in self.devices if device.index == index), None)

    def addresses(self) -> list[Address]:
        return ADDRESSES


@pytest.fixture
def written(served: HostNode, monkeypatch: pytest.MonkeyPatch) -> HostNode:
    """A node with one link of each kind, and a controller without a driver."""
    monkeypatch.setattr(inventory, "Netlink", Kernel)
    monkeypatch.setattr(inventory, "read_devices", lambda: HARDWARE)
    monkeypatch.setattr(inventory, "read_controllers", lambda _: (Controller("0000:00:09.0", "8086:10d3"),))
    assert served.state
    served.state.links._leases._conversations.update(TALKS)
    monkeypatch.setattr(served.state.links, "indexes", lambda: [device.index for device in Kernel.devices])
    wanted = tuple(map(WantedLink, CONFIGURED))
    monkeypatch.setattr(served.state.links, "_wanted", Wanted(wanted, frozenset(), {}, {}))
    return served


def test_the_documentation_shows_what_is_printed(written: HostNode, zn: Zn) -> None:
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    example = page.partition("zn network links\n# ")[2].partition("\nzn ")[0].split("\n# ")
    printed = zn("network", "links").out.splitlines()
    for shown, said in zip(example, printed, strict=True):
        assert said.split()[: len(shown.partition("…")[0].split())] == shown.partition("…")[0].split()


def test_one_link_is_shown_by_its_name_or_place(written: HostNode, zn: Zn) -> None:
    said = zn("network", "link", "enp0s7")
    assert said.code == 0, said.err
    for text in (
        "0000:00:07.0 (1af4:1041)",
        "virtio_net",
        "yes, 10000 Mbit/s",
        "unanswered for",
        "52:54:00:00:00:03",
    ):
        assert text in said.out
    assert zn("network", "link", "0000:00:07.0").out.splitlines()[1] == said.out.splitlines()[1]
    assert "8086:10d3 has no driver" in zn("network", "link", "0000:00:09.0").out


def test_what_a_config_had_made_is_shown_with_what_it_is_made_of(written: HostNode, zn: Zn) -> None:
    found = msgspec.json.decode(zn("network", "links", "--json").out, type=tuple[Link, ...])
    card, bond, vlan = (one for one in found if one.name in CONFIGURED)
    assert (card.kind, card.master, card.dhcp) == ("card", "bond0", None)
    assert (bond.kind, bond.members, bond.dhcp) == ("bond", ("enp0s10",), None)
    assert (vlan.kind, vlan.vlan, vlan.parent, vlan.dhcp) == ("vlan", 20, "bond0", None)
    rows = [line.split() for line in zn("network", "link", "bond0").out.splitlines()]
    assert ["members", "enp0s10"] in rows
    assert "member of         bond0" in zn("network", "link", "enp0s10").out
    assert "vlan              20 of bond0" in zn("network", "link", "v20").out


def test_a_bond_without_a_partner_is_shown_with_who_serves_alone(
    written: HostNode, zn: Zn, monkeypatch: pytest.MonkeyPatch
) -> None:
    bond = Device(7, "bond0", "52:54:00:00:00:06", 1500, IFF_UP, True, "bond", alias="zeronode")
    alone = msgspec.structs.replace(bond, lacp=(2, "00:00:00:00:00:00"))
    cards = [
        Device(number, f"enp0s{number}", "", 1500, IFF_UP, True, master=7, aggregator=number - 8)
        for number in (9, 10)
    ]
    monkeypatch.setattr(Kernel, "devices", [alone, *cards])
    said = zn("network", "link", "bond0").out
    assert "partner none, serving: enp0s10" in said
    assert "no LACP partner answers on enp0s9, enp0s10" in " ".join(said.split())
    assert "but does not serve" in " ".join(zn("network", "link", "enp0s9").out.split())
    met = msgspec.structs.replace(bond, lacp=(2, "52:54:00:00:00:09"))
    monkeypatch.setattr(Kernel, "devices", [met, *cards])
    found = msgspec.json.decode(zn("network", "link", "bond0", "--json").out, type=Link)
    assert found.lacp == Lacp("52:54:00:00:00:09", ("enp0s10",))


def test_programs_get_the_links_in_the_apis_own_types(written: HostNode, zn: Zn) -> None:
    found = msgspec.json.decode(zn("network", "links", "--json").out, type=tuple[Link, ...])
    assert [(one.name, one.state) for one in found] == [
        ("enp0s6", "up"),
        ("enp0s7", "waiting"),
        ("enp0s8", "no-carrier"),
        ("enp0s10", "up"),
        ("bond0", "up"),
        ("v20", "up"),
        ("0000:00:09.0", "no-driver"),
    ]
    assert found[0].addresses == ("10.0.2.15/24", "fe80::2/64")
    assert msgspec.json.decode(zn("network", "link", "enp0s6", "--json").out, type=Link).name == "enp0s6"


def test_a_card_is_found_by_the_kernels_name_too(written: HostNode, zn: Zn) -> None:
    said = zn("network", "link", "eth0")
    assert (said.code, "also              eth0" in said.out) == (0, True), said.err
    seconds = re.compile(r"\d+ s\b")  # they pass between the two
    assert seconds.sub("", said.out) == seconds.sub("", zn("network", "link", "enp0s6").out)


def test_a_link_that_is_not_there_is_told_with_the_remedy(written: HostNode, zn: Zn) -> None:
    said = zn("network", "link", "eth9")
    assert (said.code, said.out) == (3, "")
    assert (
        "cannot show link eth9: there is none of that name or bus address; see 'zn network links'" in said.err
    )


def test_the_links_of_this_machine_are_listed(served: HostNode, zn: Zn) -> None:
    said = zn("network", "links", "--json")
    assert said.code == 0, said.err
    msgspec.json.decode(said.out, type=tuple[Link, ...])
