"""The link manager when the kernel refuses: told, tried again, and the node daemon goes on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core0.links import dhcp, manager
from core0.links.manager import Links
from core0.links.model import Action, AddAddress, Lease, SeenLink

LINK = SeenLink(7, "eth0", "52:54:00:00:00:07", True, True, frozenset())
BAD = Lease("127.0.0.1/8", None, (), "10.0.0.1", 3600)
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
def leased() -> list[Lease]:
    return []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[SeenLink]:
    """The links of the machine, which refuses every address that is a loopback's."""
    links = [LINK]

    def apply(action: Action, _: object) -> None:
        if isinstance(action, AddAddress) and action.address.startswith("127."):
            raise OSError(22, f"cannot add address {action.address}: invalid argument")

    monkeypatch.setattr(manager, "observe", lambda _: tuple(links))
    monkeypatch.setattr(manager, "apply", apply)
    monkeypatch.setattr(manager, "_FIRST_DELAY", 0.01)
    return links


@pytest.fixture
async def links(
    told: Told, leased: list[Lease], seen: list[SeenLink], tmp_path: Path
) -> AsyncIterator[Links]:
    links = Links(told, leased.append, tmp_path / "leases.json", tmp_path / "links.json")
    yield links
    for task in (*links._clients.values(),):
        task.cancel()
    links.close()


async def test_an_address_that_the_kernel_refuses_is_told_and_asked_for_again(
    links: Links, told: Told, leased: list[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter((BAD, GOOD))

    async def acquire(_: object) -> Lease:
        return next(answers)

    monkeypatch.setattr(links, "_lease", acquire)
    running = asyncio.create_task(links.run())
    await told.of("No lease: [Errno 22] cannot add address 127.0.0.1/8: invalid argument; trying again")
    async with asyncio.timeout(10):
        while not leased:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert leased == [GOOD]
    assert not running.done()
    running.cancel()


async def test_a_defect_in_a_client_ends_the_manager_instead_of_the_client_alone(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object) -> Lease:
        raise ZeroDivisionError

    monkeypatch.setattr(links, "_lease", broken)
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
    links: Links, told: Told, leased: list[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(_: object) -> Lease:
        raise dhcp.NoAnswerError("no DHCP server answered on eth0")

    monkeypatch.setattr(links, "_lease", silence)
    running = asyncio.create_task(links.run())
    await told.of("No lease: no DHCP server answered on eth0; trying again")
    assert not running.done()
    running.cancel()


async def test_a_new_daemon_keeps_the_address_and_renews_its_lease(
    links: Links, told: Told, leased: list[Lease], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links._set_lease(LINK, GOOD)
    again = Links(told, leased.append, tmp_path / "leases.json", tmp_path / "links.json")
    asked = []

    async def renew(_: object, lease: Lease) -> Lease:
        asked.append(lease)
        return lease

    monkeypatch.setattr(manager.dhcp.Client, "request", renew)
    monkeypatch.setattr(manager.dhcp.Client, "__init__", lambda *_: None)
    monkeypatch.setattr(manager.dhcp.Client, "__exit__", lambda *_: None)
    try:
        assert await again._lease(LINK) == GOOD
    finally:
        again.close()
    assert asked == [GOOD]
