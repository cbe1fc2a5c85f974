"""The link manager when the kernel refuses: told, tried again, and the node daemon goes on."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from core0.links import dhcp, leases, manager
from core0.links.autoconfig import Autoconfiguration
from core0.links.leases import Leases
from core0.links.manager import Links
from core0.links.model import Action, Conversation, Lease, SeenLink
from core0.linux.link_actions import AddAddress
from core0.linux.routers import Advertisements, Heard, NameServers
from core0.wire.config import parse
from core0.wire.control import RefusedError
from core0.wire.link_config import NetworkConfig
from core0.wire.network import CONTAINER_LINKS

LINK = SeenLink(7, "eth0", "52:54:00:00:00:07", True, True, frozenset())
BAD = Lease("127.0.0.1/8", None, (), "10.0.0.1", 3600)
real_sleep = asyncio.sleep
GOOD = Lease("10.0.0.2/24", "10.0.0.1", (), "10.0.0.1", 3600)


class Told(list[str]):
    """Keeps what is reported, and says when a text has come."""

    def __call__(self, kind: str, subject: str, message: str) -> None:
        self.append(f"{kind} {subject}: {message}")

    async def of(self, text: str) -> None:
        async with asyncio.timeout(10):
            while not any(text in line for line in self):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def leased() -> list[str]:
    return []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[SeenLink]:
    """The links of the machine, which refuses every address that is a loopback's."""
    links = [LINK]

    def apply(action: Action, _: object) -> None:
        if isinstance(action, AddAddress) and action.address.startswith("127."):
            raise OSError(22, f"cannot add address {action.address}: invalid argument")

    monkeypatch.setattr(manager, "observe", lambda _: tuple(links))
    monkeypatch.setattr(manager, "observe_own", lambda *_: tuple(links))
    monkeypatch.setattr(manager, "apply", apply)
    monkeypatch.setattr(manager, "_FIRST_DELAY", 0.01)
    monkeypatch.setattr(leases, "_FIRST_DELAY", 0.01)
    return links


@pytest.fixture
async def links(told: Told, leased: list[str], seen: list[SeenLink], tmp_path: Path) -> AsyncIterator[Links]:
    links = Links(told, leased.append, tmp_path / "leases.json", tmp_path / "links.json")
    yield links
    for task in (*links._leases._clients.values(),):
        task.cancel()
    links.close()


