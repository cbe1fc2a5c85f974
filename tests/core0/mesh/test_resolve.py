"""The resolver's answers, by glibc and dnsmasq in a network and a mount namespace of their own."""

import os
from collections.abc import Callable

import pytest

from core0.mesh.resolve import Found, believe
from tests.core0 import dnsmasq

_CODE = """
import os
from core0.linux import namespaces
from core0.mesh.resolve import Found, resolve
from tests.core0.dnsmasq import run, serving

namespaces.leave(namespaces.NEWNS)
run('mount', '--make-rprivate', '/')
run('mount', '-t', 'tmpfs', 'tmpfs', '/tmp')
with open('/tmp/resolv.conf', 'w') as file:
    file.write('search own.net\\nnameserver 127.0.0.1\\noptions timeout:1 attempts:1\\n')
run('mount', '--bind', '/tmp/resolv.conf', os.path.realpath('/etc/resolv.conf'))
run('ip', 'link', 'set', 'lo', 'up')
silent = Found(error='no name server of the node answers for it')
assert resolve(b'hub.example.org') == silent
known = ('--host-record=hub.example.org,203.0.113.1,2001:db8::1', '--host-record=six.example.org,2001:db8::6',
         '--host-record=nobody.example.org.own.net,192.0.2.66', '--txt-record=text.example.org,words')
with serving('/tmp', '--no-resolv', '--no-hosts', '--local=/example.org/', *known, link='lo', names=53):
    while resolve(b'hub.example.org') == silent:
        pass
    assert resolve(b'hub.example.org') == Found(('203.0.113.1', '2001:db8::1'))
    assert resolve(b'six.example.org.') == Found(('2001:db8::6',))
    assert resolve(b'nobody.example.org') == Found(error='the name servers know no such name')
    assert resolve(b'text.example.org') == Found(error='it has no address')
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.skipif(not dnsmasq.IS_THERE, reason=dnsmasq.REASON)
def test_a_host_is_found_by_the_servers_of_resolv_conf_or_the_cause_told(
    in_fresh_network: Callable[[str], None],
) -> None:
    in_fresh_network(_CODE)


def test_only_addresses_are_believed_of_what_a_stranger_said() -> None:
    assert believe(Found(("203.0.113.1", "evil; rm", "2001:db8::1"))) == Found(("203.0.113.1", "2001:db8::1"))
    assert believe(Found(("evil",), "x" * 999)) == Found(error="x" * 200)
