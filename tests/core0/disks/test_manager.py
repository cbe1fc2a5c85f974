"""The disk manager over real block devices and real tools: loop devices stand where disks would."""

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from core0.disks import apply
from core0.disks import manager as disk_manager
from core0.disks.manager import Disks
from core0.disks.model import Known
from core0.linux.worker import Worker
from core0.node.operations import OperationTable
from core0.state.disk import Areas
from core0.wire.control import RefusedError
from core0.wire.operations import Operation
from core0.wire.state import NEWER_IMAGE
from core0.wire.storage import (
    Claim,
    Encryption,
    EraseRequest,
    MountOptions,
    Pool,
    PoolSpec,
    Replacement,
    Selector,
    StorageConfig,
)
from core0.wire.types import Check
from tests.core0.disks.loop import LoopDisks, can_encrypt, can_loop, loop_disks
from tests.disk_images import digest, with_newer_state
from tests.host_node import HERE, remembered

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_loop(), reason="needs root and loop devices"),
]

ELSEWHERE = "aaaabbbb-9999-4888-8777-666655554444"


class Node:
    """What a node's disk manager works with; `manager()` is one life of the node daemon."""

    def __init__(self, folder: Path, disks: LoopDisks, worker: Worker) -> None:
        self.folder = folder
        self.disks = disks
        self.worker = worker
        self.booted = False
        self.said: list[str] = []
        self.prepare: Callable[[], None] = lambda: None  # the programs are this machine's
        self.operations = OperationTable(self.report)

    def report(self, kind: str, subject: str, message: str) -> None:
        self.said.append(f"{subject}: {message}")
        print(kind, self.said[-1])  # noqa: T201 — for the report of a test that fails

    @contextlib.asynccontextmanager
    async def manager(self) -> AsyncIterator[Disks]:
        if not self.booted:
            await self.boot()
        manager = Disks(
            self.worker,
            self.kept,
            self.report,
            self.operations,
            self.disks,
            self.prepare,
            str(self.folder / "pools"),
            str(self.folder / "mounted.json"),
        )
        running = asyncio.create_task(manager.run())
        try:
            yield manager
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def boot(self, uuid: str = HERE) -> None:
        """Begin with what the disks remember."""
        self.booted = True
        self.kept = remembered(self.folder, self.worker, self.report, uuid)
        areas = Areas(self.worker)
        partitions = [path for facts in self.disks() if (path := facts.partitions.get(1))]
        self.kept.take([await areas.read(f"/dev/{path}") for path in partitions])
        await self.kept.catch_up()

    def reboot(self) -> None:
        """What is mounted or in memory ends; what is on disks stays."""
        self.booted = False
        (self.folder / "state.json").unlink(missing_ok=True)
        for pool in (self.folder / "pools").glob("*"):
            if pool.is_mount():
                subprocess.run(["umount", pool], check=True)
        (self.folder / "mounted.json").unlink(missing_ok=True)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr("core0.wire.paths.STORAGE", "")
    worker = Worker()
    with loop_disks(tmp_path / "disks") as disks:
        yield Node(tmp_path / "disks", disks, worker)
    worker.close()


async def until(manager: Disks, name: str, state: str) -> Pool:
    async with asyncio.timeout(60):
        while (pool := manager.book.pool(name)).state != state:
            await manager.book.wait_changed()
    return pool


async def looked(manager: Disks, count: int) -> None:
    async with asyncio.timeout(60):
        while len(manager.book.disks()) != count or any(
            one.state == "probing" for one in manager.book.disks()
        ):
            await manager.book.wait_changed()


def write(folder: str, text: str = "kept") -> None:
    Path(folder, "file").write_text(text)


def read(folder: str) -> str:
    return Path(folder, "file").read_text()


def run(*command: str | Path) -> int:
    return subprocess.run(command, capture_output=True).returncode


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def make_ext4(file: Path) -> None:
    assert run("mkfs.ext4", "-q", "-L", "Y", file) == 0


