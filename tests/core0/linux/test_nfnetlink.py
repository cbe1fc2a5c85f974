"""Our encoding of sets' elements against the kernel, with nft as an independent reader."""

import os
import shutil

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not shutil.which("nft"), reason="needs Debian's nftables"),
]

_PREAMBLE = """
import errno, subprocess
from core0.linux import nfnetlink as nf
from core0.linux import netlink

RULES = '''
table inet t {
    set origins { type ifname . ether_addr . ipv4_addr; }
    set counted { type ifname; counter; }
}
table netdev t {
    map senders { type iface_index . ether_addr . ipv6_addr : mark; }
    chain seen { type filter hook ingress device lo priority 0; }
}
'''
subprocess.run(['nft', '-f', '-'], input=RULES, text=True, check=True)

def listed():
    done = subprocess.run(['nft', 'list', 'ruleset'], capture_output=True, text=True, check=True)
    return ' '.join(done.stdout.split())

ORIGIN = nf.Element('inet', 't', 'origins',
    nf.link_name('zc1') + nf.hardware('02:5a:4e:01:00:01') + nf.address('10.88.0.2'))
COUNTED = nf.Element('inet', 't', 'counted', nf.link_name('zc1'))
SENDER = nf.Element('netdev', 't', 'senders',
    nf.link_number(1) + nf.hardware('02:5a:4e:01:00:01') + nf.address('fd00::2'), nf.link_number(7))
kernel = nf.Nfnetlink()
"""


def test_elements_are_what_nft_reads(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
kernel.commit([nf.add_element(one) for one in (ORIGIN, COUNTED, SENDER)])
now = listed()
assert '"zc1" . 02:5a:4e:01:00:01 . 10.88.0.2' in now, now
assert '"zc1" counter packets 0 bytes 0' in now, now
assert '"lo" . 02:5a:4e:01:00:01 . fd00::2 : 0x00000007' in now, now
kernel.commit([nf.add_element(ORIGIN)])
kernel.commit([nf.delete_element(one) for one in (ORIGIN, COUNTED, SENDER)])
assert 'elements' not in listed()
"""
    )


def test_a_transaction_is_carried_out_whole_or_not_at_all(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
lost = nf.Element('inet', 't', 'nowhere', b'1234')
for wrong, said in (
    (nf.add_element(lost), 'cannot add an element to set nowhere of the packet filter: No such file or directory'),
    (nf.delete_element(COUNTED), 'cannot delete an element of set counted of the packet filter: No such file'),
    (nf.watch_link('t', 'seen', 'zc9'), 'cannot have the packet filter look at link zc9'),
):
    try:
        kernel.commit([nf.add_element(ORIGIN), wrong])
    except OSError as error:
        assert said in str(error), error
    else:
        # Linux 6.16 keeps the names of links that are not there yet
        assert 'zc9' in said and 'zc9' in listed()
        kernel.commit([nf.delete_element(ORIGIN)])
    assert 'elements' not in listed()
kernel.commit([nf.add_element(ORIGIN)])
assert 'elements' in listed(), 'the socket goes on after a failure'
"""
    )


def test_a_chain_looks_at_one_more_link_as_often_as_it_is_said(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
import os
here = os.open('/proc/self/ns/net', os.O_RDONLY)
with netlink.Netlink() as rt:
    rt.apply([netlink.add_veth(netlink.End('zc1'), netlink.End('peer'), here)])
kernel.commit([nf.watch_link('t', 'seen', 'zc1')])
kernel.commit([nf.watch_link('t', 'seen', 'zc1')])
assert 'devices = { lo, zc1 }' in listed(), listed()
"""
    )


def test_what_elements_were_found_for_is_counted_as_nft_counts_it(in_fresh_network):
    in_fresh_network(
        _PREAMBLE
        + """
assert kernel.counts('inet', 't', 'counted') == {}
assert kernel.count(COUNTED) == 0, 'it is not there'
rules = 'add chain inet t out { type filter hook output priority 0; }\\nadd rule inet t out oifname @counted drop'
subprocess.run(['nft', '-f', '-'], input=rules, text=True, check=True)
subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
others = [nf.Element('inet', 't', 'counted', nf.link_name(f'zc{number}')) for number in range(2, 600)]
LO = nf.Element('inet', 't', 'counted', nf.link_name('lo'))
for first in range(0, 600, 100):
    kernel.commit([nf.add_element(one) for one in (COUNTED, LO, *others)[first : first + 100]])
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(300):
        try:
            sender.sendto(b'x', ('127.0.0.1', 9))
        except PermissionError:
            pass
assert kernel.count(LO) == 300 and kernel.count(COUNTED) == 0
assert '"lo" counter packets 300' in listed()
counts = kernel.counts('inet', 't', 'counted')
assert len(counts) == 600 and counts.pop(LO.key) == 300 and not any(counts.values())
try:
    kernel.counts('inet', 't', 'nowhere')
except OSError as error:
    assert 'cannot read set nowhere of the packet filter' in str(error), error
else:
    assert False
"""
    )
