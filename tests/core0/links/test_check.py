"""What is refused of a config's links: by field, with the remedy, before anything is changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.links.check import check
from core0.links.model import SeenLink
from core0.wire.config import parse
from core0.wire.control import RefusedError
from core0.wire.link_config import LinkConfig, LinkSelector, NetworkConfig, RouteConfig

CARD = SeenLink(
    2, "eth0", "52:54:00:00:00:01", True, True, frozenset(), driver="virtio_net", path="0000:00:03.0"
)
OTHER = SeenLink(
    3, "eth1", "52:54:00:00:00:02", True, True, frozenset(), driver="virtio_net", path="0000:00:04.0"
)
VETH = SeenLink(9, "zc1", "", True, True, frozenset(), "veth")
TUNNEL = SeenLink(10, "tun7", "", True, True, frozenset(), "tun")
TAKEN = {"network default": ("10.88.0.0/16", "fd00:88::/64")}
LANDSCAPE = (CARD, OTHER, VETH, TUNNEL)
A = '[network.links.a]\nselect = { mac = "52:54:00:00:00:01" }\n'
B = '[network.links.b]\nselect = { path = "0000:00:04.0" }\n'


def links(text: str) -> NetworkConfig:
    return parse(text).network


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(A + B, id="two cards"),
        pytest.param(
            '[network.links.x]\nselect = { mac = "52:54:00:00:00:99" }', id="a card that may be plugged"
        ),
        pytest.param(
            A + 'addresses = ["192.0.2.7/24", "2001:db8::7/64"]\nmtu = 1400\nnameservers = ["192.0.2.1"]\n'
            '[[network.links.a.routes]]\nto = "0.0.0.0/0"\nvia = "192.0.2.1"\n'
            '[[network.links.a.routes]]\nto = "::/0"\nvia = "fe80::1"\n',
            id="static addresses",
        ),
        pytest.param(
            A + B + '[network.links.t]\nbond = { members = ["a", "b"], primary = "a" }', id="a bond"
        ),
        pytest.param(A + '[network.links.v]\nvlan = { link = "a", id = 10 }\nmtu = 1400', id="a VLAN"),
        pytest.param(A + "[network.links.br0]\nbridge = { members = ['a'] }", id="a bridge"),
        pytest.param(A + 'mtu = 576\nipv6 = "off"', id="a small MTU"),
        pytest.param(
            A + 'addresses = ["192.0.2.6/31", "192.0.2.9/32", "2001:db8::/127"]', id="whole prefixes"
        ),
        pytest.param(
            A + '[[network.links.a.routes]]\nto = "10.9.0.0/16"\nvia = "10.0.2.9"',
            id="a gateway that DHCP brings",
        ),
    ],
)
def test_a_sound_config_is_taken(text: str) -> None:
    check(links(text), LANDSCAPE)


BOTH = A + 'addresses = ["10.1.0.2/16"]\n' + B
STATIC = A + 'addresses = ["10.1.0.2/24"]\n'


def route(to: str, via: str = "", more: str = "") -> str:
    return f'[[network.links.a.routes]]\nto = "{to}"\n' + (f'via = "{via}"\n' if via else "") + more + "\n"


@pytest.mark.parametrize(
    ("text", "pointer", "said"),
    [
        pytest.param("[network.links.lo]\nbridge = {}", "lo", "no link of the node can be called lo", id="lo"),
        pytest.param("[network.links.zc7]\nbridge = {}", "zc7", "a container's link", id="a container's link"),
        pytest.param("[network.links.a]\nmtu = 1400", "a", "has none of select, vlan, bond", id="no kind"),
        pytest.param(A + "bridge = {}", "a/bridge", "has select and bridge", id="two kinds"),
        pytest.param("[network.links.a]\nselect = {}", "a/select", "selects every card", id="any card"),
        pytest.param(A + "mtu = 20", "a/mtu", "cannot have an MTU of 20", id="MTU 20"),
        pytest.param(A + "mtu = 70000", "a/mtu", "cannot have an MTU of 70000", id="MTU 70000"),
        pytest.param(A + "mtu = 1000", "a/mtu", "IPv6 needs an MTU of 1280", id="too small for IPv6"),
        pytest.param(
            A + 'mtu = 1000\nipv6 = "off"\n[network.links.v10]\nvlan = { link = "a", id = 10 }',
            "v10/mtu",
            "IPv6 needs an MTU of 1280, and v10 shall have 1000",
            id="a VLAN of a link too small for IPv6",
        ),
        pytest.param(
            A + "[network.links.v]\nvlan = { link = 'a', id = 7 }\nmtu = 9000",
            "v/mtu",
            "VLAN v cannot have an MTU of 9000: a has 1500",
            id="a VLAN above its link",
        ),
        pytest.param("[network.links.t]\nbond = { members = [] }", "t/bond/members", "no members", id="empty bond"),
        pytest.param(
            A + "[network.links.t]\nbond = { members = ['a', 'c'] }",
            "t/bond/members/1",
            "the config has no link c",
            id="unknown member",
        ),
        pytest.param(
            A + "[network.links.t]\nbond = { members = ['a'] }\n[network.links.u]\nbond = { members = ['a'] }",
            "u/bond/members/0",
            "a is a member of t already",
            id="member of two bonds",
        ),
        pytest.param(
            A + "[network.links.t]\nbond = { members = ['a', 'a'] }",
            "t/bond/members/1",
            "a is a member of t already",
            id="member twice",
        ),
        pytest.param(
            "[network.links.t]\nbond = { members = ['t'] }", "t", "t on t is a loop", id="bond of itself"
        ),
        pytest.param(
            "[network.links.v]\nvlan = { link = 'w', id = 1 }\n[network.links.w]\nvlan = { link = 'v', id = 1 }",
            "w",
            "v on w on v is a loop",
            id="VLANs on each other",
        ),
        pytest.param(
            "[network.links.br0]\nbridge = { members = ['v'] }\n[network.links.v]\nvlan = { link = 'br0', id = 1 }",
            "v",
            "br0 on v on br0 is a loop",
            id="bridge on its own VLAN",
        ),
        pytest.param(
            "[network.links.v]\nvlan = { link = 'x', id = 1 }", "v/vlan/link", "no link x", id="VLAN of unknown link"
        ),
        pytest.param(
            A + "[network.links.v]\nvlan = { link = 'a', id = 4095 }", "v/vlan/id", "no VLAN's number", id="VLAN 4095"
        ),
        pytest.param(
            A + "[network.links.v]\nvlan = { link = 'a', id = 7 }\n[network.links.w]\nvlan = { link = 'a', id = 7 }",
            "w/vlan/id",
            "v and w are both VLAN 7 of a",
            id="one VLAN twice",
        ),
        pytest.param(
            A + "[network.links.t]\nbond = { members = ['a'], mode = '802.3ad', primary = 'a' }",
            "t/bond/primary",
            "mode 802.3ad has no primary",
            id="primary with LACP",
        ),
        pytest.param(
            A + B + "[network.links.t]\nbond = { members = ['a'], primary = 'b' }",
            "t/bond/primary",
            "b is no member of bond t",
            id="primary of another",
        ),
        pytest.param(
            A + "[network.links.t]\nbond = { members = ['a'], miimon = 0 }",
            "t/bond/miimon",
            "0 ms between looks",
            id="blind bond",
        ),
        pytest.param(
            STATIC + "[network.links.t]\nbond = { members = ['a'] }",
            "a/addresses",
            "a is a member of t and has addresses of its own",
            id="member with an address",
        ),
        pytest.param(
            A + "dhcp4 = true\n[network.links.t]\nbond = { members = ['a'] }",
            "a/dhcp4",
            "has dhcp4 of its own",
            id="member with DHCP",
        ),
        pytest.param(
            A + "mtu = 1400\n[network.links.t]\nbond = { members = ['a'] }",
            "a/mtu",
            "member of bond t, whose MTU it has",
            id="member with an MTU",
        ),
        pytest.param(
            A + "up = false\n[network.links.t]\nbond = { members = ['a'] }", "a/up", "shall be down", id="down member"
        ),
        pytest.param(
            A
            + "[network.links.t]\nbond = { members = ['a'] }\n[network.links.v]\nvlan = { link = 'a', id = 1 }",
            "v/vlan/link",
            "VLAN v is on a, which is a member of bond t",
            id="VLAN on a bond's member",
        ),
        pytest.param(
            "[network.links.br0]\nbridge = {}\n[network.links.br1]\nbridge = { members = ['br0'] }",
            "br1/bridge/members/0",
            "bridge br0 cannot be a member",
            id="bridge of bridges",
        ),
        pytest.param(A + 'addresses = ["10.1.0.2"]', "a/addresses/0", "has no prefix length", id="no length"),
        pytest.param(A + 'addresses = ["10.1.0/24"]', "a/addresses/0", "no address with a prefix", id="half"),
        pytest.param(A + 'addresses = ["10.1.0.2/33"]', "a/addresses/0", "no address with a prefix", id="/33"),
        pytest.param(
            A + 'addresses = ["10.1.0.2/255.255.255.0"]', "a/addresses/0", "has no prefix length", id="a mask"
        ),
        pytest.param(A + 'addresses = ["fe80::1%eth0/64"]', "a/addresses/0", "prefix length", id="a zone"),
        pytest.param(A + 'addresses = ["10.1.0.0/24"]', "a/addresses/0", "address of one host", id="network"),
        pytest.param(A + 'addresses = ["224.0.0.1/4"]', "a/addresses/0", "address of one host", id="multicast"),
        pytest.param(A + 'addresses = ["127.0.0.2/8"]', "a/addresses/0", "address of one host", id="loopback"),
        pytest.param(
            A + 'addresses = ["10.1.0.2/24", "10.1.0.2/16"]', "a/addresses/1", "10.1.0.2 twice", id="address twice"
        ),
        pytest.param(
            A + 'addresses = ["fd00::2/64"]\nipv6 = "off"', "a/addresses/0", "IPv6 off", id="IPv6 off and on"
        ),
        pytest.param(
            BOTH + 'addresses = ["10.1.7.2/24"]', "b/addresses/0", "10.1.7.0/24 of b and 10.1.0.0/16 of a overlap",
            id="subnets overlap",
        ),
        pytest.param(
            BOTH + 'addresses = ["10.1.0.2/16"]', "b/addresses/0", "overlap", id="one address on two links"
        ),
        pytest.param(
            A + 'addresses = ["10.88.3.1/24"]', "a/addresses/0", "of network default overlap", id="containers"
        ),
        pytest.param(A + 'nameservers = ["one"]', "a/nameservers/0", "no address of a host", id="name server"),
        pytest.param(STATIC + route("10.2.0.0"), "a/routes/0/to", "'10.2.0.0' is no network", id="to a host"),
        pytest.param(STATIC + route("10.2.0.1/16"), "a/routes/0/to", "is an address within", id="host bits"),
        pytest.param(STATIC + route("10.1.0.0/24"), "a/routes/0/to", "has that route by itself", id="own subnet"),
        pytest.param(
            STATIC + route("10.2.0.0/16", "10.9.0.1"), "a/routes/0/via", "is in no subnet of a", id="far gateway"
        ),
        pytest.param(
            STATIC + route("10.2.0.0/16", "10.1.0.2"), "a/routes/0/via", "the route is a loop", id="route loop"
        ),
        pytest.param(
            STATIC + route("::/0", "10.1.0.1"), "a/routes/0/via", "two protocols", id="gateway of the other protocol"
        ),
        pytest.param(
            STATIC + route("10.2.0.0/16", "10.1.0.1") + route("10.2.0.0/16", "10.1.0.3"),
            "a/routes/1",
            "routed twice with one metric",
            id="one network twice",
        ),
        pytest.param(A + 'ipv6 = "off"\n' + route("::/0", "fe80::1"), "a/routes/0/to", "IPv6 off", id="IPv6 route"),
        pytest.param(
            "[network.links.eth0]\nbridge = {}", "eth0", "the name eth0 is taken", id="name of a card"
        ),
        pytest.param("[network.links.tun7]\nbridge = {}", "tun7", "the name tun7 is taken", id="name taken"),
        pytest.param(
            "[network.links.a]\nselect = { driver = 'virtio_net' }",
            "a/select",
            "2 cards fit link a: eth0 (52:54:00:00:00:01), eth1 (52:54:00:00:00:02)",
            id="ambiguous",
        ),
        pytest.param(
            A + "[network.links.c]\nselect = { path = '0000:00:03.0' }", "c/select", "links a and c select one card",
            id="one card twice",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_field_and_remedy(text: str, pointer: str, said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check(links(text), LANDSCAPE, TAKEN)
    refusal = caught.value.refusal
    assert said in refusal.detail
    assert refusal.detail.startswith("cannot use the config: ")
    assert refusal.pointer == f"/network/links/{pointer}"
    assert refusal.remedy
    assert refusal.status in (409, 422)


def test_a_selector_fits_by_all_that_it_says() -> None:
    both = LinkSelector(driver="virtio_net", path="0000:00:04.0")
    check(NetworkConfig({"a": LinkConfig(select=both)}), LANDSCAPE)


words = st.text(max_size=20) | st.sampled_from(
    ["10.0.0.1/24", "::/0", "fd00::1/64", "0.0.0.0/0", "10.0.0.254"]
)


@given(words, words, words, st.integers() | st.none())
def test_no_text_or_number_is_more_than_refused(address: str, to: str, via: str, mtu: int | None) -> None:
    link = LinkConfig(
        select=LinkSelector(driver="x"),
        addresses=(address,),
        routes=(RouteConfig(to, via),),
        nameservers=(via,),
        mtu=mtu,
    )
    try:
        check(NetworkConfig({"a": link}), LANDSCAPE)
    except RefusedError:
        return
