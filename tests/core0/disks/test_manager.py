"""The disk manager over real block devices and real tools: loop devices stand where disks would."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from core0.disks.manager import Disks
from core0.linux.worker import Worker
from core0.node.operations import OperationTable
from core0.wire.control import RefusedError
from core0.wire.storage import Claim, Encryption, MountOptions, Pool, PoolSpec, Selector, StorageConfig
from tests.core0.disks.loop import LoopDisks, can_encrypt, can_loop, loop_disks
from tests.host_node import KeptInMemory

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_loop(), reason="needs root and loop devices"),
]


class Node:
    """What a node's disk manager works with; `manager()` is one life of the node daemon."""

    def __init__(self, folder: Path, disks: LoopDisks, worker: Worker) -> None:
        self.folder = folder
        self.disks = disks
        self.worker = worker
        self.kept = KeptInMemory()
        self.said: list[str] = []
        self.operations = OperationTable(self.report)

    def report(self, kind: str, subject: str, message: str) -> None:
        self.said.append(f"{subject}: {message}")
        print(kind, self.said[-1])  # noqa: T201 — for the report of a test that fails

    @contextlib.asynccontextmanager
    async def manager(self) -> AsyncIterator[Disks]:
        manager = Disks(
            self.worker,
            self.kept,
            self.report,
            self.operations,
            self.disks,
            lambda: None,  # the programs are this machine's
            str(self.folder / "pools"),
            str(self.folder / "mounted.json"),
        )
        running = asyncio.create_task(manager.run())
        try:
            yield manager
        finally:
            running.cancel()
            await asyncio.wait([running])

    def reboot(self) -> None:
        """What is mounted ends; what is on disks stays."""
        for pool in (self.folder / "pools").glob("*"):
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
        while (pool := manager.pool(name)).state != state:
            await manager.wait_changed()
    return pool


async def looked(manager: Disks, count: int) -> None:
    async with asyncio.timeout(60):
        while len(manager.disks()) != count or any(one.state == "probing" for one in manager.disks()):
            await manager.wait_changed()


def write(folder: str) -> None:
    Path(folder, "file").write_text("kept")


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
        disk = manager.disk("one")
        assert (disk.state, disk.id) == ("unclaimed", "virtio-one")
        assert disk.why == "it is blank; 'zn disk claim virtio-one' gives it to the node"
        claimed = await manager.claim("one", Claim())
    assert (claimed.state, claimed.why) == ("free", "the node has it, and no pool uses it yet")
    assert list(node.kept.copies.values()) == [f"{node.disks.device('one')}p1"]


async def test_a_disk_with_a_file_system_is_claimed_only_by_naming_what_it_holds(node: Node) -> None:
    file = node.disks.plug("one")
    make_ext4(file)
    async with node.manager() as manager:
        await looked(manager, 1)
        disk = manager.disk("one")
        device = disk.device
        assert disk.why.startswith(
            f"it is not touched: it holds an ext4 signature labelled 'Y' on {device}; "
        )
        for claim, reason in (
            (Claim(), "it holds an ext4"),
            (Claim("0" * 16), "not hold what the claim names"),
        ):
            with pytest.raises(RefusedError, match=reason) as caught:
                await manager.claim("one", claim)
            assert caught.value.refusal.pointer == "/wipe"
        assert run("fsck.ext4", "-n", file) == 0
        assert (await manager.claim("one", Claim(disk.content))).state == "free"


async def test_a_pool_is_made_serves_and_is_found_again(node: Node) -> None:
    node.disks.plug("one")
    node.disks.plug("two", sector=4096)
    spec = PoolSpec(Selector(), profile="raid1", format_blank=True, mount=MountOptions(compress="zstd:1"))
    async with node.manager() as manager:
        await looked(manager, 2)
        await manager.put_pool("fast", spec)
        pool = await until(manager, "fast", "online")
        assert pool.why == "it serves, with all 2 disks"
        write(manager.mounted()["fast"])
        assert {disk.state for disk in manager.disks()} == {"in-use"}
    async with node.manager() as manager:  # another node daemon in the same boot
        assert manager.pool("fast").members
        await until(manager, "fast", "online")
        assert read(manager.mounted()["fast"]) == "kept"
    assert sum("Make pool fast" in said for said in node.said) == 1
    node.reboot()
    async with node.manager() as manager:
        await until(manager, "fast", "online")
        assert read(manager.mounted()["fast"]) == "kept"
        assert any("compress=zstd:1" in line for line in mounts())


async def test_a_pool_serves_without_a_disk_and_says_so(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core0.disks.manager._PATIENCE", 0.5)
    node.disks.plug("one")
    node.disks.plug("two")
    async with node.manager() as manager:
        await looked(manager, 2)
        await manager.put_pool("fast", PoolSpec(Selector(), profile="raid1", format_blank=True))
        await until(manager, "fast", "online")
        write(manager.mounted()["fast"])
    node.reboot()
    node.disks.pull("two")
    async with node.manager() as manager:
        pool = await until(manager, "fast", "degraded")
        assert pool.why.startswith("it serves, but disk virtio-two is missing; ")
        assert [member.state for member in pool.members] == ["online", "missing"]
        assert read(manager.mounted()["fast"]) == "kept"


@pytest.mark.skipif(not can_encrypt(), reason="this kernel has no device mapper; a machine of tests/vm has")
async def test_an_encrypted_pool_opens_with_its_key_only(node: Node) -> None:
    node.disks.plug("one")
    secret = Encryption("config", "correct horse")
    spec = PoolSpec(Selector(), format_blank=True, encryption=secret)
    config = StorageConfig({"vault": spec})
    async with node.manager() as manager:
        manager.configure(config)
        await until(manager, "vault", "online")
        write(manager.mounted()["vault"])
        shown = manager.pool("vault")
        assert "correct" not in repr(shown)
        claim = next(iter(manager.known.disks))
    assert b"correct" not in b"".join(node.kept.sections.values())
    node.reboot()
    assert run("cryptsetup", "close", f"zn-{claim}") == 0
    wrong = msgspec.structs.replace(spec, encryption=Encryption("config", "wrong horse"))
    async with node.manager() as manager:
        manager.configure(StorageConfig({"vault": wrong}))
        pool = await until(manager, "vault", "failed")
        assert "the key is not its key" in pool.why
        manager.configure(config)
        await until(manager, "vault", "online")
        assert read(manager.mounted()["vault"]) == "kept"


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
            PoolSpec(Selector(), encryption=Encryption("config")),
            "the passphrase is missing",
            "/encryption/passphrase",
            id="no passphrase",
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
        assert manager.pools() == ()


async def test_a_claim_by_the_config_wipes_what_it_names_once(node: Node) -> None:
    file = node.disks.plug("one")
    make_ext4(file)
    async with node.manager() as manager:
        await looked(manager, 1)
        content = manager.disk("one").content
        manager.configure(StorageConfig(claims={"one": content}))
        async with asyncio.timeout(60):
            while manager.disk("one").state != "free":
                await manager.wait_changed()