async def test_an_address_that_the_kernel_refuses_is_told_and_asked_for_again(
    links: Links, told: Told, leased: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter((BAD, GOOD))

    async def acquire(_: object, *, moved: bool) -> Lease:
        return next(answers)

    monkeypatch.setattr(links._leases, "_lease", acquire)
    running = asyncio.create_task(links.run())
    await told.of("No lease: [Errno 22] cannot add address 127.0.0.1/8: invalid argument; trying again")
    async with asyncio.timeout(10):
        while not leased:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert leased == ["10.0.0.2/24 from 10.0.0.1"]
    assert not running.done()
    talk = links.conversations[LINK.index]
    assert (talk.state, talk.lease, talk.cause) == ("bound", GOOD, "")
    assert talk.until is not None
    assert talk.next_try is not None
    assert (talk.until - talk.since, talk.next_try - talk.since) == pytest.approx((3600, 1800))
    running.cancel()


async def test_a_defect_in_a_client_ends_the_manager_instead_of_the_client_alone(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object, *, moved: bool) -> Lease:
        raise ZeroDivisionError

    monkeypatch.setattr(links._leases, "_lease", broken)
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(10):
            await links.run()


async def test_a_machine_without_a_link_says_so_once(links: Links, told: Told, seen: list[SeenLink]) -> None:
    seen.clear()
    links._reconcile()
    links._reconcile()
    assert [line for line in told if "links" in line] == [
        "network links: None is there; plug a network card for which the image has a driver"
    ]


async def test_a_link_without_a_server_is_tried_again(
    links: Links, told: Told, leased: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(_: object, *, moved: bool) -> Lease:
        raise dhcp.NoAnswerError("no DHCP server answered on eth0")

    monkeypatch.setattr(links._leases, "_lease", silence)
    running = asyncio.create_task(links.run())
    await told.of("No lease: no DHCP server answered on eth0; trying again")
    assert not running.done()
    talk = links.conversations[LINK.index]
    assert (talk.state, talk.lease, talk.cause) == ("unanswered", None, "no DHCP server answered on eth0")
    running.cancel()


async def test_a_new_daemon_keeps_the_address_and_renews_its_lease(
    links: Links, told: Told, leased: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links._leases._set_lease(LINK, GOOD)
    again = Links(told, leased.append, tmp_path / "leases.json", tmp_path / "links.json")
    asked = []

    async def renew(_: object, lease: Lease) -> Lease:
        asked.append(lease)
        return lease

    monkeypatch.setattr(dhcp.Client, "renew", renew)
    monkeypatch.setattr(dhcp.Client, "__init__", lambda *_: None)
    monkeypatch.setattr(dhcp.Client, "__exit__", lambda *_: None)
    try:
        assert await again._leases._lease(LINK) == GOOD
    finally:
        again.close()
    assert asked == [GOOD]


async def test_while_a_server_is_asked_for_the_first_time_it_is_told_so(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, silence = asyncio.Event(), asyncio.Event()

    async def wait(_: object, *, moved: bool) -> Lease:
        asked.set()
        await silence.wait()
        raise dhcp.RefusedError("the DHCP server's offer has no usable address")

    monkeypatch.setattr(links._leases, "_lease", wait)
    monkeypatch.setattr(leases, "_FIRST_DELAY", 600.0)
    links._reconcile()
    await asked.wait()
    assert links.conversations[LINK.index].state == "asking"
    silence.set()
    while links.conversations[LINK.index].state == "asking":  # noqa: ASYNC110
        await asyncio.sleep(0)
    talk = links.conversations[LINK.index]
    assert (talk.state, talk.cause) == ("refused", "the DHCP server's offer has no usable address")
    assert talk.next_try is not None
    assert talk.next_try - talk.since >= 0.8 * 600


async def test_a_try_after_silence_still_tells_of_the_silence_and_since_when(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(leases, "now", lambda: clock[-1])
    nobody = dhcp.NoAnswerError("no DHCP server answered on eth0")
    for moment in (100.0, 116.0, 133.0):
        clock.append(moment)
        links._leases._note_asking(LINK)
        assert links.conversations[LINK.index].next_try is None
        links._leases._note_failure(LINK, nobody, 2.0)
    talk = links.conversations[LINK.index]
    assert (talk.state, talk.since, talk.next_try) == ("unanswered", 100.0, 135.0)


async def test_what_the_kernel_refuses_is_told_in_its_words(links: Links) -> None:
    links._leases._note_asking(LINK)
    links._leases._note_failure(LINK, OSError(22, "cannot add address 127.0.0.1/8: invalid argument"), 1.0)
    talk = links.conversations[LINK.index]
    assert (talk.state, talk.cause) == ("failed", "cannot add address 127.0.0.1/8: invalid argument")


async def test_a_lease_that_is_renewed_stays_told(links: Links, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(leases, "now", lambda: moment)
    links._leases._set_lease(LINK, GOOD)
    links._leases._note_lease(LINK, GOOD, 1800.0)
    moment = 1900.0
    links._leases._note_asking(LINK)
    talk = links.conversations[LINK.index]
    assert (talk.state, talk.since, talk.lease, talk.until) == ("renewing", 1900.0, GOOD, 3700.0)


async def test_of_a_link_that_is_gone_nothing_is_told(
    links: Links, seen: list[SeenLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    links._leases._set_lease(LINK, GOOD)
    links._leases._note_lease(LINK, GOOD, 1800.0)
    monkeypatch.setitem(links._leases._clients, LINK.index, asyncio.create_task(asyncio.Event().wait()))
    seen.clear()
    links._reconcile()
    assert links.conversations == {}


async def test_addresses_of_routers_are_told_once_and_so_are_those_that_another_machine_has(
    links: Links, told: Told, leased: list[str], seen: list[SeenLink]
) -> None:
    own, taken = frozenset({"2001:db8::7/64"}), frozenset({"2001:db8::8/64"})
    seen[:] = [replace(LINK, routed=own, duplicates=taken)]
    links._reconcile()
    links._reconcile()
    assert leased == ["2001:db8::7/64 on eth0"]
    alert = (
        "network eth0: Alert: 2001:db8::8/64 is not used: another machine on this link has it; find that one"
    )
    assert told.count(alert) == 1
    seen[:] = [LINK]
    links._reconcile()
    seen[:] = [replace(LINK, routed=own)]
    links._reconcile()
    assert leased == ["2001:db8::7/64 on eth0"], "the first address is told, and no other"


async def test_nobody_asks_any_more_on_a_link_that_a_config_has_taken_otherwise(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    links._reconcile()
    await until(lambda: links._leases.held)
    select = f'select = {{ mac = "{LINK.hardware}" }}'
    with pytest.raises(RefusedError):
        links.change(parse(f"[network.links.lan]\n{select}\nmtu = 20").network)
    assert links._leases.held == {LINK.index: GOOD}
    links.change(parse(f"[network.links.lan]\n{select}\ndhcp4 = false").network)
    assert (links._leases._clients, links._leases.held, links.conversations) == ({}, {}, {})
    assert server.asked == ["new"]


async def test_the_drivers_of_links_that_are_made_are_loaded_beside_the_loop(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[frozenset[str], bool]] = []

    def load(kinds: frozenset[str]) -> None:
        loaded.append((kinds, threading.current_thread() is threading.main_thread()))
        raise OSError(2, "cannot load module bridge: there is none")

    monkeypatch.setattr(manager, "load", load)
    await links.prepare(parse("[network.links.br0]\nbridge = {}").network)
    await links.prepare(parse("").network)
    assert loaded == [({"bridge"}, False)]


async def forever() -> None:
    await asyncio.Event().wait()


class Server:
    """Stands for the DHCP server of a link: what it answers to a renewal, and how often it was asked for what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.renewal: Lease | Exception = GOOD
        self.offer: Lease | Exception = GOOD

        async def renew(_: object, lease: Lease) -> Lease:
            self.asked.append(f"renew {lease.address}")
            if isinstance(self.renewal, Exception):
                raise self.renewal
            return self.renewal

        async def acquire(_: object) -> Lease:
            self.asked.append("new")
            if isinstance(self.offer, Exception):
                raise self.offer
            return self.offer

        monkeypatch.setattr(dhcp.Client, "__init__", lambda *_: None)
        monkeypatch.setattr(dhcp.Client, "__exit__", lambda *_: None)
        monkeypatch.setattr(dhcp.Client, "renew", renew)
        monkeypatch.setattr(dhcp.Client, "acquire", acquire)
        monkeypatch.setattr(Leases, "_refuse_duplicate", lambda *_: asyncio.sleep(0))


async def test_a_lease_that_nobody_renews_is_kept_until_it_ends(
    links: Links, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    server.renewal = dhcp.NoAnswerError("no DHCP server answered on eth0")
    pauses: list[float] = []
    clock = 1900.0

    async def sleep(seconds: float) -> None:
        nonlocal clock
        pauses.append(seconds)
        clock += seconds
        if len(pauses) == 8:
            await asyncio.Event().wait()

    monkeypatch.setattr(leases, "now", lambda: clock)
    links._leases._clients[LINK.index] = asyncio.create_task(forever())  # so that no other one is begun
    links._leases._set_lease(LINK, GOOD)
    links._leases._conversations[LINK.index] = Conversation("bound", 100.0, GOOD, 3700.0)
    monkeypatch.setattr(leases.asyncio, "sleep", sleep)
    keeping = asyncio.ensure_future(links._leases._keep_lease(LINK))
    while len(pauses) < 8:
        await real_sleep(0)
    keeping.cancel()
    monkeypatch.undo()
    assert pauses[:6] == [900.0, 450.0, 225.0, 112.5, 60.0, 52.5]
    assert server.asked[:7] == ["renew 10.0.0.2/24"] * 6 + ["new"]
    said = (
        "Lease of 10.0.0.2/24 not renewed: no DHCP server answered on eth0; it holds for 1800 s, asking again"
    )
    assert [line for line in told if said in line]


async def test_a_lease_that_ends_while_it_is_asked_for_again_ends_at_that_moment(
    links: Links, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    asked = asyncio.Event()

    async def ask(*_: object) -> Lease:
        asked.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    monkeypatch.setattr(dhcp.Client, "renew", ask)
    server.offer = NOBODY
    links._leases._clients[LINK.index] = asyncio.create_task(forever())
    links._leases._set_lease(LINK, GOOD)
    links._leases._note_lease(LINK, replace(GOOD, seconds=0.05), 0.0)
    keeping = asyncio.create_task(links._leases._lease(LINK))
    await asked.wait()
    assert links._leases.held == {LINK.index: GOOD}
    with pytest.raises(dhcp.NoAnswerError):
        await keeping
    assert links._leases.held == {}
    talk = links.conversations[LINK.index]
    assert (talk.state, talk.lease) == ("asking", None)
    await told.of("Lease of 10.0.0.2/24 ended: nobody renewed it")


async def test_a_lease_that_its_server_refuses_to_renew_is_over(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    server.renewal = dhcp.RefusedError("the DHCP server 10.0.0.1 refused 10.0.0.2/24")
    links._leases._set_lease(LINK, GOOD)
    links._leases._note_lease(LINK, GOOD, 1800.0)
    assert await links._leases._lease(LINK) == GOOD
    assert server.asked == ["renew 10.0.0.2/24", "new"]


NOBODY = dhcp.NoAnswerError("no DHCP server answered on eth0")
OTHER = Lease("192.0.2.7/24", None, (), "192.0.2.1", 3600)


async def test_an_address_that_was_refused_is_not_used_any_more_though_nobody_gives_another(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    server.renewal, server.offer = dhcp.RefusedError("the DHCP server 10.0.0.1 refused 10.0.0.2/24"), NOBODY
    links._leases._clients[LINK.index] = asyncio.create_task(forever())
    links._leases._set_lease(LINK, GOOD)
    links._leases._note_lease(LINK, GOOD, 1800.0)
    keeping = asyncio.create_task(links._leases._keep_lease(LINK))
    await until(lambda: "new" in server.asked)
    assert links._leases.held == {}
    keeping.cancel()


@pytest.mark.parametrize(
    ("offer", "held"),
    [
        pytest.param(OTHER, OTHER, id="another network's server gives another one"),
        pytest.param(NOBODY, GOOD, id="nobody is there at all"),
    ],
)
async def test_who_was_moved_takes_another_servers_lease_where_nobody_renews(
    links: Links, monkeypatch: pytest.MonkeyPatch, offer: Lease | Exception, held: Lease
) -> None:
    server = Server(monkeypatch)
    server.renewal, server.offer = NOBODY, offer
    links._leases._clients[LINK.index] = asyncio.create_task(forever())
    links._leases._set_lease(LINK, GOOD)
    links._leases._note_lease(LINK, GOOD, 1800.0)
    keeping = asyncio.create_task(links._leases._keep_lease(LINK, moved=True))
    await until(lambda: server.asked == ["renew 10.0.0.2/24", "new"])
    await until(lambda: links._leases.held == {LINK.index: held})
    keeping.cancel()


async def test_a_lease_is_asked_for_again_when_the_carrier_comes_back(
    links: Links, seen: list[SeenLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch)
    links._reconcile()
    await until(
        lambda: links.conversations.get(LINK.index) and links.conversations[LINK.index].state == "bound"
    )
    seen[:] = [replace(LINK, carrier=False)]
    links._reconcile()
    links._reconcile()
    assert server.asked == ["new"]
    seen[:] = [LINK]
    links._reconcile()
    await until(lambda: len(server.asked) == 2)
    assert server.asked == ["new", "renew 10.0.0.2/24"]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("changed", "looks"),
    [
        pytest.param({2}, True, id="the node's own link"),
        pytest.param({0}, True, id="notifications were lost"),
        pytest.param({CONTAINER_LINKS + 1}, False, id="a container's link"),
        pytest.param({CONTAINER_LINKS + 1, 2}, True, id="both"),
    ],
)
async def test_containers_links_are_no_reason_to_look_again(
    links: Links, monkeypatch: pytest.MonkeyPatch, changed: set[int], looks: bool
) -> None:
    monkeypatch.setattr(links._changes, "links", lambda: changed)
    links._hear()
    assert links._wake.is_set() == looks


def configured(*nameservers: str) -> NetworkConfig:
    named = ", ".join(f'"{one}"' for one in nameservers)
    return parse(
        f'[network.links.lan]\nselect = {{ mac = "{LINK.hardware}" }}\nnameservers = [{named}]\n'
    ).network


async def test_who_asks_name_servers_is_told_when_they_are_others(
    links: Links, seen: list[SeenLink], tmp_path: Path
) -> None:
    known: list[tuple[str, ...]] = []
    links.on_servers = lambda: known.append(links.nameservers)
    for config in (configured("192.0.2.53"), configured("192.0.2.53"), configured()):
        links.adopt(config)
        links._reconcile()
    assert known == [("192.0.2.53",), ()]
    assert (tmp_path / "resolv.conf").read_text() == "options timeout:2\n"


async def test_a_name_server_whose_router_says_nothing_more_is_asked_no_more(
    links: Links, seen: list[SeenLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is heard when its time is over."""
    known: list[tuple[str, ...]] = []
    over = asyncio.Event()
    servers = NameServers(LINK.index, ("2001:db8::53",), 0.05)  # type: ignore[arg-type]  # seconds; a test has no time
    said = [Heard(frozenset({LINK.index}), (servers,))]

    def tell() -> None:
        known.append(links.nameservers)
        if known[-1:] == [()] and len(known) > 1:
            over.set()

    monkeypatch.setattr(Advertisements, "pending", lambda _: said.pop() if said else Heard(frozenset()))
    links.on_servers = tell
    following = asyncio.create_task(links.follow_routers())
    async with asyncio.timeout(10):
        await over.wait()
    following.cancel()
    assert known == [("2001:db8::53",), ()]


async def test_links_of_containers_that_come_and_go_wake_nobody(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands, and each look is at all of them."""
    looks: list[object] = []
    told: list[Heard] = []
    ends = socket.socketpair()
    monkeypatch.setattr(Advertisements, "fileno", lambda _: ends[0].fileno())

    def pending(_: Advertisements) -> Heard:
        with contextlib.suppress(BlockingIOError):
            ends[0].recv(1)
        return told.pop() if told else Heard(frozenset())

    ends[0].setblocking(False)
    monkeypatch.setattr(Advertisements, "pending", pending)
    monkeypatch.setattr(Autoconfiguration, "follow", lambda _, links: looks.append(links))
    following = asyncio.create_task(links.follow_routers())
    for index, expected in ((CONTAINER_LINKS + 7, 1), (LINK.index, 2)):
        told.append(Heard(frozenset({index})))
        ends[1].send(b"!")
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(looks) == expected
    following.cancel()
    for end in ends:
        end.close()
