"""What the node does of what routers say, with dnsmasq as the independent router and DHCPv6 server."""

import asyncio
from collections.abc import Callable

import pytest

from core0.links import autoconfig, dhcp6
from core0.links.autoconfig import Autoconfiguration
from core0.links.dhcp import NoAnswerError, RefusedError
from core0.links.model import Lease6, SeenLink
from core0.linux.netlink import Netlink
from tests.core0 import dnsmasq

LINK = SeenLink(7, "eth0", "52:54:00:00:00:07", True, True, frozenset())
LEASE = Lease6("2001:db8::50/128", ("2001:db8::53",), "00030001", 500, 1000)

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


def on_a_cable(test: Callable[..., None]) -> Callable[..., None]:
    """A test with a real router."""
    return pytest.mark.root(pytest.mark.skipif(not dnsmasq.IS_THERE, reason=dnsmasq.REASON)(test))


class Server:
    """Stands for a DHCPv6 server, and for time: every pause is over at once, and `pauses` has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, renewal: Exception, pauses: int) -> None:
        self.asked: list[str] = []
        self.pauses: list[float] = []
        self.renewal = renewal
        self.clock, self._most = 0.0, pauses
        self.over = asyncio.Event()
        monkeypatch.setattr(dhcp6.Client, "__init__", lambda *_: None)
        monkeypatch.setattr(dhcp6.Client, "__exit__", lambda *_: None)
        monkeypatch.setattr(dhcp6.Client, "acquire", lambda _: self._answer("new", None))
        monkeypatch.setattr(dhcp6.Client, "renew", lambda _, lease: self._answer("renew", self.renewal))
        monkeypatch.setattr(dhcp6.Client, "inform", lambda _: self._answer("inform", None))
        monkeypatch.setattr(autoconfig, "now", lambda: self.clock)
        monkeypatch.setattr(autoconfig.asyncio, "sleep", self._sleep)

    async def _answer(self, kind: str, error: Exception | None) -> Lease6:
        self.asked.append(kind)
        if error:
            raise error
        return LEASE

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self._most:
            self.over.set()
            await asyncio.Event().wait()
        self.clock += seconds


@pytest.mark.parametrize(
    ("renewal", "pauses", "asked"),
    [
        pytest.param(
            NoAnswerError("no DHCPv6 server answered on eth0"),
            [500, 250, 125, 62.5, 60, 2.5, 500],
            ["new", "renew", "renew", "renew", "renew", "renew", "new"],
            id="nobody answers",
        ),
        pytest.param(
            RefusedError("the DHCPv6 server refused 2001:db8::50/128"),
            [500, 500],
            ["new", "renew", "new"],
            id="the server refuses",
        ),
    ],
)
async def test_a_lease_that_is_not_renewed_is_kept_until_it_ends_unless_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, renewal: Exception, pauses: list[float], asked: list[str]
) -> None:
    told: list[str] = []
    with Netlink() as rtnetlink:
        monkeypatch.setattr(rtnetlink, "apply", lambda _: None)
        follower = Autoconfiguration(lambda *words: told.append(": ".join(words)), rtnetlink, told.append)
        server = Server(monkeypatch, renewal, len(pauses))
        keeping = asyncio.create_task(follower._keep(LINK, managed=True))
        async with asyncio.timeout(10):
            await server.over.wait()
        keeping.cancel()
        assert (server.asked, server.pauses) == (asked, pauses)
        assert follower.nameservers == LEASE.nameservers
        follower.close()
    assert [line for line in told if f"Lease of 2001:db8::50/128 not renewed: {renewal}" in line]


@on_a_cable
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


@on_a_cable
def test_a_router_that_advertises_all_is_asked_for_nothing_more(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""FOLDER = '{tmp_path}'
{_SITUATION}
async def main():
    await follow(lambda: auto.nameservers)
with_router('2001:db8::,ra-only', main)
assert auto.nameservers == ('2001:db8::53',) and auto._leases.get(index) is None and not told, told
assert auto.seconds_left > 0
""")


@on_a_cable
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


@on_a_cable
def test_what_a_link_had_ends_with_it(in_fresh_network, tmp_path) -> None:
    in_fresh_network(f"""FOLDER = '{tmp_path}'
{_SITUATION}
async def main():
    await follow(lambda: auto._leases.get(index) and auto.nameservers)
    run('ip', 'link', 'del', 'cli')
    await follow(lambda: not auto.nameservers)
    assert auto._leases.get(index) is None and auto.seconds_left is None
with_router('2001:db8::50,2001:db8::50,64,300', main)
""")
