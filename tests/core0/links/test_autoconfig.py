"""What the node does of what routers say, with dnsmasq as the independent router and DHCPv6 server."""

import shutil

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("dnsmasq"), reason="needs Debian's dnsmasq-base"),
]

# A router on `srv`, and what follows it on `cli` until `done` says that it is enough.
_SITUATION = """
import asyncio, subprocess
from core0.links.autoconfig import Autoconfiguration
from core0.links.model import SeenLink
from core0.linux.netlink import Netlink
def run(*words): subprocess.run(words, check=True)
run('ip', 'link', 'add', 'srv', 'type', 'veth', 'peer', 'name', 'cli', 'address', '52:54:00:00:00:07')
run('ip', 'addr', 'add', '2001:db8::1/64', 'dev', 'srv', 'nodad')
def router(range_):
    return subprocess.Popen(['dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--port=0', '--user=root',
        '--interface=srv', '--bind-interfaces', '--enable-ra', '--dhcp-range=' + range_, '--ra-param=srv,4,60',
        '--dhcp-option=option6:dns-server,[2001:db8::53]', f'--dhcp-leasefile={LEASES}', '--pid-file='])
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
for link in ('srv', 'cli', 'lo'): run('ip', 'link', 'set', link, 'up')
index = links()[0].index
"""


def test_addresses_and_name_servers_come_from_dhcp_where_the_router_says_so(
    in_fresh_network, tmp_path
) -> None:
    in_fresh_network(f"""LEASES = '{tmp_path}/leases'
{_SITUATION}
async def main():
    await follow(lambda: auto._leases.get(index))
    auto.close()
server = router('2001:db8::50,2001:db8::50,64,300')
try:
    asyncio.run(main())
finally:
    server.terminate(); server.wait()
assert auto._leases.get(index).address == '2001:db8::50/128'
assert auto.nameservers == ('2001:db8::53',)
assert '2001:db8::50/128' in [address.interface for address in rtnetlink.addresses() if address.index == index]
assert 'network: cli: Has 2001:db8::50/128 by DHCPv6; name servers: 2001:db8::53' in told, told
assert not defects
""")


def test_a_router_that_advertises_all_is_asked_for_nothing_more(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""LEASES = '{tmp_path}/leases'
{_SITUATION}
async def main():
    await follow(lambda: auto.nameservers)
    auto.close()
server = router('2001:db8::,ra-only')
try:
    asyncio.run(main())
finally:
    server.terminate(); server.wait()
assert auto.nameservers == ('2001:db8::53',) and auto._leases.get(index) is None and not told, told
""")


def test_who_says_that_dhcp_has_more_and_does_not_answer_is_told_and_asked_again(
    in_fresh_network, tmp_path
) -> None:
    in_fresh_network(f"""LEASES = '{tmp_path}/leases'
{_SITUATION}
from core0.links import dhcp, dhcp6
dhcp.FIRST_WAIT = dhcp.LONGEST_WAIT = 0.05
dhcp6._SERVER_PORT = 9
async def main():
    await follow(lambda: any('trying again in 2 s' in line for line in told))
    dhcp6._SERVER_PORT = 547
    await follow(lambda: auto._leases.get(index))
    auto.close()
server = router('2001:db8::50,2001:db8::50,64,300')
try:
    asyncio.run(main())
finally:
    server.terminate(); server.wait()
assert 'network: cli: No DHCPv6: no DHCPv6 server answered on cli; trying again in 1 s' in told, told
""")


def test_what_a_link_had_ends_with_it(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""LEASES = '{tmp_path}/leases'
{_SITUATION}
async def main():
    await follow(lambda: auto._leases.get(index) and auto.nameservers)
    run('ip', 'link', 'del', 'cli')
    await follow(lambda: not auto.nameservers)
    assert auto._leases.get(index) is None
    auto.close()
server = router('2001:db8::50,2001:db8::50,64,300')
try:
    asyncio.run(main())
finally:
    server.terminate(); server.wait()
""")
