"""The ruleset in the kernel, read back by nft's own listing."""

import ctypes.util
import os

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not ctypes.util.find_library("nftables"), reason="needs Debian's libnftables1"),
]


def test_the_ruleset_loads_twice_and_ports_come_and_go(in_fresh_network):
    in_fresh_network("""
import subprocess
from core0.networks.filter import Filter
Filter().publish('tcp', 9, '10.88.0.9', 9)
rules = Filter()
rules.publish('tcp', 8080, '10.88.0.2', 80)
rules.publish('udp', 53, '10.88.0.3', 5353)
def listing():
    command = ['nft', 'list', 'table', 'ip', 'zeronode']
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
shown = listing()
assert 'tcp . 8080 : 10.88.0.2 . 80' in shown, shown
assert '10.88.0.9' not in shown, 'a fresh ruleset keeps nothing of an old one'
assert 'policy drop' in shown and 'masquerade' in shown
rules.withdraw('tcp', 8080)
assert '8080' not in listing() and 'udp . 53' in listing()
rules.withdraw('tcp', 8080)
assert 'udp . 53' in listing(), 'withdrawing twice is fine'
""")
