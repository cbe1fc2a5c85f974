"""Our rtnetlink encoding against the kernel and against pyroute2 as an independent reader."""

import os

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

_PREAMBLE = """
import os
from core0.linux import netlink
from pyroute2 import IPRoute
"""


def test_a_veth_pair_with_address_and_routes_reads_back_the_same_by_pyroute2(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
here = os.open('/proc/self/ns/net', os.O_RDONLY)
with netlink.Netlink() as rt:
    rt.apply([netlink.add_veth('zc1', 'eth0', here), netlink.set_up(1)])
    links = {link.name: link for link in rt.links()}
    assert links['zc1'].kind == 'veth' and links['zc1'].is_up and not links['eth0'].is_up
    index = links['eth0'].index
    rt.apply([
        netlink.set_up(index), netlink.set_mtu(index, 1400),
        netlink.add_address(index, '10.88.0.2/32'), netlink.add_address(index, 'fd00::2/128'),
        netlink.add_route('169.254.1.1/32', index),
        netlink.add_route('0.0.0.0/0', index, '169.254.1.1', metric=7),
        netlink.add_route('10.9.0.0/16', index),
    ])
    own = {address.interface for address in rt.addresses() if address.index == index}
    assert {'10.88.0.2/32', 'fd00::2/128'} <= own, own
with IPRoute() as ip:
    assert ip.get_links(index)[0].get_attr('IFLA_MTU') == 1400
    default = ip.get_default_routes()[0]
    assert default.get_attr('RTA_GATEWAY') == '169.254.1.1' and default.get_attr('RTA_PRIORITY') == 7
    assert default['flags'] & 4
    direct = [r for r in ip.get_routes(family=2) if r.get_attr('RTA_DST') == '10.9.0.0']
    assert direct[0]['dst_len'] == 16 and direct[0].get_attr('RTA_OIF') == index
with netlink.Netlink() as rt:
    rt.apply([netlink.delete_address(index, '10.88.0.2/32'), netlink.delete_link('zc1')])
    assert [link.name for link in rt.links()] == ['lo']
"""
    )


def test_a_refused_request_says_what_it_was_for_and_the_others_are_done(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
with netlink.Netlink() as rt:
    try:
        rt.apply([netlink.add_address(99, '10.0.0.1/24'), netlink.set_up(1)])
    except OSError as error:
        assert error.strerror == 'cannot add address 10.0.0.1/24 of link 99: No such device', error
    else:
        raise AssertionError('not refused')
    assert rt.links()[0].is_up
"""
    )


def test_an_address_may_end_by_itself(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
with netlink.Netlink() as rt:
    rt.apply([netlink.set_up(1), netlink.add_address(1, '2001:db8::5/128', 300)])
with IPRoute() as ip:
    (found,) = [a for a in ip.get_addr(index=1) if a.get_attr('IFA_ADDRESS') == '2001:db8::5']
    assert 290 <= found.get_attr('IFA_CACHEINFO')['ifa_valid'] <= 300, found
"""
    )


def test_an_address_that_a_neighbour_has_is_a_duplicate(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
import subprocess, time
def run(*words): subprocess.run(words, check=True)
run('ip', 'link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two')
run('ip', 'link', 'set', 'one', 'up')
run('ip', 'link', 'set', 'two', 'up')
def of(name):
    with netlink.Netlink() as rt:
        index = next(link.index for link in rt.links() if link.name == name)
        return [address for address in rt.addresses() if address.index == index and 'db8' in address.interface]
run('ip', 'addr', 'add', '2001:db8::7/64', 'dev', 'one', 'nodad')
assert not of('one')[0].tentative and not of('one')[0].duplicate
run('ip', 'addr', 'add', '2001:db8::7/64', 'dev', 'two')
seen = []
while not (seen and seen[-1].duplicate):
    seen += of('two')
    time.sleep(0.01)
assert seen[0].tentative and not seen[0].duplicate and not seen[-1].tentative
"""
    )
