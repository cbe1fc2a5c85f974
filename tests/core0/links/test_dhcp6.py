"""DHCPv6 messages: round trips, hostile packets, and whole exchanges with dnsmasq as the independent server."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.links import dhcp6
from core0.links.dhcp6 import Message, decode, encode, lease_of
from core0.links.model import Lease6
from tests.core0 import dnsmasq

DUID = bytes.fromhex("000300015254000000ff")
FIVE = "2001:db8::5"
NAMES = b"".join(socket.inet_pton(socket.AF_INET6, one) for one in ("2001:db8::53", "fe80::1"))


def option(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value


def association(address: str = FIVE, preferred: int = 300, valid: int = 600, renew: int = 0) -> bytes:
    packed = struct.pack("!16sII", socket.inet_pton(socket.AF_INET6, address), preferred, valid)
    return struct.pack("!III", 7, renew, 0) + option(5, packed)


def reply(**options: bytes) -> Message:
    numbers = {"server": 2, "ia": 3, "names": 23, "sntp": 31, "refresh": 32, "ntp": 56}
    return Message(dhcp6.REPLY, b"abc", {numbers[name]: value for name, value in options.items()})


def test_a_reply_becomes_a_lease() -> None:
    message = decode(encode(reply(server=DUID, ia=association(), names=NAMES)))
    assert message
    assert lease_of(message) == Lease6(f"{FIVE}/128", ("2001:db8::53", "fe80::1"), DUID.hex(), 150, 600)


@pytest.mark.parametrize(
    ("options", "servers"),
    [
        pytest.param({"sntp": NAMES}, ("2001:db8::53", "fe80::1"), id="the older option"),
        pytest.param({"ntp": option(1, NAMES[:16]), "sntp": NAMES}, ("2001:db8::53",), id="the newer one"),
        pytest.param({"ntp": option(3, b"name"), "sntp": NAMES[:16]}, ("2001:db8::53",), id="only a name"),
        pytest.param({"ntp": b"xyz", "sntp": b"short"}, (), id="nonsense"),
    ],
)
def test_a_reply_names_time_servers(options: dict[str, bytes], servers: tuple[str, ...]) -> None:
    lease = lease_of(reply(server=DUID, ia=association(), **options))
    assert lease
    assert lease.timeservers == servers


def test_the_server_says_when_to_renew() -> None:
    lease = lease_of(reply(server=DUID, ia=association(renew=99)))
    assert lease
    assert lease.renew == 99


@pytest.mark.parametrize(
    ("refresh", "seconds"),
    [
        pytest.param({}, 86400, id="it does not say"),
        pytest.param({"refresh": struct.pack("!I", 7200)}, 7200, id="it says"),
        pytest.param({"refresh": struct.pack("!I", 1)}, 600, id="too often"),
        pytest.param({"refresh": b"x"}, 86400, id="nonsense"),
    ],
)
def test_a_reply_without_an_address_tells_what_goes_with_others(
    refresh: dict[str, bytes], seconds: int
) -> None:
    lease = lease_of(reply(server=DUID, names=NAMES, **refresh))
    assert lease == Lease6(None, ("2001:db8::53", "fe80::1"), DUID.hex(), seconds, seconds)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"ia": association()}, id="no server"),
        pytest.param({"server": b"x" * 131, "ia": association()}, id="a server's name that is too long"),
        pytest.param({"server": DUID}, id="nothing"),
        pytest.param({"server": DUID, "ia": association("::1")}, id="the loopback"),
        pytest.param({"server": DUID, "ia": association("ff02::1")}, id="a group's address"),
        pytest.param({"server": DUID, "ia": association("fe80::7")}, id="a link's own address"),
        pytest.param({"server": DUID, "ia": association(valid=0, preferred=0)}, id="over already"),
        pytest.param(
            {"server": DUID, "ia": association(preferred=9, valid=8)}, id="preferred beyond validity"
        ),
        pytest.param({"server": DUID, "ia": association()[:-1]}, id="cut"),
    ],
)
def test_a_reply_that_makes_no_sense_is_no_lease(options: dict[str, bytes]) -> None:
    assert lease_of(reply(**options)) is None


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_not_but_never_raise(data: bytes) -> None:
    message = decode(data)
    if message:
        lease_of(message)


@given(st.binary(max_size=100))
def test_any_association_gives_an_address_or_not_but_never_raises(data: bytes) -> None:
    lease_of(reply(server=DUID, ia=data))


_NETWORK = """
import asyncio
from core0.links.dhcp import NoAnswerError
from core0.links.dhcp6 import Client
from tests.core0.dnsmasq import make_cable, serving
make_cable('2001:db8::1/64')
hardware = bytes.fromhex('525400000007')
def server(range_, folder):
    names = '--dhcp-option=option6:dns-server,[2001:db8::53]'
    return serving(folder, '--enable-ra', '--dhcp-range=' + range_, names)
"""

needs_dnsmasq = pytest.mark.skipif(not dnsmasq.IS_THERE, reason=dnsmasq.REASON)


@pytest.mark.root
@needs_dnsmasq
def test_an_address_from_dnsmasq_is_acquired_and_renewed(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""{_NETWORK}
async def exchange():
    with Client('cli', hardware) as client:
        lease = await client.acquire(attempts=6)
        return lease, await client.renew(lease)
with server('2001:db8::50,2001:db8::50,64,300', '{tmp_path}'):
    lease, again = asyncio.run(exchange())
assert lease.address == again.address == '2001:db8::50/128', lease
assert lease.nameservers == ('2001:db8::53',) and lease.seconds == 300 and 0 < lease.renew < 300, lease
""")


@pytest.mark.root
@needs_dnsmasq
def test_what_goes_with_other_addresses_is_told_without_one(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""{_NETWORK}
async def exchange():
    with Client('cli', hardware) as client:
        return await client.inform(attempts=6)
with server('2001:db8::,ra-stateless', '{tmp_path}'):
    told = asyncio.run(exchange())
assert told.address is None and told.nameservers == ('2001:db8::53',), told
""")


@pytest.mark.root
def test_a_link_without_a_server_says_so(in_fresh_network) -> None:
    in_fresh_network(f"""{_NETWORK}
async def exchange():
    with Client('cli', hardware) as client:
        await client.acquire(attempts=1)
try:
    asyncio.run(exchange())
except NoAnswerError as error:
    assert str(error) == 'no DHCPv6 server answered on cli'
else:
    raise AssertionError
""")
