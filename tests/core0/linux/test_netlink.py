"""Our rtnetlink encoding against the kernel and against pyroute2 as an independent reader."""

import os
import struct

import pytest

from core0.linux import netlink

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

_PREAMBLE = """
import os
import struct
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
    own = {address.interface for address in rt.addresses() if address.index == index}
    assert {'10.88.0.2/32', 'fd00::2/128'} <= own, own
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


def test_an_address_may_end_by_itself(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
with netlink.Netlink() as rt:
    rt.apply([netlink.set_up(1), netlink.add_address(1, '2001:db8::5/128', seconds=300)])
with IPRoute() as ip:
    (found,) = [a for a in ip.get_addr(index=1) if a.get_attr('IFA_ADDRESS') == '2001:db8::5']
    assert 290 <= found.get_attr('IFA_CACHEINFO')['ifa_valid'] <= 300, found
"""
    )


def test_a_bridge_its_members_marks_and_routes_read_back_the_same(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
from core0.linux import netlink_links as links
here = os.open('/proc/self/ns/net', os.O_RDONLY)
with netlink.Netlink() as rt:
    rt.apply([netlink.add_veth(netlink.End('a0'), netlink.End('a1'), here), links.add_bridge('br0')])
    by_name = {link.name: link for link in rt.links()}
    card, peer, bridge = (by_name[name].index for name in ('a0', 'a1', 'br0'))
    rt.apply([
        links.set_alias(bridge, netlink.MARK), links.set_master(card, bridge), netlink.set_up(bridge),
        netlink.set_up(peer), netlink.add_address(bridge, '10.1.0.2/24'),
        netlink.add_address(bridge, 'fd00::2/64', netlink.CONFIGURED),
        netlink.add_route('10.9.0.0/16', bridge, '10.1.0.1', metric=3),
        netlink.add_route('0.0.0.0/0', bridge, '10.1.0.1'), netlink.add_route('10.8.0.0/16', bridge),
        netlink.add_route('fd09::/48', bridge, 'fe80::1'), netlink.add_route('::/0', bridge, 'fd00::1'),
    ])
    seen = {link.name: link for link in rt.links()}
    assert seen['a0'].master == bridge and seen['br0'].kind == 'bridge' and seen['br0'].alias == 'zeronode'
    one, other = rt.link(card), rt.link(bridge)  # whether they carry anything changes by itself
    assert (one.name, one.master, other.name, other.kind) == ('a0', bridge, 'br0', 'bridge')
    assert rt.link(1 << 20) is None
    made = {route.destination: route for route in rt.routes() if route.index == bridge}
    assert made == {
        '10.9.0.0/16': netlink.Route(bridge, '10.9.0.0/16', '10.1.0.1', 3),
        '0.0.0.0/0': netlink.Route(bridge, '0.0.0.0/0', '10.1.0.1', 0),
        '10.8.0.0/16': netlink.Route(bridge, '10.8.0.0/16', '', 0),
        'fd09::/48': netlink.Route(bridge, 'fd09::/48', 'fe80::1', 1024),
        '::/0': netlink.Route(bridge, '::/0', 'fd00::1', 1024),
    }, made
    assert (bridge, 'fd00::2/64', netlink.CONFIGURED) in [
        (one.index, one.interface, one.protocol) for one in rt.addresses()]
    with IPRoute() as ip:
        assert ip.get_links(card)[0].get_attr('IFLA_MASTER') == bridge
        assert ip.get_links(bridge)[0].get_attr('IFLA_IFALIAS') == 'zeronode'
    rt.apply([
        links.delete_route('10.9.0.0/16', bridge, '10.1.0.1', metric=3), links.delete_route('10.8.0.0/16', bridge),
        links.delete_route('::/0', bridge, 'fd00::1', metric=1024), links.set_alias(bridge, ''),
        links.set_master(card, 0),
    ])
    assert {route.destination for route in rt.routes()} == {'0.0.0.0/0', 'fd09::/48'}
    seen = {link.name: link for link in rt.links()}
    assert seen['a0'].master == 0 and seen['br0'].alias == ''
    rt.apply([links.set_down(bridge)])
    assert rt.routes() == [] and not {link.name: link for link in rt.links()}['br0'].is_up
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


def test_vlans_and_bonds_are_what_pyroute2_reads_in_them():
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    from core0.linux import netlink, netlink_links

    def read(request):
        message = ifinfmsg(netlink._HEADER.pack(16 + len(request.body), request.kind, 0, 0, 0) + request.body)
        message.decode()
        info = message.get_attr("IFLA_LINKINFO")
        return message, info.get_attr("IFLA_INFO_KIND"), info.get_attr("IFLA_INFO_DATA")

    vlan, kind, data = read(netlink_links.add_vlan("v10", 7, 10))
    assert (vlan.get_attr("IFLA_IFNAME"), vlan.get_attr("IFLA_LINK"), kind) == ("v10", 7, "vlan")
    assert data.get_attr("IFLA_VLAN_ID") == 10
    _, kind, data = read(netlink_links.add_bond("t", "802.3ad", 250))
    assert kind == "bond"
    assert data.get_attr("IFLA_BOND_MODE") == 4
    assert data.get_attr("IFLA_BOND_MIIMON") == 250
    _, kind, data = read(netlink_links.set_bond(3, 100, 9))
    assert data.get_attr("IFLA_BOND_PRIMARY") == 9
    assert data.get_attr("IFLA_BOND_MODE") is None


def test_vlans_bonds_and_their_members_are_read_as_pyroute2_writes_them():
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    from core0.linux import netlink

    def parsed(**attributes):
        message = ifinfmsg()
        message["index"] = 5
        message["attrs"] = [("IFLA_IFNAME", "x"), *attributes.items()]
        message.encode()
        return netlink._parse_link(bytes(message.data[16:]))

    def info(kind, data):
        return {"attrs": [("IFLA_INFO_KIND", kind), ("IFLA_INFO_DATA", {"attrs": data})]}

    vlan = parsed(IFLA_LINK=7, IFLA_LINKINFO=info("vlan", [("IFLA_VLAN_ID", 10)]))
    assert (vlan.kind, vlan.parent, vlan.vlan) == ("vlan", 7, 10)
    settings = [("IFLA_BOND_MODE", 1), ("IFLA_BOND_MIIMON", 100), ("IFLA_BOND_PRIMARY", 9)]
    assert parsed(IFLA_LINKINFO=info("bond", settings)).bond == (1, 100, 9)
    agreed = [("IFLA_BOND_AD_INFO_AGGREGATOR", 2), ("IFLA_BOND_AD_INFO_PARTNER_MAC", "52:54:00:00:00:09")]
    lacp = [("IFLA_BOND_MODE", 4), ("IFLA_BOND_AD_INFO", {"attrs": agreed})]
    assert parsed(IFLA_LINKINFO=info("bond", lacp)).lacp == (2, "52:54:00:00:00:09")
    assert parsed(IFLA_LINKINFO=info("bond", settings)).lacp is None
    own = [("IFLA_BOND_SLAVE_PERM_HWADDR", "52:54:00:00:00:01"), ("IFLA_BOND_SLAVE_AD_AGGREGATOR_ID", 2)]
    slave = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bond"), ("IFLA_INFO_SLAVE_DATA", {"attrs": own})]}
    member = parsed(IFLA_ADDRESS="52:54:00:00:00:02", IFLA_MASTER=3, IFLA_LINKINFO=slave)
    assert (member.master, member.address, member.permanent) == (3, "52:54:00:00:00:02", "52:54:00:00:00:01")
    assert member.aggregator == 2


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


def test_links_that_change_are_told_by_their_numbers(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
import select
here = os.open('/proc/self/ns/net', os.O_RDONLY)
changes = netlink.LinkChanges()
def hear(wanted):
    heard = set()
    while not wanted <= heard:
        assert select.select([changes], [], [], 30)[0], (wanted, heard)
        heard |= changes.links()
    assert heard <= {7, 8}, heard
with netlink.Netlink() as rt:
    rt.apply([netlink.add_veth(netlink.End('a0', index=7), netlink.End('a1', index=8), here)])
    hear({7, 8})
    rt.apply([netlink.add_address(8, 'fd00::2/128', properties=netlink.UNIQUE)])
    hear({8})
    rt.apply([netlink.delete_link('a0')])
    hear({7, 8})
changes.close()
"""
    )


def test_what_a_process_sends_is_no_notification(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
import socket, struct
changes = netlink.LinkChanges()
other = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
body = struct.pack('=BxHiII', 0, 0, 9, 0, 0)
other.sendto(struct.pack('=IHHII', 16 + len(body), 16, 0, 0, 0) + body, changes._socket.getsockname())
with netlink.Netlink() as rt:
    rt.apply([netlink.set_up(1)])
assert changes.links() == {1}
changes.close()
"""
    )


@pytest.mark.parametrize("length", [0, 15])
def test_a_message_shorter_than_its_header_ends_the_datagram(length):
    assert list(netlink.messages(struct.pack("=IHHII", length, 16, 0, 0, 0) + bytes(16))) == []


def test_a_limit_of_a_link_reads_back_the_same_by_pyroute2(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
from core0.linux.netlink_traffic import counters_of, limit_rate, limit_within, set_rate
here = os.open('/proc/self/ns/net', os.O_RDONLY)
with netlink.Netlink() as rt, IPRoute() as ip:
    for index, bps, rate64 in ((4000, 10_000, None), (4001, 12_500_000, None), (4002, 1 << 33, 1 << 33)):
        rt.apply([netlink.add_veth(netlink.End(f'zc{index}', index=index), netlink.End(f'p{index}'), here)])
        limit, queue = limit_rate(index, bps, 1500)
        rt.apply([limit])  # what waits below is fq_codel, which not every host's kernel has
        (found,) = ip.get_qdiscs(index=index)
        options = found.get_attr('TCA_OPTIONS')
        assert found.get_attr('TCA_KIND') == 'tbf'
        assert options.get_attr('TCA_TBF_PARMS')['rate'] == min(bps, 0xFFFFFFFF)
        assert (len(options['attrs']) == 2) == bool(rate64), 'pyroute2 does not know TCA_TBF_RATE64'
        assert 'fq_codel'.encode() in queue.body
    link = rt.link(4000)
    for _ in range(2):
        set_rate(rt, link, None)
        assert ip.get_qdiscs(index=4000)[0].get_attr('TCA_KIND') != 'tbf'
    try:
        limit_within('nowhere', 0, here)
    except OSError as error:
        assert error.strerror == 'cannot limit link nowhere: there is none', error
    limit_within('zc4001', 0, here)
    assert ip.get_qdiscs(index=4001)[0].get_attr('TCA_KIND') != 'tbf'
    assert counters_of(rt, 4000).sent_bytes == 0
    try:
        counters_of(rt, 77)
    except OSError as error:
        assert error.strerror == 'cannot read the counters of link 77: No such device', error
    else:
        raise AssertionError('not refused')
"""
    )


def test_what_a_limit_drops_is_counted_without_a_look_at_other_links(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
import socket
from core0.linux.netlink_traffic import all_counters, counters_of, limit_rate
here = os.open('/proc/self/ns/net', os.O_RDONLY)
with netlink.Netlink() as rt:
    for index in (4000, 4001):
        rt.apply([netlink.add_veth(netlink.End(f'zc{index}', index=index), netlink.End(f'p{index}'), here)])
        rt.apply([netlink.set_up(rt.link(index).parent)])
    rt.apply(limit_rate(4000, 80_000, 1500)[:1])
    rt.apply([
        netlink.add_address(4000, '192.0.2.1/24'),
        netlink.add_neighbour(4000, '192.0.2.2', '02:5a:4e:01:00:01'),
    ])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(1000):
            try:
                sender.sendto(bytes(1400), ('192.0.2.2', 9))
            except OSError:  # the socket's own buffer waits for the link
                pass
    of_all = {one.index: one.sent_dropped for one in all_counters(rt)}
    netlink.Netlink.dump = None
    assert counters_of(rt, 4000).sent_dropped >= of_all[4000] > 0, of_all  # neighbour discovery goes on
    assert counters_of(rt, 4001).sent_dropped == of_all[4001] == 0, of_all
"""
    )
