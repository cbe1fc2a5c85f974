"""DHCP messages: round trips, hostile packets, and a whole exchange with dnsmasq as the independent server."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.links import dhcp
from core0.links.model import Lease
from tests.core0 import dnsmasq

needs_dnsmasq = pytest.mark.skipif(not dnsmasq.IS_THERE, reason=dnsmasq.REASON)


def server_message(kind: int, options: dict[int, bytes]) -> bytes:
    """What a server sends for transaction 7: address 10.0.2.15."""
    head = struct.pack("!BBBBI8x4s8s16s192x", 2, 1, 6, 0, 7, b"\x0a\0\2\x0f", b"", b"\x52\x54")
    all_options = {53: bytes([kind]), **options}
    packed = b"".join(bytes([number, len(value)]) + value for number, value in all_options.items())
    return head + b"\x63\x82\x53\x63" + packed + b"\xff"


FULL = {
    1: bytes([255, 255, 255, 0]),
    3: bytes([10, 0, 2, 2]),
    6: bytes([10, 0, 2, 3, 1, 1, 1, 1]),
    26: bytes([5, 120]),
    42: bytes([10, 0, 2, 123]),
    51: struct.pack("!I", 7200),
    54: bytes([10, 0, 2, 2]),
}


def test_an_offer_becomes_a_lease():
    message = dhcp.decode(server_message(dhcp.OFFER, FULL))
    assert dhcp.lease_of(message) == Lease(
        "10.0.2.15/24", "10.0.2.2", ("10.0.2.3", "1.1.1.1"), "10.0.2.2", 7200, ("10.0.2.123",), 1400
    )


@pytest.mark.parametrize("said", [b"", b"\5", b"\0\0\5\x78"])
def test_an_mtu_that_is_no_number_of_two_bytes_is_none(said):
    lease = dhcp.lease_of(dhcp.decode(server_message(dhcp.ACK, {**FULL, 26: said})))
    assert (lease.address, lease.mtu) == ("10.0.2.15/24", None)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({54: b""}, id="no server"),
        pytest.param({1: bytes([255, 0, 255, 0])}, id="mask with a hole"),
        pytest.param({1: b"\xff"}, id="short mask"),
    ],
)
def test_an_offer_that_makes_no_sense_is_no_lease(broken):
    message = dhcp.decode(server_message(dhcp.OFFER, {**FULL, **broken}))
    assert dhcp.lease_of(message) is None


def test_an_offer_without_router_is_a_lease_without_one():
    options = {number: value for number, value in FULL.items() if number != 3}
    assert dhcp.lease_of(dhcp.decode(server_message(dhcp.OFFER, options))).gateway is None


@given(st.binary(max_size=700))
def test_any_bytes_decode_or_not_but_never_raise(data):
    message = dhcp.decode(data)
    if message:
        dhcp.lease_of(message)
    dhcp.unwrap(data)


@given(st.binary(max_size=400))
def test_any_options_behind_a_right_head_never_raise(tail):
    message = dhcp.decode(server_message(dhcp.ACK, FULL)[:-1] + tail)
    if message:
        dhcp.lease_of(message)


def test_a_client_packet_has_right_checksum_and_ports():
    packet = dhcp.wrap(dhcp.encode(dhcp.Message(dhcp.DISCOVER, 1, b"\x52\x54\0\x12\x34\x56")))
    assert dhcp.checksum(packet[:20]) == 0
    assert struct.unpack_from("!HH", packet, 20) == (68, 67)
    assert dhcp.unwrap(packet) is None, "a client takes no other client's packet for an answer"


@pytest.mark.root
@needs_dnsmasq
def test_a_lease_from_dnsmasq_is_acquired_and_renewed(in_fresh_network, tmp_path):
    in_fresh_network(f"""
import asyncio
from core0.links.dhcp import Client
from tests.core0.dnsmasq import make_cable, serving
make_cable('10.9.0.1/24')
async def exchange():
    with Client('cli') as client:
        lease = await client.acquire(attempts=6)
        return lease, await client.renew(lease)
options = ('--dhcp-range=10.9.0.50,10.9.0.50,255.255.255.0,300', '--dhcp-option=6,10.9.0.9')
with serving('{tmp_path}', *options):
    lease, again = asyncio.run(exchange())
assert lease.address == again.address == '10.9.0.50/24', lease
assert lease.gateway == '10.9.0.1' and lease.nameservers == ('10.9.0.9',) and lease.seconds == 300
""")


@pytest.mark.root
@needs_dnsmasq
def test_a_declined_address_is_not_given_again(in_fresh_network, tmp_path):
    in_fresh_network(f"""
import asyncio
from core0.links.dhcp import Client
from tests.core0.dnsmasq import make_cable, serving
make_cable('10.9.0.1/24')
async def exchange():
    with Client('cli') as client:
        first = await client.acquire(attempts=6)
        client.decline(first)
        return first, await client.acquire(attempts=6)
with serving('{tmp_path}', '--dhcp-range=10.9.0.50,10.9.0.51,255.255.255.0,300'):
    first, second = asyncio.run(exchange())
assert {{first.address, second.address}} == {{'10.9.0.50/24', '10.9.0.51/24'}}, (first, second)
""")


@pytest.mark.root
@needs_dnsmasq
def test_a_server_of_another_network_refuses_to_renew_what_it_never_gave(in_fresh_network, tmp_path):
    in_fresh_network(f"""
import asyncio
from core0.links.dhcp import Client, RefusedError
from core0.links.model import Lease
from tests.core0.dnsmasq import make_cable, serving
make_cable('10.9.0.1/24')
async def exchange():
    with Client('cli') as client:
        await client.renew(Lease('192.0.2.7/24', None, (), '192.0.2.1', 3600), attempts=6)
with serving('{tmp_path}', '--dhcp-range=10.9.0.50,10.9.0.50,255.255.255.0,300', '--dhcp-authoritative'):
    try:
        asyncio.run(exchange())
    except RefusedError as error:
        assert str(error) == 'the DHCP server 10.9.0.1 refused 192.0.2.7/24'
    else:
        raise AssertionError
""")


@pytest.mark.root
def test_a_link_without_a_server_says_so(in_fresh_network):
    in_fresh_network("""
import asyncio, subprocess
subprocess.run(['ip', 'link', 'add', 'cli', 'type', 'veth', 'peer', 'name', 'far'], check=True)
subprocess.run(['ip', 'link', 'set', 'cli', 'up'], check=True)
from core0.links.dhcp import Client, NoAnswerError
async def exchange():
    with Client('cli') as client:
        await client.acquire(attempts=1)
try:
    asyncio.run(exchange())
except NoAnswerError as error:
    assert str(error) == 'no DHCP server answered on cli'
else:
    raise AssertionError
""")
