"""Configs against the real kernel, in a network namespace of their own: veths stand for cards."""

import os

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

_PREAMBLE = """
import asyncio, json, subprocess, time
from msgspec.structs import replace
from core0.links import manager, observe
from core0.links.manager import Links
from core0.wire.config import parse
from core0.wire.control import RefusedError

def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
def eventually(check):
    # the kernel looks at carriers at most once a second (net/core/link_watch.c)
    until = time.monotonic() + 10
    while not check() and time.monotonic() < until:
        pass
    return check()
for card in ('c0', 'c1'):
    run('ip', 'link', 'add', card, 'type', 'veth', 'peer', 'name', f'p{card}')
    run('ip', 'link', 'set', f'p{card}', 'alias', 'of somebody else'); run('ip', 'link', 'set', f'p{card}', 'up')
MACS = {card: json.loads(run('ip', '-j', 'link', 'show', card))[0]['address'] for card in ('c0', 'c1')}

seen_by_kernel = manager.observe
def cards(rtnetlink):
    return tuple(replace(link, kind='') if link.name in MACS else link for link in seen_by_kernel(rtnetlink))
manager.observe = cards

said = []
links = Links(lambda *words: said.append(' '.join(words)), lambda lease: None, FOLDER + '/l.json', FOLDER + '/c.json')
def config(text):
    for card, mac in MACS.items():
        text = text.replace(f'{card}!', f'select = {{ mac = "{mac}" }}')
    return parse(text).network
def state():
    own = [link for link in cards(links._rtnetlink) if link.is_card or link.ours]
    return {link.name: replace(link, index=0, carrier=True) for link in own}
links._bring_to_settings()
BEFORE = state()
"""


def _code(tmp_path, code):
    return f"FOLDER = {str(tmp_path)!r}\n{_PREAMBLE}{code}"


def test_a_config_is_what_iproute_shows_and_going_back_is_what_was(in_fresh_network, tmp_path):
    in_fresh_network(
        _code(
            tmp_path,
            """
CONFIG = config('''
[network.links.lan]
c0!
addresses = ["192.0.2.7/24", "192.0.2.8/24", "2001:db8::7/64"]
mtu = 1400
[[network.links.lan.routes]]
to = "0.0.0.0/0"
via = "192.0.2.1"
[[network.links.lan.routes]]
to = "2001:db8:1::/48"
via = "2001:db8::1"
[network.links.other]
c1!
[network.links.br0]
bridge = { members = ["other"] }
addresses = ["198.51.100.1/24"]
ipv6 = "off"
''')
links.change(CONFIG)
shown = run('ip', 'address', 'show', 'c0')
assert 'mtu 1400' in shown and '192.0.2.7/24' in shown and '2001:db8::7/64' in shown, shown
assert 'default via 192.0.2.1 dev c0' in run('ip', 'route'), run('ip', 'route')
assert '2001:db8:1::/48 via 2001:db8::1' in run('ip', '-6', 'route')
assert 'master br0' in run('ip', 'link', 'show', 'c1')
assert '198.51.100.1/24' in run('ip', 'address', 'show', 'br0') and 'inet6' not in run('ip', 'address', 'show', 'br0')
told = len(said)
assert links._bring_to_settings() == {} and len(said) == told, said[told:]
again = Links(lambda *words: said.append(' '.join(words)), lambda lease: None, FOLDER + '/l.json', FOLDER + '/c.json')
assert again._bring_to_settings() == {} and len(said) == told, said[told:]
links.change(config(''))
assert state() == BEFORE, (state(), BEFORE)
assert 'of somebody else' in run('ip', 'link', 'show', 'pc0')
""",
        )
    )


def test_routes_out_of_a_link_without_a_carrier_are_passed_over(in_fresh_network, tmp_path):
    in_fresh_network(
        _code(
            tmp_path,
            """
for card, address in (('c0', '192.0.2.7/24'), ('c1', '192.0.2.8/24')):
    run('ip', 'address', 'add', address, 'dev', card)
    run('ip', 'address', 'add', f'2001:db8::{card[1]}7/64', 'dev', card, 'nodad')
assert ' dev c0 ' in run('ip', 'route', 'get', '192.0.2.9')
run('ip', 'link', 'set', 'pc0', 'down')
assert eventually(lambda: ' dev c1 ' in run('ip', 'route', 'get', '192.0.2.9')), run('ip', 'route')
assert eventually(lambda: ' dev c1 ' in run('ip', 'route', 'get', '2001:db8::99')), run('ip', '-6', 'route')
""",
        )
    )


