"""What routers advertise: hostile messages, and what the kernel passes on from dnsmasq as the independent router."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.linux.routers import NameServers, parse
from tests.core0 import dnsmasq

ONE, TWO = bytes.fromhex("20010db8" + "00" * 11 + "53"), bytes.fromhex("fe80" + "00" * 13 + "01")


def message(options: bytes, *, kind: int = 68, family: int = 10, icmp: int = 134) -> bytes:
    body = struct.pack("=BBHiBBHI", family, 0, len(options), 7, icmp, 0, 0, 0) + options
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def name_servers(*addresses: bytes, seconds: int = 600) -> bytes:
    return struct.pack("!BBHI", 25, 1 + 2 * len(addresses), 0, seconds) + b"".join(addresses)


def test_name_servers_come_with_their_link_and_their_time() -> None:
    found = list(parse(message(name_servers(ONE, TWO)) + message(name_servers(ONE, seconds=0))))
    assert found == [
        NameServers(7, ("2001:db8::53", "fe80::1"), 600),
        NameServers(7, ("2001:db8::53",), 0),
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(message(name_servers(ONE), kind=16), id="another message"),
        pytest.param(message(name_servers(ONE), family=2), id="another family"),
        pytest.param(message(name_servers(ONE), icmp=137), id="a redirect"),
        pytest.param(message(struct.pack("!BB6x", 31, 1)), id="another option"),
        pytest.param(message(name_servers(ONE)[:-1]), id="a cut option"),
        pytest.param(message(bytes(8)), id="an option without a length"),
    ],
)
def test_what_are_no_name_servers_is_passed_over(data: bytes) -> None:
    assert list(parse(data)) == []


@given(st.binary(max_size=200))
def test_any_options_never_raise(options: bytes) -> None:
    list(parse(message(options)))
    list(parse(options))


@pytest.mark.root
@pytest.mark.skipif(not dnsmasq.IS_THERE, reason=dnsmasq.REASON)
@pytest.mark.parametrize(
    ("range_", "flags"),
    [
        pytest.param("2001:db8::,ra-only", "0", id="routes only"),
        pytest.param("2001:db8::,ra-stateless", "netlink.ROUTER_OTHER", id="other things by DHCP"),
        pytest.param(
            "2001:db8::5,2001:db8::9,64,300",
            "netlink.ROUTER_MANAGED | netlink.ROUTER_OTHER",
            id="addresses by DHCP",
        ),
    ],
)
def test_the_kernel_tells_what_a_router_advertises(in_fresh_network, tmp_path, range_, flags) -> None:
    in_fresh_network(f"""
import select, socket
from core0.linux import netlink
from core0.linux.routers import Advertisements
from tests.core0.dnsmasq import make_cable, serving
heard = Advertisements()
make_cable('2001:db8::1/64')
names = '--dhcp-option=option6:dns-server,[2001:db8::53]'
with serving('{tmp_path}', '--enable-ra', '--dhcp-range={range_}', '--ra-param=srv,4,60', names):
    found = ()
    while not found:
        assert select.select([heard], [], [], 30)[0], 'nothing was heard'
        told = heard.pending()
        found = told.servers
    assert told.links == {{socket.if_nametoindex('cli')}}, told
    assert found[0].addresses == ('2001:db8::53',) and found[0].seconds > 0, found
    heard.close()
    with netlink.Netlink() as rt:
        assert rt.router_flags()[socket.if_nametoindex('cli')] == {flags}
""")


@pytest.mark.root
def test_routers_are_asked_in_a_way_that_they_answer(in_fresh_network) -> None:
    """They pass over what may have come from another link: its hop limit is not 255 (RFC 4861 section 6.1.1)."""
    in_fresh_network("""
import socket, subprocess
from core0.linux.routers import solicit
def run(*words): subprocess.run(words, check=True)
run('ip', 'link', 'add', 'srv', 'type', 'veth', 'peer', 'name', 'cli')
run('sysctl', '-qw', 'net.ipv6.conf.cli.router_solicitations=0', 'net.ipv6.conf.cli.accept_dad=0')
for link in ('srv', 'cli', 'lo'): run('ip', 'link', 'set', link, 'up')
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
wire.bind(('srv', 0x86DD))
wire.settimeout(30)
solicit(socket.if_nametoindex('cli'))
while (packet := wire.recv(2048))[6] != 58 or packet[40] != 133:
    pass
assert packet[7] == 255 and packet[8:10] == bytes.fromhex('fe80') and packet[24:40] == socket.inet_pton(10, 'ff02::2')
""")
