"""What the node does of what routers say, with dnsmasq as the independent router and DHCPv6 server."""

import pytest

from tests.core0 import dnsmasq

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not dnsmasq.IS_THERE, reason=dnsmasq.REASON),
]

# A router on `srv` as long as `main` goes on, and what follows it on `cli` until `done` says that it is enough.
_SITUATION = """
import asyncio
from core0.links.autoconfig import Autoconfiguration
from core0.links.model import SeenLink
from core0.linux.netlink import Netlink
from tests.core0.dnsmasq import make_cable, run, serving
told, defects = [], []
def links():
    return [SeenLink(link.index, link.name, link.address, link.is_up, link.carrier, frozenset())
        for link in rtnetlink.links() if link.name == 'cli']
async def follow(done):
    heard = asyncio.Event()
    asyncio.get_running_loop().add_reader(auto.fileno(), heard.set)
    async with asyncio.timeout(40):
        while not done():
            heard.clear()
            auto.follow(links())
            try:
                async with asyncio.timeout(0.2):
                    await heard.wait()
            except TimeoutError:
                pass
    asyncio.get_running_loop().remove_reader(auto.fileno())
rtnetlink = Netlink()
auto = Autoconfiguration(lambda *words: told.append(': '.join(words)), rtnetlink, defects.append)
make_cable('2001:db8::1/64')
index = links()[0].index
def with_router(range_, main):
    names = '--dhcp-option=option6:dns-server,[2001:db8::53]'
    with serving(FOLDER, '--enable-ra', '--dhcp-range=' + range_, '--ra-param=srv,4,60', names):
        asyncio.run(main())
    auto.close()
"""


def test_addresses_and_name_servers_come_from_dhcp_where_the_router_says_so(
    in_fresh_network, tmp_path
) -> None:
    in_fresh_network(f"""FOLDER = '{tmp_path}'
{_SITUATION}
async def main():
    await follow(lambda: auto._leases.get(index))
with_router('2001:db8::50,2001:db8::50,64,300', main)
assert auto._leases.get(index).address == '2001:db8::50/128'
assert auto.nameservers == ('2001:db8::53',)
assert '2001:db8::50/128' in [address.interface for address in rtnetlink.addresses() if address.index == index]
assert 'network: cli: Has 2001:db8::50/128 by DHCPv6; name servers: 2001:db8::53' in told, told
assert not defects
""")


def test_a_router_that_advertises_all_is_asked_for_nothing_more(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""FOLDER = '{tmp_path}'
{_SITUATION}
async def main():
    await follow(lambda: auto.nameservers)
with_router('2001:db8::,ra-only', main)
assert auto.nameservers == ('2001:db8::53',) and auto._leases.get(index) is None and not told, told
""")


def test_who_says_that_dhcp_has_more_and_does_not_answer_is_told_and_asked_again(
    in_fresh_network, tmp_path
) -> None:
    in_fresh_network(f"""FOLDER = '{tmp_path}'
{_SITUATION}
from core0.links import dhcp, dhcp6
dhcp.FIRST_WAIT = dhcp.LONGEST_WAIT = 0.05
dhcp6._SERVER_PORT = 9
async def main():
    await follow(lambda: any('trying again in 2 s' in line for line in told))
    dhcp6._SERVER_PORT = 547
    await follow(lambda: auto._leases.get(index))
with_router('2001:db8::50,2001:db8::50,64,300', main)
assert 'network: cli: No DHCPv6: no DHCPv6 server answered on cli; trying again in 1 s' in told, told
""")


def test_what_a_link_had_ends_with_it(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""FOLDER = '{tmp_path}'
{_SITUATION}
async def main():
    await follow(lambda: auto._leases.get(index) and auto.nameservers)
    run('ip', 'link', 'del', 'cli')
    await follow(lambda: not auto.nameservers)
    assert auto._leases.get(index) is None
with_router('2001:db8::50,2001:db8::50,64,300', main)
""")