async def test_a_blank_disk_is_told_and_left_alone_until_it_is_claimed(node: Node) -> None:
    node.disks.plug("one")
    async with node.manager() as manager:
        await looked(manager, 1)
        disk = manager.book.disk("one")
        assert (disk.state, disk.id) == ("unclaimed", "virtio-one")
        assert disk.why == "it is blank; 'zn disk claim virtio-one' gives it to the node"
        claimed = await manager.claims.claim("one", Claim())
    assert (claimed.state, claimed.why) == ("free", "the node has it, and no pool uses it yet")
    assert list(node.kept.joined().values()) == [f"{node.disks.device('one')}p1"]


async def test_a_disk_with_a_file_system_is_claimed_only_by_naming_what_it_holds(node: Node) -> None:
    file = node.disks.plug("one")
    make_ext4(file)
    async with node.manager() as manager:
        await looked(manager, 1)
        disk = manager.book.disk("one")
        device = disk.device
        assert disk.why.startswith(
            f"it is not touched: it holds an ext4 signature labelled 'Y' on {device}; "
        )
        for claim, reason in (
            (Claim(), "it holds an ext4"),
            (Claim("0" * 16), "not hold what the claim names"),
        ):
            with pytest.raises(RefusedError, match=reason) as caught:
                await manager.claims.claim("one", claim)
            assert caught.value.refusal.pointer == "/wipe"
        assert run("fsck.ext4", "-n", file) == 0
        assert (await manager.claims.claim("one", Claim(disk.content))).state == "free"


async def test_a_pool_is_made_serves_and_is_found_again(node: Node) -> None:
    node.disks.plug("one")
    node.disks.plug("two", sector=4096)
    spec = PoolSpec(Selector(), profile="raid1", format_blank=True, mount=MountOptions(compress="zstd:1"))
    async with node.manager() as manager:
        await looked(manager, 2)
        await manager.put_pool("fast", spec)
        pool = await until(manager, "fast", "online")
        assert pool.why == "it serves, with all 2 disks"
        write(manager.book.folders()["fast"])
        assert {disk.state for disk in manager.book.disks()} == {"in-use"}
    async with node.manager() as manager:  # another node daemon in the same boot
        assert manager.book.pool("fast").members
        await until(manager, "fast", "online")
        assert read(manager.book.folders()["fast"]) == "kept"
    assert sum("Make pool fast" in said for said in node.said) == 1
    node.reboot()
    async with node.manager() as manager:
        await until(manager, "fast", "online")
        assert read(manager.book.folders()["fast"]) == "kept"
        assert any("compress=zstd:1" in line for line in mounts())


