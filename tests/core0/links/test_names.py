"""What cards are called, and that the kernel takes it."""

import pytest

from core0.links.names import name_of


@pytest.mark.parametrize(
    ("place", "more", "name"),
    [
        pytest.param("0000:00:03.0", {}, "enp0s3", id="a card by itself"),
        pytest.param("0000:1a:1f.0", {}, "enp26s31", id="numbers are decimal"),
        pytest.param("0000:02:00.0", {"many": True}, "enp2s0f0", id="the first function of several"),
        pytest.param("0000:02:00.1", {"many": True}, "enp2s0f1", id="the second"),
        pytest.param("0000:02:00.0", {"port": 1}, "enp2s0d1", id="the second port of one function"),
        pytest.param("0001:02:00.0", {}, "enP1p2s0", id="another domain"),
    ],
)
def test_a_name_says_the_place(place: str, more: dict[str, int], name: str) -> None:
    assert name_of(place, **more) == name


@pytest.mark.root
def test_a_card_is_called_by_its_place_before_it_is_set_up_and_found_by_the_kernels_name_too(
    in_fresh_network, tmp_path
) -> None:
    """Veths stand for cards; the second one's name is taken, so it keeps the kernel's."""
    in_fresh_network(f"""
from msgspec.structs import replace
from core0.links.names import Names
from core0.links.observe import observe
from core0.linux.netlink import Netlink
from tests.core0.dnsmasq import run
run('ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth1')
run('ip', 'link', 'add', 'eth2', 'type', 'veth', 'peer', 'name', 'enp0s4')
PLACES = {{'eth0': '0000:00:03.0', 'eth1': '0000:00:04.0', 'eth2': ''}}
rt = Netlink()
def cards():
    return [replace(link, kind='', path=PLACES.get(link.name, '')) for link in observe(rt)]
told = []
names = Names(lambda *words: told.append(' '.join(words)), {str(tmp_path)!r})
assert names.give(cards(), rt)
told.sort()
assert told[0] == 'network enp0s3 Is called by its place; the kernel called it eth0', told
assert told[1].startswith("network eth1 Keeps the kernel's name: [Errno 17] cannot call link "), told
assert len(told) == 2 and not names.give(cards(), rt)
found = {{link.name: link.other_names for link in rt.links()}}
assert found == {{'lo': (), 'enp0s3': ('eth0',), 'eth1': (), 'eth2': (), 'enp0s4': ()}}, found
run('ip', 'link', 'set', 'eth0', 'up')
run('ip', 'link', 'add', 'name', 'eth%d', 'type', 'veth', 'peer', 'name', 'far')
assert 'eth3' in {{link.name for link in rt.links()}}, 'the kernel gives no name that is another one\\'s already'
""")
