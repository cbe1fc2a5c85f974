"""Who a node is when its daemon starts: by the disks that answer, else by this boot, and by late disks afterwards."""

import asyncio
import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core0.linux.worker import Worker
from core0.node import remembered
from core0.node.remembered import Certificate, Remembered
from core0.state import area

OF_BOOT = Certificate("certificate of this boot", "key", "ab" * 32)
FORMER = Certificate("certificate of the first boot", "key", "cd" * 32)


class Host:
    """A machine with state areas in files; `start` is one life of its node daemon."""

    def __init__(self, folder: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.worker = worker
        self.present: list[str] = []
        self.said: list[str] = []
        monkeypatch.setattr(remembered, "find_areas", lambda: tuple(self.path(name) for name in self.present))
        monkeypatch.setattr(remembered, "_UUID", str(folder / "uuid"))
        monkeypatch.setattr(remembered, "_NETWORK", str(folder / "net"))
        monkeypatch.setattr(remembered, "_GOODBYE", 0.0)
        (folder / "uuid").write_text("E2B1C3D4-1111-4222-8333-444455556666\n")

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def plug(self, name: str) -> None:
        if not Path(self.path(name)).exists():
            with Path(self.path(name)).open("wb") as file:
                file.truncate(area.AREA)
        self.present.append(name)

    def reboot(self) -> None:
        (self.folder / "state.json").unlink(missing_ok=True)

    def start(self) -> Remembered:
        return Remembered(self.worker, self._report, tuple, self.path("state.json"))

    async def claimed(self, *names: str) -> None:
        """The machine's first boot, in which the node gets these disks."""
        node = self.start()
        assert await node.begin(lambda: FORMER) == FORMER
        for name in names:
            self.plug(name)
            await node.store.join(name, self.path(name))
        assert not node.ephemeral
        self.reboot()

    @contextlib.contextmanager
    def hung(self, name: str) -> Iterator[None]:
        """As if a write were under way that the disk does not answer."""
        with Path(self.path(name)).open("rb+") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            yield

    def _report(self, kind: str, subject: str, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    worker = Worker()
    yield Host(tmp_path, worker, monkeypatch)
    worker.close()


async def test_a_node_without_disks_is_who_it_is_in_this_boot_and_imports_nothing_for_it(host: Host) -> None:
    node = host.start()
    before = set(sys.modules)
    assert await node.begin(lambda: OF_BOOT) == OF_BOOT
    assert not {name for name in set(sys.modules) - before if name.startswith("core0.state")}
    assert node.ephemeral
    assert "store" not in vars(node)


async def test_a_node_that_found_no_disk_expects_one_for_a_while(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_LATE", 0.01)
    node = host.start()
    await node.begin(lambda: OF_BOOT)
    assert node.store.expecting
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(30):
        while node.store.expecting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    await host.claimed("a")
    again = host.start()
    await again.begin(lambda: OF_BOOT)
    assert not again.store.expecting


async def test_a_state_that_most_of_its_disks_do_not_hold_may_be_an_old_one_for_a_while(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_LATE", 0.01)
    await host.claimed("a", "b")
    host.present.remove("b")
    node = host.start()
    assert await node.begin(lambda: OF_BOOT) == FORMER
    assert node.store.expecting
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(30):
        await node.settled.wait()
    assert not node.store.expecting
    running.cancel()


async def test_what_a_node_without_disks_is_told_outlives_its_daemon(host: Host) -> None:
    node = host.start()
    await node.begin(lambda: OF_BOOT)
    await node.store.put("x", b"1")
    again = host.start()
    assert await again.begin(lambda: FORMER) == OF_BOOT
    assert (again.store.get("x"), again.ephemeral) == (b"1", True)


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c", "d", "e")], ids=" ".join)
async def test_a_node_with_disks_is_who_it_was(host: Host, names: tuple[str, ...]) -> None:
    await host.claimed(*names)
    node = host.start()
    assert await node.begin(lambda: OF_BOOT) == FORMER
    running = asyncio.create_task(node.run())
    async with asyncio.timeout(30):
        while len(node.store.joined()) < len(names):  # noqa: ASYNC110 — those that the boot did not read
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()


async def test_a_disk_that_hangs_holds_up_a_boot_no_longer_than_a_moment(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_LONGEST", 0.1)
    await host.claimed("a", "b")
    with host.hung("a"):
        assert await host.start().begin(lambda: OF_BOOT) == FORMER


async def test_a_node_whose_only_disk_hangs_starts_again_when_it_answers(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_LONGEST", 0.1)
    await host.claimed("a")
    node = host.start()
    with host.hung("a"):
        assert await node.begin(lambda: OF_BOOT) == OF_BOOT
        running = asyncio.create_task(node.run())
        assert not (await asyncio.wait({running}, timeout=0.05))[0]
    async with asyncio.timeout(30):
        await running
    again = host.start()
    assert await again.begin(lambda: OF_BOOT) == FORMER
    assert not again.store.superseded.is_set()


async def test_an_identity_that_this_image_does_not_understand_is_told_and_kept(host: Host) -> None:
    await host.claimed("a")
    node = host.start()
    await node.begin(lambda: OF_BOOT)
    await node.store.put("identity", b'{"of": "the future"}')
    host.reboot()
    again = host.start()
    assert await again.begin(lambda: OF_BOOT) == OF_BOOT
    assert "this image does not understand who it is" in host.said[-1]
    assert again.store.get("identity") == b'{"of": "the future"}'


def test_a_machine_knows_itself_by_its_board_and_the_cards_own_addresses(host: Host) -> None:
    for name, address, kind in (("eth0", "52:54:00:00:00:01", "0"), ("eth1", "0a:0b:0c:0d:0e:0f", "1")):
        folder = host.folder / "net" / name
        folder.mkdir(parents=True)
        (folder / "address").write_text(f"{address}\n")
        (folder / "addr_assign_type").write_text(f"{kind}\n")
    found = Remembered(host.worker, host._report, lambda: ("eth0", "eth1", "gone"))._machine
    assert found.uuid == "E2B1C3D4-1111-4222-8333-444455556666"
    assert found.addresses == ("52:54:00:00:00:01",)