def test_what_is_asked_by_one_of_two_ways_out_is_answered_by_it(in_fresh_network, tmp_path):
    in_fresh_network(
        _code(
            tmp_path,
            """
RULES = run('ip', 'rule') + run('ip', '-6', 'rule')
TEXT = ''
for card, net in (('c0', 1), ('c1', 2)):
    TEXT += f'''
[network.links.l{card}]
{card}!
addresses = ["10.{net}.0.7/24", "2001:db8:{net}::7/64"]
[[network.links.l{card}.routes]]
to = "0.0.0.0/0"
via = "10.{net}.0.1"
metric = {net}
[[network.links.l{card}.routes]]
to = "::/0"
via = "2001:db8:{net}::1"
metric = {net}
'''
links.change(config(TEXT))
def way(source, target):
    return run('ip', 'route', 'get', target, 'from', source)
for card, net in (('c0', 1), ('c1', 2)):
    for source, target, via in (
        (f'10.{net}.0.7', '198.51.100.1', f'10.{net}.0.1'),
        (f'2001:db8:{net}::7', '2001:db8:ffff::1', f'2001:db8:{net}::1'),
    ):
        found = way(source, target)
        assert f'via {via} dev {card}' in found, found
    other = 3 - net
    found = way(f'10.{net}.0.7', f'10.{other}.0.9')
    assert 'via' not in found and f'dev c{other - 1}' in found, found
assert 'via 10.1.0.1 dev c0' in run('ip', 'route', 'get', '198.51.100.1')
told = len(said)
assert links._bring_to_settings() == {} and len(said) == told, said[told:]
run('ip', 'link', 'set', 'pc1', 'down')
assert eventually(lambda: 'via 10.1.0.1 dev c0' in way('10.2.0.7', '198.51.100.1'))
run('ip', 'link', 'set', 'pc1', 'up')
assert eventually(lambda: 'dev c1' in way('10.2.0.7', '198.51.100.1'))
links.change(config(TEXT.replace('metric = 2', 'metric = 3').replace('10.2.0.7/24', '10.2.0.8/24')))
assert 'dev c1' in way('10.2.0.8', '198.51.100.1') and '10.2.0.7' not in run('ip', 'rule')
run('ip', 'link', 'delete', 'c1')
links._bring_to_settings()
assert run('ip', 'rule') + run('ip', '-6', 'rule') == RULES
assert links._bring_to_settings() == {}
""",
        )
    )


def test_a_subnets_first_address_goes_and_takes_no_wanted_one_along(in_fresh_network, tmp_path):
    in_fresh_network(
        _code(
            tmp_path,
            """
TEXT = '''
[network.links.lan]
c0!
addresses = [%s]
[[network.links.lan.routes]]
to = "0.0.0.0/0"
via = "192.0.2.1"
'''
links.change(config(TEXT % '"192.0.2.7/24", "192.0.2.8/24", "192.0.2.9/24"'))
links.change(config(TEXT % '"192.0.2.9/24", "192.0.2.10/24"'))
shown = run('ip', '-br', 'address', 'show', 'c0').split()
assert {word for word in shown if '192.0.2' in word} == {'192.0.2.9/24', '192.0.2.10/24'}, shown
assert 'default via 192.0.2.1 dev c0' in run('ip', 'route')
links.change(config(TEXT % '"192.0.2.3/25"'))
assert 'default via 192.0.2.1 dev c0' in run('ip', 'route')
""",
        )
    )


def test_what_the_kernel_refuses_leaves_all_links_as_they_were(in_fresh_network, tmp_path):
    in_fresh_network(
        _code(
            tmp_path,
            """
links.change(config('[network.links.lan]\\nc0!\\naddresses = ["192.0.2.7/24"]'))
before = state()
try:
    links.change(config('''
[network.links.lan]
c0!
addresses = ["192.0.2.9/24"]
mtu = 1300
[network.links.br0]
bridge = {}
[network.links.other]
c1!
addresses = ["198.51.100.1/24"]
[[network.links.other.routes]]
to = "203.0.113.0/24"
via = "192.0.2.9"  # this node's own address
onlink = true
'''))
except RefusedError as error:
    assert error.refusal.status == 409 and 'cannot add route to 203.0.113.0/24' in error.refusal.detail, error
    assert 'all links are as before' in error.refusal.remedy
else:
    raise AssertionError('not refused')
assert state() == before, (state(), before)
""",
        )
    )


def test_what_can_never_be_is_refused_before_anything_is_done(in_fresh_network, tmp_path):
    in_fresh_network(
        _code(
            tmp_path,
            """
told = list(said)
for text in ('[network.links.lan]\\nc0!\\nmtu = 20', '[network.links.pc0]\\nbridge = {}'):
    try:
        links.change(config(text))
    except RefusedError as error:
        assert error.refusal.pointer.startswith('/network/links/'), error
    else:
        raise AssertionError('not refused')
assert (state(), said) == (BEFORE, told)
""",
        )
    )


def test_a_card_that_comes_later_gets_its_config_and_a_failure_is_told_once_and_tried_again(
    in_fresh_network, tmp_path
):
    in_fresh_network(
        _code(
            tmp_path,
            """
manager._FIRST_DELAY = 0.01
text = '[network.links.lan]\\nselect = { mac = "02:00:00:00:00:07" }\\naddresses = ["192.0.2.7/24"]\\n' \\
    '[[network.links.lan.routes]]\\nto = "203.0.113.0/24"\\nvia = "192.0.2.9"\\n'
run('ip', 'address', 'add', '192.0.2.9/32', 'dev', 'pc0')
async def follow():
    running = asyncio.create_task(links.run())
    links.adopt(config(text))
    async def until(what):
        async with asyncio.timeout(20):
            while not what():
                await asyncio.sleep(0.01)
    await until(lambda: any('lan Waits: no card that is there fits it' in line for line in said))
    MACS['late'] = ''
    run('ip', 'link', 'add', 'late', 'type', 'veth', 'peer', 'name', 'plate')
    run('ip', 'link', 'set', 'late', 'address', '02:00:00:00:00:07', 'up')
    await until(lambda: '192.0.2.7/24' in run('ip', 'address', 'show', 'late'))
    await until(lambda: any('Failed: ' in line for line in said))
    failed = [line for line in said if 'Failed: ' in line]
    run('ip', 'address', 'delete', '192.0.2.9/32', 'dev', 'pc0')
    await until(lambda: '203.0.113.0/24 via 192.0.2.9 dev late' in run('ip', 'route'))
    assert [line for line in said if 'Failed: ' in line] == failed and len(failed) == 1, said
    assert not running.done()
    running.cancel()
    for client in links._leases._clients.values():
        client.cancel()
asyncio.run(follow())
""",
        )
    )
