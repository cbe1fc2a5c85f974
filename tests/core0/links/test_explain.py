"""The sentence of each situation that a link can be in, and what is told with it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core0.links.explain import Role, describe_controller, describe_device
from core0.links.hardware import Controller, Hardware
from core0.links.model import Conversation, Lease
from core0.linux.netlink import IFF_UP
from core0.linux.netlink import Link as Device
from core0.wire.links import Dhcp, Lacp, Link

LEASE = Lease("10.0.2.15/24", "10.0.2.2", (), "10.0.2.2", 86400)
DEVICE = Device(2, "eth0", "52:54:00:12:34:56", 1500, IFF_UP, True)
UNPLUGGED = replace(DEVICE, carrier=False)
OWN = ("10.0.2.15/24", "fe80::1/64")
LOCAL = ("fe80::1/64",)
NOW = 1000.0
BOUND = Conversation("bound", 400.0, LEASE, 86800.0, 43600.0)
SILENT = Conversation("unanswered", 940.0, next_try=1008.0, cause="no DHCP server answered on eth0")
REFUSED = Conversation("refused", 990.0, cause="the DHCP server 10.0.2.2 refused 10.0.2.15/24")
LOOK = "see that a DHCP server serves its network and has addresses left"


@pytest.mark.parametrize(
    ("device", "addresses", "talk", "state", "why"),
    [
        pytest.param(
            DEVICE, OWN, BOUND, "up", "it has 10.0.2.15/24 by DHCP from 10.0.2.2", id="with a lease"
        ),
        pytest.param(
            DEVICE,
            OWN,
            replace(BOUND, state="renewing"),
            "up",
            "it has 10.0.2.15/24 by DHCP from 10.0.2.2; the lease is being renewed",
            id="renewing",
        ),
        pytest.param(
            DEVICE,
            ("10.0.2.15/24", "2001:db8::5/64", *LOCAL),
            BOUND,
            "up",
            "it has 10.0.2.15/24 by DHCP from 10.0.2.2, and 2001:db8::5/64",
            id="both kinds",
        ),
        pytest.param(
            DEVICE,
            ("2001:db8::5/64", *LOCAL),
            SILENT,
            "up",
            "it has 2001:db8::5/64, but none by DHCP: no DHCP server answered on eth0",
            id="IPv6 only",
        ),
        pytest.param(DEVICE, OWN, None, "up", "it has 10.0.2.15/24", id="an address of another origin"),
        pytest.param(
            DEVICE,
            LOCAL,
            Conversation("asking", 999.0),
            "waiting",
            "it has a carrier and asks for an address by DHCP; wait a few seconds",
            id="asking",
        ),
        pytest.param(
            DEVICE,
            (),
            None,
            "waiting",
            "it has a carrier and asks for an address by DHCP; wait a few seconds",
            id="carrier of this moment",
        ),
        pytest.param(
            DEVICE,
            LOCAL,
            SILENT,
            "waiting",
            f"it has no address: no DHCP server answered on eth0; {LOOK}; the node asks again in 8 s",
            id="nobody answered",
        ),
        pytest.param(
            DEVICE,
            LOCAL,
            REFUSED,
            "waiting",
            f"it has no address: the DHCP server 10.0.2.2 refused 10.0.2.15/24; {LOOK}; the node asks again now",
            id="refused",
        ),
        pytest.param(
            UNPLUGGED,
            LOCAL,
            None,
            "no-carrier",
            "it has no carrier: plug in its cable, or look at the other end's port",
            id="no cable",
        ),
        pytest.param(
            UNPLUGGED,
            OWN,
            BOUND,
            "no-carrier",
            "it has no carrier: plug in its cable, or look at the other end's port; until then it keeps 10.0.2.15/24",
            id="cable pulled",
        ),
        pytest.param(
            replace(UNPLUGGED, flags=0),
            (),
            None,
            "down",
            "it is down: the kernel did not set it up; 'zn node events' tells why, or try another card",
            id="down",
        ),
    ],
)
def test_a_device(
    device: Device, addresses: tuple[str, ...], talk: Conversation | None, state: str, why: str
) -> None:
    found = describe_device(device, addresses, Hardware(), talk, NOW)
    assert (found.state, found.why) == (state, why)


MEMBER = Role(master="bond0", asks=False)
VLAN = replace(DEVICE, name="v20", kind="vlan", vlan=20)
BOND = replace(DEVICE, name="bond0", kind="bond")
BRIDGE = replace(DEVICE, name="br0", kind="bridge")
DARK = {"carrier": False}
SWITCH = "configure the switch's ports as one LACP group"
LACP = Role(members=("eth0", "eth1"), asks=False, lacp=Lacp("52:54:00:00:00:09", ("eth0", "eth1")))
UNPLUGGED_TEXT = "it has no carrier: plug in its cable, or look at the other end's port"


@pytest.mark.parametrize(
    ("device", "addresses", "role", "state", "why"),
    [
        pytest.param(
            DEVICE, (), MEMBER, "up", "it is a member of bond0, which has the addresses", id="a member"
        ),
        pytest.param(
            UNPLUGGED, (), MEMBER, "no-carrier", f"{UNPLUGGED_TEXT}; it is a member of bond0", id="dark"
        ),
        pytest.param(
            DEVICE,
            LOCAL,
            Role(asks=False),
            "up",
            "it has no address: its config gives it none, and lets it ask for none by DHCP",
            id="no address is wanted",
        ),
        pytest.param(
            DEVICE, ("192.0.2.7/24",), Role(asks=False), "up", "it has 192.0.2.7/24", id="static address"
        ),
        pytest.param(
            replace(DEVICE, flags=0),
            (),
            Role(up=False),
            "down",
            "it is down, as the config says of it",
            id="down",
        ),
        pytest.param(
            replace(VLAN, flags=0),
            (),
            Role("eth0", up=False),
            "down",
            "VLAN 20 of eth0: it is down, as the config says of it or of eth0",
            id="a VLAN of a link that is down",
        ),
        pytest.param(
            replace(VLAN, flags=0),
            (),
            Role("eth0"),
            "down",
            "VLAN 20 of eth0: it is down: the kernel did not set it up; 'zn node events' tells why",
            id="a VLAN that did not come up",
        ),
        pytest.param(
            VLAN,
            ("192.0.2.7/24",),
            Role("eth0", asks=False),
            "up",
            "VLAN 20 of eth0: it has 192.0.2.7/24",
            id="VLAN",
        ),
        pytest.param(
            replace(VLAN, **DARK),
            (),
            Role("eth0"),
            "no-carrier",
            "VLAN 20 of eth0: it has no carrier: see to eth0",
            id="a dark VLAN",
        ),
        pytest.param(
            replace(BOND, **DARK),
            (),
            Role(members=("eth0", "eth1")),
            "no-carrier",
            "bond of eth0, eth1: it has no carrier: none of its members has one",
            id="a dark bond",
        ),
        pytest.param(
            replace(BOND, **DARK),
            (),
            Role(),
            "no-carrier",
            "bond: it has no members: none of their cards is there; 'zn node events' tells which wait",
            id="a bond of nothing",
        ),
        pytest.param(
            BOND,
            ("192.0.2.7/24",),
            LACP,
            "up",
            "bond of eth0, eth1: it has 192.0.2.7/24",
            id="LACP that is agreed on",
        ),
        pytest.param(
            BOND,
            ("192.0.2.7/24",),
            replace(LACP, lacp=Lacp(None, ("eth1",))),
            "up",
            "bond of eth0, eth1: it has 192.0.2.7/24; no LACP partner answers on eth0, eth1, "
            f"so that eth1 serves alone; {SWITCH}",
            id="LACP without a partner",
        ),
        pytest.param(
            DEVICE,
            (),
            replace(MEMBER, left_out=True),
            "up",
            "it is a member of bond0, but does not serve: it is not in the LACP group of the others; "
            f"{SWITCH}",
            id="a member that is not in the LACP group",
        ),
        pytest.param(
            replace(BRIDGE, **DARK),
            ("192.0.2.7/24",),
            Role(),
            "no-carrier",
            "bridge: it has 192.0.2.7/24; without members it reaches this node alone",
            id="a bridge of nothing",
        ),
    ],
)
def test_a_device_among_others(
    device: Device, addresses: tuple[str, ...], role: Role, state: str, why: str
) -> None:
    found = describe_device(device, addresses, Hardware(), None, NOW, role)
    assert (found.state, found.why) == (state, why)
    assert (found.kind, found.master or "") == (device.kind or "card", role.master)
    assert (found.dhcp is None) == (device.carrier or not role.asks)


@pytest.mark.parametrize(
    ("controller", "state", "why"),
    [
        pytest.param(
            Controller("0000:00:05.0", "8086:10d3"),
            "no-driver",
            "not used: network controller 8086:10d3 has no driver in this image; "
            "plug another card, or boot an image that has one",
            id="no driver",
        ),
        pytest.param(
            Controller("0000:00:05.0", "14e4:1657", "tg3"),
            "no-link",
            "not used: network controller 14e4:1657 has a driver, tg3, which made no link: "
            "its firmware may not be in this image; the kernel's lines on the console tell more",
            id="no link",
        ),
        pytest.param(
            Controller("0000:00:05.0", "15ad:07b0", modules=("vmxnet3",)),
            "no-link",
            "not used: network controller 15ad:07b0 has a driver in this image, vmxnet3, which did not take it; "
            "the kernel's lines on the console tell more; try another slot or another card",
            id="not taken",
        ),
    ],
)
def test_a_controller(controller: Controller, state: str, why: str) -> None:
    found = describe_controller(controller)
    assert (found.name, found.pci, found.state, found.why) == ("0000:00:05.0", "0000:00:05.0", state, why)


def test_durations_count_from_now() -> None:
    found = describe_device(DEVICE, OWN, Hardware(), BOUND, NOW)
    assert found.dhcp == Dhcp("bound", 600.0, "10.0.2.15/24", "10.0.2.2", 85800.0, 42600.0)


def test_what_is_over_is_not_told_as_a_negative_duration() -> None:
    found = describe_device(DEVICE, OWN, Hardware(), replace(SILENT, next_try=990.0), NOW)
    assert found.dhcp
    assert found.dhcp.next_try_in_seconds == 0.0


def test_without_a_carrier_there_is_nothing_to_ask_on_unless_a_lease_is_held() -> None:
    assert describe_device(UNPLUGGED, (), Hardware(), SILENT, NOW).dhcp == Dhcp("no-carrier")
    kept = describe_device(UNPLUGGED, OWN, Hardware(), BOUND, NOW).dhcp
    assert kept
    assert kept.state == "bound"


def test_a_speed_is_told_with_a_carrier_only() -> None:
    hardware = Hardware("0000:00:05.0", "8086:10d3", "e1000e", "1.8-0", 1000)
    assert describe_device(DEVICE, (), hardware, None, NOW).speed_mbps == 1000
    found = describe_device(UNPLUGGED, (), hardware, None, NOW)
    assert (found.speed_mbps, found.driver, found.firmware) == (None, "e1000e", "1.8-0")


moments = st.floats(0, 1e6)
talks = st.builds(
    Conversation,
    state=st.sampled_from(["asking", "bound", "renewing", "unanswered", "refused", "failed"]),
    since=moments,
    lease=st.none() | st.just(LEASE),
    until=st.none() | moments,
    next_try=st.none() | moments,
    cause=st.sampled_from(["", "it was so"]),
)


@given(
    st.builds(replace, st.just(DEVICE), flags=st.sampled_from([0, IFF_UP]), carrier=st.booleans()),
    st.sampled_from([(), OWN, LOCAL]),
    st.none() | talks,
    moments,
)
def test_every_situation_has_a_sentence_and_passes_the_wire(
    device: Device, addresses: tuple[str, ...], talk: Conversation | None, now: float
) -> None:
    found = describe_device(device, addresses, Hardware(), talk, now)
    assert found.why
    assert "\n" not in found.why
    assert msgspec.json.decode(msgspec.json.encode(found), type=Link) == found
