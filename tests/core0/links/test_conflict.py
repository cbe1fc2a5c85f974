"""Duplicate addresses: packets, and what a neighbour's kernel says when it is asked."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.links.conflict import Packet, decode, encode_probe, is_claim
from tests.core0 import dnsmasq

OWN, OWN_TOO, OTHER = b"\x52\x54\0\0\0\7", b"\x52\x54\0\0\0\6", b"\x52\x54\0\0\0\x08"
FIVE, SIX, NONE = b"\x0a\0\0\5", b"\x0a\0\0\6", bytes(4)


def test_a_probe_asks_for_the_address_and_claims_none() -> None:
    assert decode(encode_probe(OWN, FIVE)) == Packet(1, OWN, NONE, FIVE)


@pytest.mark.parametrize(
    ("packet", "claims"),
    [
        pytest.param(Packet(2, OTHER, FIVE, NONE), True, id="an answer"),
        pytest.param(Packet(1, OTHER, FIVE, FIVE), True, id="an announcement"),
        pytest.param(Packet(1, OTHER, FIVE, SIX), True, id="its holder asks for another one"),
        pytest.param(Packet(1, OTHER, NONE, FIVE), True, id="somebody probes for the same one"),
        pytest.param(Packet(1, OTHER, SIX, FIVE), False, id="somebody asks who has it"),
        pytest.param(Packet(2, OTHER, SIX, FIVE), False, id="an answer to its holder"),
        pytest.param(Packet(1, OTHER, NONE, SIX), False, id="somebody probes for another one"),
        pytest.param(Packet(1, OWN, NONE, FIVE), False, id="our own probe"),
        pytest.param(Packet(2, OWN, FIVE, NONE), False, id="our own answer"),
        pytest.param(Packet(2, OWN_TOO, FIVE, NONE), False, id="the answer of our other card on the segment"),
    ],
)
def test_who_claims_an_address(packet: Packet, claims: bool) -> None:
    assert is_claim(packet, {OWN, OWN_TOO}, FIVE) == claims


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode_probe(OWN, FIVE)[:-1], id="cut"),
        pytest.param(struct.pack("!HHBBH20x", 6, 0x800, 6, 4, 1), id="not Ethernet"),
        pytest.param(struct.pack("!HHBBH20x", 1, 0x86DD, 6, 4, 1), id="not IPv4"),
        pytest.param(struct.pack("!HHBBH20x", 1, 0x800, 6, 4, 8), id="another operation"),
    ],
)
def test_what_is_no_packet_is_passed_over(data: bytes) -> None:
    assert decode(data) is None


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_not_but_never_raise(data: bytes) -> None:
    decode(data)


_WIRE = """
import asyncio, subprocess
from core0.links.conflict import find_other
def run(*words): subprocess.run(words, check=True)
run('ip', 'link', 'add', 'own', 'type', 'veth', 'peer', 'name', 'far', 'address', '52:54:00:00:00:08')
run('ip', 'netns', 'add', NAME)
run('ip', 'link', 'set', 'far', 'netns', NAME)
run('ip', 'link', 'set', 'own', 'up')
run('ip', 'addr', 'add', '10.0.0.5/24', 'dev', 'own')
run('ip', '-n', NAME, 'link', 'set', 'far', 'up')
run('ip', '-n', NAME, 'addr', 'add', ADDRESS, 'dev', 'far')
try:
    other = asyncio.run(find_other('own', '10.0.0.5', pause=PAUSE))
finally:
    run('ip', 'netns', 'del', NAME)
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("address", "pause", "other"),
    [
        pytest.param("10.0.0.5/24", 30, "52:54:00:00:00:08", id="a neighbour has it"),
        pytest.param("10.0.0.6/24", 0.2, None, id="nobody else has it"),
    ],
)
def test_a_neighbour_that_has_the_address_is_found(
    in_fresh_network, tmp_path, address: str, pause: float, other: str | None
) -> None:
    name = f"zn-test-{tmp_path.name}"[-40:]
    begin = f"NAME, ADDRESS, PAUSE = {name!r}, {address!r}, {pause}"
    in_fresh_network(f"{begin}\n{_WIRE}\nassert other == {other!r}, other")