async def test_a_pool_serves_without_a_disk_and_says_so(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core0.disks.book._PATIENCE", 0.5)
    await booted_without_one_of_two(node)
    async with node.manager() as manager:
        pool = await until(manager, "fast", "degraded")
        assert Check("pools", False, "pools in trouble: fast (degraded)") in manager.book.checks()
        assert pool.why.startswith("it serves, but disk virtio-two is missing; ")
        assert [member.state for member in pool.members] == ["online", "missing"]
        assert read(manager.book.folders()["fast"]) == "kept"


@pytest.mark.skipif(not can_encrypt(), reason="this kernel has no device mapper; a machine of tests/vm has")
async def test_an_encrypted_pool_opens_with_its_key_only(node: Node) -> None:
    node.disks.plug("one")
    secret = Encryption("config", "correct horse")
    spec = PoolSpec(Selector(), format_blank=True, encryption=secret)
    config = StorageConfig({"vault": spec})
    async with node.manager() as manager:
        manager.configure(config)
        await until(manager, "vault", "online")
        write(manager.book.folders()["vault"])
        shown = manager.book.pool("vault")
        assert "correct" not in repr(shown)
        claim = next(iter(manager.book.known.disks))
    assert b"correct" not in b"".join(node.kept.get(name) or b"" for name in node.kept.names())
    node.reboot()
    assert run("cryptsetup", "close", f"zn-{claim}") == 0
    wrong = msgspec.structs.replace(spec, encryption=Encryption("config", "wrong horse"))
    async with node.manager() as manager:
        manager.configure(StorageConfig({"vault": wrong}))
        pool = await until(manager, "vault", "failed")
        assert "the key is not its key" in pool.why
        manager.configure(config)
        await until(manager, "vault", "online")
        assert read(manager.book.folders()["vault"]) == "kept"


@pytest.mark.parametrize(
    ("spec", "reason", "pointer"),
    [
        pytest.param(
            PoolSpec(Selector(serials=("nowhere",))),
            "disk 'nowhere': there is none",
            "/select/serials/0",
            id="unknown serial",
        ),
        pytest.param(
            PoolSpec(Selector(serials=("one",)), profile="raid1"),
            "raid1 needs 2 disks, and 1 are named",
            "/select/serials",
            id="raid1 with one disk",
        ),
        pytest.param(
            PoolSpec(Selector(count=1), profile="raid1"),
            "raid1 needs 2 disks, and the selector takes 1",
            "/select/count",
            id="raid1 with a count of one",
        ),
        pytest.param(
            PoolSpec(Selector(), encryption=Encryption("config", "correct horse")),
            "only the node's config can have a pool's passphrase",
            "/encryption/key",
            id="a passphrase to be kept",
        ),
        pytest.param(
            PoolSpec(Selector(), encryption=Encryption("operator", "correct horse")),
            "only the node's config can have a pool's passphrase",
            "/encryption/passphrase",
            id="a passphrase beside the operator's",
        ),
        pytest.param(
            PoolSpec(Selector(), encryption=Encryption("tpm2")),
            "this machine has no TPM 2.0",
            "/encryption/key",
            id="no TPM",
        ),
    ],
)
async def test_a_pool_that_can_never_be_is_refused(
    node: Node, spec: PoolSpec, reason: str, pointer: str
) -> None:
    node.disks.plug("one")
    async with node.manager() as manager:
        await looked(manager, 1)
        with pytest.raises(RefusedError, match=reason) as caught:
            await manager.put_pool("fast", spec)
        assert (caught.value.refusal.pointer, caught.value.refusal.status) == (pointer, 422)
        assert manager.book.pools() == ()


async def test_a_claim_by_the_config_wipes_what_it_names_once(node: Node) -> None:
    file = node.disks.plug("one")
    make_ext4(file)
    async with node.manager() as manager:
        await looked(manager, 1)
        content = manager.book.disk("one").content
        manager.configure(StorageConfig(claims={"one": content}))
        async with asyncio.timeout(60):
            while manager.book.disk("one").state != "free":
                await manager.book.wait_changed()


async def ended(node: Node, operation: Operation) -> Operation:
    found = await node.operations.wait(operation.id, 60)
    assert found.state != "running", found
    return found


async def mirrored(manager: Disks, *disks: str) -> None:
    """A pool on two disks, with a file in it."""
    await looked(manager, len(disks))
    spec = PoolSpec(Selector(serials=disks[:2]), profile="raid1", format_blank=True)
    await manager.put_pool("fast", spec)
    await until(manager, "fast", "online")
    write(manager.book.folders()["fast"])


async def booted_without_one_of_two(node: Node, *others: str) -> None:
    """A pool on `one` and `two`, the latter of which is gone since the last boot; other disks beside them."""
    for name in ("one", "two", *others):
        node.disks.plug(name)
    async with node.manager() as manager:
        await mirrored(manager, "one", "two", *others)
    node.reboot()
    node.disks.pull("two")


async def test_a_scrub_corrects_what_a_disk_has_wrong(node: Node) -> None:
    file = node.disks.plug("one")
    node.disks.plug("two")
    async with node.manager() as manager:
        await mirrored(manager, "one", "two")
        damage(file, write_large(manager.book.folders()["fast"]))
        done = await ended(node, manager.works.scrub("fast"))
        assert done.state == "done"
        scrub = manager.book.pool("fast").scrub
        assert scrub
        assert scrub.corrected > 0
        assert scrub.uncorrectable == 0
        assert f"{scrub.corrected} corrected" in done.detail


def write_large(folder: str) -> bytes:
    """A large file that is on the disks while its transaction still runs; returns its first bytes."""
    content = os.urandom(32 << 20)
    with Path(folder, "large").open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    return content[: 1 << 16]


def damage(file: Path, content: bytes) -> None:
    """Other bytes where a disk's file holds these."""
    with file.open("r+b") as disk:
        place = disk.read().index(content)
        disk.seek(place)
        disk.write(bytes(len(content)))


async def test_a_disk_is_replaced_while_the_pool_serves(node: Node) -> None:
    for name in ("one", "two", "three"):
        node.disks.plug(name)
    async with node.manager() as manager:
        await mirrored(manager, "one", "two", "three")
        done = await ended(node, manager.works.replace("fast", Replacement("two", "three")))
        assert (done.state, done.progress) == ("done", 1.0), done.detail
        pool = manager.book.pool("fast")
        assert [member.disk for member in pool.members] == ["virtio-one", "virtio-three"]
        assert manager.book.disk("two").state == "free"
        assert read(manager.book.folders()["fast"]) == "kept"
    node.reboot()
    node.disks.pull("two")
    async with node.manager() as manager:
        await until(manager, "fast", "online")
        assert read(manager.book.folders()["fast"]) == "kept"


@pytest.mark.parametrize("rebuilt", [True, False], ids=["rebuilt by then", "not begun"])
@pytest.mark.parametrize("reboot", [True, False], ids=["a reboot", "another node daemon"])
async def test_a_replacement_that_was_interrupted_ends_well(node: Node, reboot: bool, rebuilt: bool) -> None:
    """It was written down as begun; the kernel rebuilds by itself, or had not been told yet."""
    for name in ("one", "two", "three"):
        node.disks.plug(name)
    async with node.manager() as manager:
        await mirrored(manager, "one", "two", "three")
        await manager.claims.claim("three", Claim())
        book = manager.book
        claims = {disk.facts.serial: claim for claim, disk in book.own().items()}
        old, new = claims["two"], claims["three"]
        begun = msgspec.structs.replace(book.known.pools["fast"], replacing=(old, new))
        await book.remember(apply.with_pool(book.known, "fast", begun))
        folder, number = book.folders()["fast"], begun.members.index(old) + 1
    if rebuilt:
        target = f"{node.disks.device('three')}p2"
        assert run("btrfs", "replace", "start", "-B", "-f", str(number), target, folder) == 0
    if reboot:
        node.reboot()
    node.said.clear()
    members = {claims["one"], new if rebuilt else old}
    async with node.manager() as manager:
        async with asyncio.timeout(60):
            while (
                manager.book.known.pools["fast"].replacing is not None or "fast" not in manager.book.mounted
            ):
                await manager.book.wait_changed()
        assert set(manager.book.known.pools["fast"].members) == members
        assert set(manager.book.mounted["fast"].devices) == members
        assert (await until(manager, "fast", "online")).why == "it serves, with all 2 disks"
        assert manager.book.disk("two" if rebuilt else "three").state == "free"
        assert read(manager.book.folders()["fast"]) == "kept"
    assert not any("Release" in said for said in node.said)


async def test_a_missing_disk_is_replaced(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core0.disks.book._PATIENCE", 0.5)
    await booted_without_one_of_two(node, "three")
    async with node.manager() as manager:
        await until(manager, "fast", "degraded")
        done = await ended(node, manager.works.replace("fast", Replacement("virtio-two", "three")))
        assert done.state == "done", done.detail
        assert (await until(manager, "fast", "online")).why == "it serves, with all 2 disks"


async def test_a_disk_that_came_back_late_is_rebuilt(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core0.disks.book._PATIENCE", 0.5)
    await booted_without_one_of_two(node)
    async with node.manager() as manager:
        await until(manager, "fast", "degraded")
        node.disks.plug("two")
        manager.look_again()
        async with asyncio.timeout(60):
            while "came back" not in manager.book.pool("fast").why:
                await manager.book.wait_changed()
        done = await ended(node, manager.works.replace("fast", Replacement("two", "two")))
        assert done.state == "done", done.detail
        await until(manager, "fast", "online")


async def test_what_a_disk_missed_is_not_mixed_in_after_a_reboot(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core0.disks.book._PATIENCE", 0.5)
    await booted_without_one_of_two(node)
    async with node.manager() as manager:
        await until(manager, "fast", "degraded")
        write(manager.book.folders()["fast"], "newer")
    node.reboot()
    node.disks.plug("two")
    async with node.manager() as manager:
        shown = await until(manager, "fast", "degraded")
        assert shown.why == "it serves without virtio-two, which came back; 'zn pool replace fast'"
        assert "what it holds is old" in manager.book.disk("two").why
        assert read(manager.book.folders()["fast"]) == "newer"
    node.reboot()
    node.disks.pull("one")
    async with node.manager() as manager:
        shown = await until(manager, "fast", "offline")
        assert shown.why.startswith("disk virtio-one is missing and virtio-two came back with an old state")
    node.disks.plug("one")
    async with node.manager() as manager:
        await until(manager, "fast", "degraded")
        done = await ended(node, manager.works.replace("fast", Replacement("two", "two")))
        assert done.state == "done", done.detail
    node.reboot()
    async with node.manager() as manager:
        await until(manager, "fast", "online")
        assert read(manager.book.folders()["fast"]) == "newer"


async def test_a_copy_of_a_disk_takes_nothing_from_the_pool_that_serves(node: Node, tmp_path: Path) -> None:
    file = node.disks.plug("one")
    async with node.manager() as manager:
        await looked(manager, 1)
        await manager.put_pool("fast", PoolSpec(Selector(("one",)), format_blank=True))
        await until(manager, "fast", "online")
        assert run("cp", "--sparse=always", file, file.with_name("copy")) == 0
        node.disks.plug("copy")
        manager.look_again()
        await looked(manager, 2)
        assert "another disk carries the same claim" in manager.book.disk("copy").why
        assert manager.book.pool("fast").state == "online"
        write(manager.book.folders()["fast"])
        node.disks.pull("copy")
        manager.look_again()
        await looked(manager, 1)
        assert read(manager.book.folders()["fast"]) == "kept"


@pytest.mark.parametrize(
    ("old", "new", "reason", "pointer"),
    [
        pytest.param("nowhere", "three", "it is no disk of pool fast", "/old", id="no member"),
        pytest.param("one", "two", "it is in use by pool fast", "/new", id="a member"),
        pytest.param("one", "used", "it holds an ext4", "/new", id="somebody's"),
    ],
)
async def test_a_replacement_that_cannot_be_is_refused(
    node: Node, old: str, new: str, reason: str, pointer: str
) -> None:
    for name in ("one", "two", "three"):
        node.disks.plug(name)
    make_ext4(node.disks.plug("used"))
    async with node.manager() as manager:
        await mirrored(manager, "one", "two", "three", "used")
        with pytest.raises(RefusedError, match=reason) as caught:
            manager.works.replace("fast", Replacement(old, new))
        assert caught.value.refusal.pointer == pointer


async def test_a_pool_is_destroyed_only_by_its_id(node: Node) -> None:
    node.disks.plug("one")
    node.disks.plug("two")
    async with node.manager() as manager:
        await mirrored(manager, "one", "two")
        with pytest.raises(RefusedError, match="its id is another"):
            await manager.works.destroy_pool("fast", "00000000-0000-0000-0000-000000000000")
        assert read(manager.book.folders()["fast"]) == "kept"
        await manager.works.destroy_pool("fast", manager.book.pool("fast").id)
        async with asyncio.timeout(60):
            while {disk.state for disk in manager.book.disks()} != {"free"}:
                await manager.book.wait_changed()
        assert manager.book.pools() == ()


@contextlib.contextmanager
def used(folder: str) -> Iterator[None]:
    """While a file of a folder is open."""
    with Path(folder, "file").open():
        yield


async def test_a_pool_in_use_is_not_destroyed(node: Node) -> None:
    node.disks.plug("one")
    node.disks.plug("two")
    async with node.manager() as manager:
        await mirrored(manager, "one", "two")
        with (
            used(manager.book.folders()["fast"]),
            pytest.raises(OSError, match=r"cannot unmount pool fast: .*stop the containers"),
        ):
            await manager.works.destroy_pool("fast", manager.book.pool("fast").id)
        assert manager.book.pool("fast").state == "online"


async def test_a_pool_that_is_being_looked_at_is_destroyed_behind_the_look(node: Node) -> None:
    node.disks.plug("one")
    node.disks.plug("two")
    async with node.manager() as manager:
        await mirrored(manager, "one", "two")
        looking = os.open(manager.book.folders()["fast"], os.O_RDONLY)
        closing = asyncio.get_running_loop().call_later(0.5, os.close, looking)
        await manager.works.destroy_pool("fast", manager.book.pool("fast").id)
        assert closing.when() < asyncio.get_running_loop().time()
        assert manager.book.pools() == ()


async def test_erasing_needs_the_content_and_leaves_zeros(node: Node) -> None:
    file = node.disks.plug("used", size=1 << 28)
    make_ext4(file)
    async with node.manager() as manager:
        await looked(manager, 1)
        disk = manager.book.disk("used")
        with pytest.raises(RefusedError, match="does not hold what the request names") as caught:
            manager.works.erase("used", EraseRequest("0" * 16))
        assert caught.value.refusal.pointer == "/content"
        done = await ended(node, manager.works.erase("used", EraseRequest(disk.content)))
        assert (done.state, done.detail) == ("done", "erased by discard; it reads as zeros")
    assert not file.read_bytes().strip(b"\0")


async def test_a_reset_wipes_what_the_node_claimed_and_nothing_else(node: Node) -> None:
    used = node.disks.plug("used")
    make_ext4(used)
    node.disks.plug("one")
    node.disks.plug("two")
    node.disks.plug("spare")
    async with node.manager() as manager:
        await mirrored(manager, "one", "two", "used", "spare")
        await manager.claims.claim("spare", Claim())
        await manager.works.reset()
        async with asyncio.timeout(60):
            while any(manager.book.disk(name).state != "unclaimed" for name in ("one", "two", "spare")):
                await manager.book.wait_changed()
        assert all("it is blank" in manager.book.disk(name).why for name in ("one", "two", "spare"))
        assert manager.book.known == Known()
    assert node.kept.joined() == {}
    assert run("fsck.ext4", "-n", used) == 0


async def test_the_config_takes_no_disk_while_one_may_come_that_remembers_the_node(node: Node) -> None:
    node.disks.plug("one")
    config = StorageConfig({"fast": PoolSpec(Selector(), format_blank=True)}, claims={"two": "0" * 16})
    await node.boot()
    node.kept.expecting = True
    async with node.manager() as manager:
        manager.configure(config)
        await looked(manager, 1)
        for _ in range(3):
            manager.look_again()
            await manager.book.wait_changed()
        assert manager.book.known == Known()
        pool = await manager.put_pool("asked-for", PoolSpec(Selector(serials=("one",)), format_blank=True))
        assert pool.state == "waiting"
        await until(manager, "asked-for", "online")
        node.disks.plug("three")
        node.kept.expecting = False
        manager.look_again()
        await until(manager, "fast", "online")


async def test_a_pool_of_another_node_is_refused_until_it_is_adopted(node: Node) -> None:
    node.disks.plug("one")
    node.disks.plug("two")
    async with node.manager() as manager:
        await mirrored(manager, "one", "two")
    node.reboot()
    await node.boot(ELSEWHERE)  # another machine: it knows nothing of these disks
    async with node.manager() as manager:
        await looked(manager, 2)
        assert {disk.state for disk in manager.book.disks()} == {"foreign"}
        assert "it was claimed by another node" in manager.book.disk("one").why
        with pytest.raises(RefusedError, match="it holds another node's claim"):
            await manager.claims.claim("one", Claim())
        await manager.claims.adopt("one")
        await manager.claims.adopt("two")
        await until(manager, "fast", "online")
        assert read(manager.book.folders()["fast"]) == "kept"
        assert manager.book.known.pools["fast"].profile == "raid1"
        assert manager.book.pool("fast").source == "none"
        with pytest.raises(RefusedError, match="it carries no other node's claim"):
            await manager.claims.adopt("one")


async def test_what_a_newer_image_remembers_of_disks_is_left_as_it_is(node: Node) -> None:
    for name in ("one", "two"):
        node.disks.plug(name)
    async with node.manager() as manager:
        await mirrored(manager, "one", "two")
    understood = node.kept.get("disks")
    assert understood
    newer = msgspec.json.encode({**msgspec.json.decode(understood), "tiers": {}})
    await node.kept.put("disks", newer)
    node.reboot()
    node.disks.plug("three")
    async with node.manager() as manager:
        await looked(manager, 3)
        disk = manager.book.disk("one")
        assert disk.state == "foreign"
        assert "unknown field `tiers`" in disk.why
        assert disk.why.endswith(NEWER_IMAGE)
        spec = PoolSpec(Selector(), format_blank=True)
        shown = manager.book.disk("three")
        for refused in (
            lambda: manager.put_pool("more", spec),
            lambda: manager.claims.claim("three", Claim()),
            lambda: manager.claims.claim("one", Claim(disk.content)),
            lambda: manager.claims.adopt("one"),
            manager.works.reset,
        ):
            with pytest.raises(
                RefusedError, match="cannot change disks or pools: what the node remembers of them"
            ):
                await refused()
        with pytest.raises(
            RefusedError, match="cannot change disks or pools: what the node remembers of them"
        ):
            manager.works.erase("three", EraseRequest(shown.content))
        assert manager.book.folders() == {}
        assert node.kept.get("disks") == newer
    await node.kept.put("disks", understood)
    node.reboot()
    async with node.manager() as manager:
        await until(manager, "fast", "online")
        assert read(manager.book.folders()["fast"]) == "kept"


async def test_disks_with_a_state_of_a_newer_format_are_left_as_they_are(node: Node) -> None:
    files = [node.disks.plug(name) for name in ("one", "two")]
    async with node.manager() as manager:
        await mirrored(manager, "one", "two")
    node.reboot()
    for name, file in zip(("one", "two"), files, strict=True):
        node.disks.pull(name)
        with_newer_state(file)
        node.disks.plug(name)
    before = list(map(digest, files))
    async with node.manager() as manager:
        await looked(manager, 2)
        for disk in manager.book.disks():
            assert disk.state == "foreign"
            assert disk.why == (
                "it is not touched: what it remembers of its node is not understood: "
                f"format 7, this image knows format 1; {NEWER_IMAGE}"
            )
        with pytest.raises(RefusedError, match="that this image does not understand: format 7"):
            await manager.claims.adopt("one")
        assert manager.book.folders() == {}
    assert list(map(digest, files)) == before


async def test_a_scrub_begins_by_itself_when_its_time_has_come(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core0.disks.watch._DAY", 0.0)
    node.disks.plug("one")
    async with node.manager() as manager:
        await looked(manager, 1)
        await manager.put_pool("fast", PoolSpec(Selector(), format_blank=True))
        async with asyncio.timeout(60):
            while not manager.book.pool("fast").scrub:
                await manager.book.wait_changed()


async def test_figures_of_a_pool_are_shown(node: Node) -> None:
    node.disks.plug("one")
    async with node.manager() as manager:
        await looked(manager, 1)
        await manager.put_pool("fast", PoolSpec(Selector(), format_blank=True))
        async with asyncio.timeout(60):
            while not manager.book.pool("fast").size:
                await manager.book.wait_changed()
        pool = manager.book.pool("fast")
        assert 0.9 * (1 << 30) < pool.size < 1 << 30
        assert 0 < pool.free < pool.size
        assert pool.members[0].used > 0


async def test_a_node_whose_storage_part_cannot_be_had_says_so_and_goes_on_when_it_can(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_manager, "_LOOK_AGAIN", 0.05)
    tries = iter((True, True, False))

    def prepare() -> None:
        if next(tries):
            raise OSError(errno.ENOENT, "cannot load erofs: libcrc32c: No such file or directory")

    node.prepare = prepare
    node.disks.plug("one")
    async with node.manager() as manager:
        await looked(manager, 1)
    said = (
        "cannot load erofs: libcrc32c: No such file or directory; boot an image whose storage part is whole"
    )
    assert node.said.count(f"disks: Alert: no disk is looked at: {said}") == 1
