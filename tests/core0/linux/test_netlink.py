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
    rt.apply([netlink.add_veth(
        netlink.End('zc1', index=4000), netlink.End('eth0', '02:00:00:00:00:07'), here, mtu=1400), netlink.set_up(1)])
    links = {link.name: link for link in rt.links()}
    assert links['zc1'].index == 4000 and links['zc1'].mtu == links['eth0'].mtu == 1400
    assert links['eth0'].address == '02:00:00:00:00:07'
    assert links['zc1'].kind == 'veth' and links['zc1'].is_up and not links['eth0'].is_up
    rt.apply([netlink.forbid_link_local(4000), netlink.set_up(links['eth0'].index)])
    index = links['eth0'].index
    rt.apply([
        netlink.set_up(index), netlink.set_mtu(index, 1300),
        netlink.add_address(index, '10.88.0.2/32'),
        netlink.add_address(index, 'fd00::2/128', properties=netlink.UNIQUE),
        netlink.add_neighbour(index, '169.254.1.1', '02:00:00:00:00:01'),
        netlink.add_neighbour(index, 'fe80::1', '02:00:00:00:00:01'),
        netlink.add_route('169.254.1.1/32', index),
        netlink.add_route('0.0.0.0/0', index, '169.254.1.1', metric=7),
        netlink.add_route('10.9.0.0/16', index),
    ])
    assert netlink.Address(index, '10.88.0.2/32') in rt.addresses()
    assert netlink.Address(index, 'fd00::2/128') in rt.addresses()
with IPRoute() as ip:
    assert ip.get_links(index)[0].get_attr('IFLA_MTU') == 1300
    assert not ip.get_addr(index=4000, family=10), 'the kernel made no address up'
    unique = [a for a in ip.get_addr(index=index, family=10) if a.get_attr('IFA_ADDRESS') == 'fd00::2']
    assert unique[0].get_attr('IFA_FLAGS') & 2, 'used without asking whether another has it'
    for family, address in ((2, '169.254.1.1'), (10, 'fe80::1')):
        known = [n for n in ip.get_neighbours(family=family) if n.get_attr('NDA_DST') == address]
        assert known[0]['state'] == 0x80 and known[0].get_attr('NDA_LLADDR') == '02:00:00:00:00:01'
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


def test_addresses_that_come_and_go_are_told_with_their_links(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
changes = netlink.AddressChanges()
with netlink.Netlink() as rt:
    rt.apply([netlink.set_up(1)])
    changes.links()
    assert changes.links() == set()
    rt.apply([netlink.add_address(1, '10.0.0.1/24')])
    assert changes.links() == {1}
    rt.apply([netlink.delete_address(1, '10.0.0.1/24')])
    assert changes.links() == {1}
changes.close()
"""
    )