@pytest.mark.root
def test_another_card_of_this_machine_on_the_segment_is_nobody_else(in_fresh_network) -> None:
    in_fresh_network("""
import asyncio
from core0.links.conflict import find_other
from tests.core0.dnsmasq import run
run('ip', 'link', 'add', 'lan', 'type', 'bridge')
for card in ('one', 'two'):
    run('ip', 'link', 'add', card, 'type', 'veth', 'peer', 'name', card + '-port')
    run('ip', 'link', 'set', card + '-port', 'master', 'lan', 'up')
    run('ip', 'link', 'set', card, 'up')
run('ip', 'link', 'set', 'lan', 'up')
run('ip', 'address', 'add', '10.0.0.5/24', 'dev', 'one')
run('ip', 'address', 'add', '10.0.0.6/24', 'dev', 'two')
assert asyncio.run(find_other('one', '10.0.0.5', pause=0.3)) is None
""")


@pytest.mark.root
@pytest.mark.skipif(not dnsmasq.IS_THERE, reason=dnsmasq.REASON)
def test_an_address_that_a_neighbour_has_is_declined_and_another_one_used(in_fresh_network, tmp_path) -> None:
    """The server gives the neighbour's address first: it does not look, and knows no lease of it."""
    name = f"zn-test-{tmp_path.name}"[-40:]
    in_fresh_network(f"""
import asyncio
from core0.links import leases
from core0.links.manager import Links
from tests.core0.dnsmasq import run, serving
run('ip', 'link', 'add', 'lan', 'type', 'bridge')
run('ip', 'addr', 'add', '10.9.0.1/24', 'dev', 'lan')
run('ip', 'netns', 'add', {name!r})
try:
    for end in ('cli', 'far'):
        run('ip', 'link', 'add', end, 'type', 'veth', 'peer', 'name', end + '-port')
        run('ip', 'link', 'set', end + '-port', 'master', 'lan', 'up')
    run('ip', 'link', 'set', 'far', 'netns', {name!r})
    run('ip', '-n', {name!r}, 'addr', 'add', '10.9.0.50/24', 'dev', 'far')
    run('ip', '-n', {name!r}, 'link', 'set', 'far', 'up')
    for link in ('lan', 'cli', 'lo'): run('ip', 'link', 'set', link, 'up')
    leases._BREATH, leases._DECLINED, leases._FIRST_DELAY, leases._LONGEST_DELAY = 0, 0.01, 0.01, 0.01
    told = []
    links = Links(lambda *words: told.append(': '.join(words)), told.append, '{tmp_path}/kept', '{tmp_path}/links')
    async def until_leased():
        link = next(link for link in links._rtnetlink.links() if link.name == 'cli')
        seen = leases.SeenLink(link.index, 'cli', link.address, True, True, frozenset())
        keeping = asyncio.create_task(links._leases._keep_lease(seen))
        async with asyncio.timeout(50):
            while links._leases.held.get(link.index, leases.Lease('', None, (), '', 0)).address != '10.9.0.51/24':
                await asyncio.sleep(0.05)
        keeping.cancel()
    range_ = '--dhcp-range=10.9.0.50,10.9.0.51,255.255.255.0,300'
    try:
        with serving({str(tmp_path)!r}, range_, '--dhcp-sequential-ip', link='lan'):
            asyncio.run(until_leased())
    except TimeoutError:
        raise AssertionError(told[:9]) from None
    links.close()
    refusals = [line for line in told if 'No lease' in line]
    assert 'the server gave 10.9.0.50/24, which machine' in refusals[0], told
finally:
    run('ip', 'netns', 'del', {name!r})
""")
