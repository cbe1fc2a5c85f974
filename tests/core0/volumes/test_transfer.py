"""Streams between volumes: whole, in parts, cut, foreign, hostile; nothing of a failed one is left."""

import asyncio
import hashlib
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from core0.volumes import transfer
from core0.wire import paths, pieces
from core0.wire.control import Refusal, Reply
from core0.wire.volume_calls import ExportCall
from core0.wire.volumes import Import, ImportRequest, VolumeSpec
from tests.core0.conftest import Loop
from tests.core0.volumes.conftest import MIB, Node
from tests.core0.volumes.test_manager import names, refused
from tests.core0.volumes.test_stream import END, HEAD, SUBVOLUME, command

pytestmark = pytest.mark.root
SMALL = VolumeSpec(64 * MIB, "fast")
NEW = ImportRequest("monday", VolumeSpec(64 * MIB, "slow"))


@pytest.fixture
async def two(node: Node, make_btrfs: Callable[..., Loop], btrfs_disk: Loop) -> Node:
    """A node with the pools `fast` and `slow`, and a volume with the snapshot `monday` on the first."""
    slow = make_btrfs("slow")
    node.pools.change(fast=btrfs_disk.place, slow=slow.place)
    await node.wait_taken("fast", "slow")
    await node.volumes.put("data", SMALL)
    folder = btrfs_disk.place / "volumes" / "data"
    await asyncio.to_thread(fill, folder)
    await node.volumes.take_snapshot("data", "monday")
    return node


def fill(folder: Path) -> None:
    (folder / "folder").mkdir()
    (folder / "folder" / "file").write_bytes(os.urandom(20 * MIB))
    (folder / "link").symlink_to("/nowhere")
    os.chown(folder / "folder", 33, 33)


def exchange(theirs: socket.socket, work: Callable[[socket.socket], object]) -> object:
    with theirs:
        theirs.settimeout(60)
        return work(theirs)


def read_reply(way: socket.socket) -> Reply:
    data = pieces.receive(way)
    assert data
    return msgspec.json.decode(data, type=Reply)


async def export(node: Node, **wanted: object) -> bytes | Refusal:
    """A snapshot's stream."""
    ours, theirs = socket.socketpair()
    call = msgspec.convert({"snapshot": "monday", **wanted}, ExportCall)
    try:
        node.volumes.exports.send("data", call, ours.fileno())
    except BaseException:
        theirs.close()
        raise
    finally:
        ours.close()

    def read(way: socket.socket) -> bytes | Refusal:
        if refusal := read_reply(way).refusal:
            return refusal
        data = bytearray()
        while piece := pieces.receive(way):
            data += piece
        assert piece == b""
        return read_reply(way).refusal or bytes(data)

    return await asyncio.to_thread(exchange, theirs, read)  # type: ignore[return-value]


async def feed(
    node: Node, one: Import, data: bytes, *, whole: bool = True, offset: int | None = None
) -> Reply:
    """Send bytes to an import; the last reply."""
    ours, theirs = socket.socketpair()
    try:
        start = one.offset if offset is None else offset
        node.volumes.imports.feed(one.operation, start, ours.fileno())
    except BaseException:
        theirs.close()
        raise
    finally:
        ours.close()

    def write(way: socket.socket) -> Reply:
        first = read_reply(way)
        if first.refusal:
            return first
        try:
            for at in range(0, len(data), MIB):
                pieces.send(way, data[at : at + MIB])
            if not whole:
                return first
            pieces.send(way, b"")
        except BrokenPipeError:
            pass
        return read_reply(way)

    return await asyncio.to_thread(exchange, theirs, write)  # type: ignore[return-value]


async def imported(node: Node, volume: str, request: ImportRequest, data: bytes) -> Import:
    one = await node.volumes.imports.begin(volume, request, None)
    reply = await feed(node, one, data)
    assert reply.refusal is None, reply.refusal
    ended = await node.volumes.imports.wait(one.operation, 60)
    assert ended.state == "done", ended.why
    return ended


def digest(folder: Path) -> str:
    """What is in a folder, as one name."""
    listing = subprocess.run(
        ["tar", "-c", "--sort=name", "--format=gnu", "."], cwd=folder, check=True, capture_output=True
    )
    return hashlib.sha256(listing.stdout).hexdigest()


def slow_place(node: Node) -> Path:
    return Path(node.pools.there["slow"])


async def test_a_volume_goes_from_one_pool_to_another_with_all_that_it_is(
    two: Node, btrfs_disk: Loop
) -> None:
    stream = await export(two)
    assert isinstance(stream, bytes)
    ended = await imported(two, "copy", NEW, stream)
    assert (ended.offset, ended.volume, ended.snapshot) == (len(stream), "copy", "monday")
    shown = await two.volumes.get("copy")
    assert (shown.pool, shown.size, [one.name for one in shown.snapshots]) == ("slow", 64 * MIB, ["monday"])
    assert shown.snapshots[0].received == (await two.volumes.get("data")).snapshots[0].id
    assert digest(slow_place(two) / "volumes" / "copy") == digest(btrfs_disk.place / "snapshots/data/monday")
    (slow_place(two) / "volumes" / "copy" / "new").write_bytes(os.urandom(10 * MIB))
    await asyncio.to_thread(os.sync)
    found = await two.volumes.list()
    assert found[0].used == pytest.approx(30 * MIB, rel=0.02), "its bytes count once"
    await two.wait_until(lambda _: names(slow_place(two) / "incoming") == [])


async def test_what_changed_since_comes_as_a_little_stream(two: Node, btrfs_disk: Loop) -> None:
    first = await export(two)
    assert isinstance(first, bytes)
    await imported(two, "copy", NEW, first)
    (btrfs_disk.place / "volumes" / "data" / "more").write_text("tuesday")
    await two.volumes.take_snapshot("data", "tuesday")
    changes = await export(two, snapshot="tuesday", base="monday")
    assert isinstance(changes, bytes)
    assert len(changes) < MIB
    await imported(two, "copy", ImportRequest("tuesday"), changes)
    await two.volumes.roll_back("copy", "tuesday")
    assert (slow_place(two) / "volumes" / "copy" / "more").read_text() == "tuesday"


async def test_changes_of_a_snapshot_that_is_not_there_are_refused(two: Node) -> None:
    await two.volumes.take_snapshot("data", "tuesday")
    changes = await export(two, snapshot="tuesday", base="monday")
    assert isinstance(changes, bytes)
    one = await two.volumes.imports.begin("copy", NEW, None)
    refusal = (await feed(two, one, changes)).refusal
    assert refusal
    assert "it begins at the snapshot" in refusal.detail
    await left_nothing(two, one)


async def left_nothing(node: Node, one: Import) -> None:
    """A failed import is told as failed, and nothing of it is there."""
    ended = await node.volumes.imports.wait(one.operation, 60)
    assert ended.state == "failed"
    await node.wait_until(lambda all_: [volume.name for volume in all_] == ["data"])
    await node.wait_until(lambda _: names(slow_place(node) / "incoming") == [])
    assert names(slow_place(node) / "snapshots") == []


async def test_a_stream_is_the_same_each_time_and_goes_on_where_it_was_lost(two: Node) -> None:
    stream = await export(two)
    assert isinstance(stream, bytes)
    assert await export(two) == stream
    half = len(stream) // 2
    rest = await export(two, offset=half, sha256=hashlib.sha256(stream[:half]).hexdigest())
    assert rest == stream[half:]
    refusal = await export(two, offset=half, sha256="00" * 32)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.remedy) == (409, "begin again, without an offset")


async def test_an_import_goes_on_after_its_connection_was_lost(two: Node) -> None:
    stream = await export(two)
    assert isinstance(stream, bytes)
    one = await two.volumes.imports.begin("copy", NEW, None)
    assert (await feed(two, one, stream[:1_000_000], whole=False)).refusal is None
    refusal = (await feed(two, one, b"x", offset=5)).refusal
    assert refusal
    assert (refusal.status, refusal.pointer) == (409, "/offset")
    assert "1000000 arrived" in refusal.detail
    found = await two.volumes.imports.begin("copy", NEW, None)
    assert (found.operation, found.offset) == (one.operation, 1_000_000)
    assert (await feed(two, found, stream[1_000_000:])).refusal is None
    assert (await two.volumes.imports.wait(one.operation, 60)).state == "done"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "it is cut: it ends after", id="cut"),
        pytest.param(lambda data: b"\x1f\x8b" + data, "it is no btrfs stream", id="another file"),
        pytest.param(lambda data: b"", "it is cut: it ends after 0 bytes", id="empty"),
        pytest.param(
            lambda data: data[:9_000_000] + bytes([data[9_000_000] ^ 1]) + data[9_000_001:],
            "crc32 mismatch in command",
            id="one bit is another",
        ),
        pytest.param(lambda data: data + b"x", "something follows its end", id="more behind the end"),
    ],
)
async def test_a_stream_that_is_not_whole_leaves_nothing(
    two: Node, change: Callable[[bytes], bytes], why: str
) -> None:
    stream = await export(two)
    assert isinstance(stream, bytes)
    one = await two.volumes.imports.begin("copy", NEW, None)
    refusal = (await feed(two, one, change(stream))).refusal
    assert refusal
    assert (refusal.status, why in refusal.detail) == (422, True), refusal
    await left_nothing(two, one)


async def test_a_stream_larger_than_the_volume_is_refused_as_full(two: Node) -> None:
    stream = await export(two)
    assert isinstance(stream, bytes)
    request = ImportRequest("monday", VolumeSpec(16 * MIB, "slow"))
    one = await two.volumes.imports.begin("copy", request, None)
    refusal = (await feed(two, one, stream)).refusal
    assert refusal
    assert (refusal.status, "quota exceeded" in refusal.detail) == (507, True), refusal
    await left_nothing(two, one)


def checked(data: bytes) -> bytes:
    """A made stream with the checksums that `btrfs receive` wants."""
    out, at = bytearray(data[:17]), 17
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        one = bytearray(data[at : at + 10 + length])
        one[6:10] = crc32c(bytes(one)).to_bytes(4, "little")
        out += one
        at += 10 + length
    return bytes(out)


def crc32c(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


async def test_a_stream_that_writes_through_a_link_reaches_nothing(two: Node, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    other = Path(two.pools.there["slow"]) / "volumes" / "other"
    await two.volumes.put("other", VolumeSpec(16 * MIB, "slow"))
    for target in (outside, Path("/run/pool/volumes/other/made"), Path("/dev/null"), Path("/etc/made")):
        stream = checked(
            HEAD
            + SUBVOLUME.replace(bytes(range(16)), os.urandom(16))
            + command(8, a15=b"link", a17=os.fsencode(target), a3=bytes(8))
            + command(15, a15=b"link", a18=bytes(8), a19=b"written")
            + END
        )
        one = await two.volumes.imports.begin("copy", NEW, None)
        refusal = (await feed(two, one, stream)).refusal
        assert refusal, target
        assert "cannot import the stream: " in refusal.detail
        assert (await two.volumes.imports.wait(one.operation, 60)).state == "failed"
    assert outside.read_text() == "untouched"
    assert names(other) == []
    assert "made" not in names(Path("/etc"))


# In place of `btrfs receive`: a program that a stream has got hold of, and what becomes of its tries. It reads
# itself, because Python would read a script with calls that are not for `btrfs receive` either.
TAKEN_OVER = """\
#!/usr/bin/python3 -ISc(lambda o,s:exec(o.read(o.open(s.argv[1],0),9999),globals()))(*map(__import__,('os','sys')))
import ctypes, errno, fcntl, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, result):
    print(name, "done" if result >= 0 else errno.errorcode[ctypes.get_errno()], file=sys.stderr)
def path(name, *arguments):
    try:
        tried(name, getattr(os, name)(*arguments) or 0)
    except OSError as error:
        print(name, errno.errorcode[error.errno], file=sys.stderr)
place = os.open(sys.argv[-1], os.O_RDONLY)
tried("remount", libc.mount(None, b"/", None, 0x1020, None))
tried("unmount", libc.umount2(b"/run/pool", 2))
tried("mount", libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None))
tried("setattr", libc.syscall(442, -100, b"/", 0x8000, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32))
tried("unshare", libc.unshare(0x10000000))
tried("kill", libc.kill(os.getppid(), 0))
tried("trace", libc.ptrace(16, os.getppid(), 0, 0))
tried("owner", libc.fcntl(place, fcntl.F_SETOWN, os.getppid()))
tried("delete", libc.ioctl(place, ctypes.c_ulong(0x5000940F), bytes(4096)))
tried("quota", libc.ioctl(place, ctypes.c_ulong(0xC0109428), bytes(16)))
tried("socket", libc.socket(1, 1, 0))
path("open", "OUTSIDE", os.O_WRONLY)
path("mkdir", sys.argv[-1] + "/inside")
sys.exit(1)
"""


async def test_a_program_that_a_stream_has_got_hold_of_can_do_nothing_more_than_receive(
    two: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, program = tmp_path / "outside", tmp_path / "storage/usr/bin/btrfs"
    outside.write_text("untouched")
    program.parent.mkdir(parents=True)
    program.write_text(TAKEN_OVER.replace("OUTSIDE", str(outside)))
    program.chmod(0o755)
    one = await two.volumes.imports.begin("copy", NEW, None)
    entry = names(slow_place(two) / "incoming")[0]
    monkeypatch.setattr(paths, "STORAGE", str(tmp_path / "storage"))
    receiver = transfer._Receiver(two.pools.there["slow"], entry)
    with pytest.raises(OSError, match="remount") as caught:
        await asyncio.to_thread(receiver.finish)
    assert dict(word.split() for word in str(caught.value).split("; ")) == {
        **dict.fromkeys(("remount", "unmount", "mount", "setattr", "unshare", "kill"), "ENOSYS"),
        **dict.fromkeys(("trace", "socket"), "ENOSYS"),
        **dict.fromkeys(("owner", "delete", "quota"), "EPERM"),
        "open": "EROFS",
        "mkdir": "done",
    }
    assert outside.read_text() == "untouched"
    await two.operations.cancel(one.operation)
    await left_nothing(two, one)


async def test_an_import_that_is_cancelled_leaves_nothing(two: Node) -> None:
    stream = await export(two)
    assert isinstance(stream, bytes)
    one = await two.volumes.imports.begin("copy", NEW, None)
    await feed(two, one, stream[:5_000_000], whole=False)
    await two.operations.cancel(one.operation)
    await left_nothing(two, one)
    refusal = await refused(feed(two, one, b""))
    assert "it was cancelled" in refusal.detail


async def test_two_streams_do_not_become_the_same_snapshot(two: Node) -> None:
    one = await two.volumes.imports.begin("copy", NEW, None)
    other = ImportRequest("monday", VolumeSpec(32 * MIB, "slow"))
    refusal = await refused(two.volumes.imports.begin("copy", other, None))
    assert (refusal.status, "it is under way" in refusal.detail) == (409, True)
    await two.operations.cancel(one.operation)
    await left_nothing(two, one)


async def test_progress_is_told(two: Node) -> None:
    stream = await export(two)
    assert isinstance(stream, bytes)
    request = msgspec.structs.replace(NEW, bytes=len(stream))
    one = await two.volumes.imports.begin("copy", request, None)
    await feed(two, one, stream[: len(stream) // 2], whole=False)
    async with asyncio.timeout(60):
        while (await two.operations.wait(one.operation, 0)).progress is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await two.operations.wait(one.operation, 0)).progress == pytest.approx(0.5, abs=0.3)
    await two.operations.cancel(one.operation)


@pytest.mark.parametrize(
    ("volume", "request_", "status", "pointer"),
    [
        pytest.param("copy", ImportRequest("monday"), 422, "/volume", id="no volume and no spec"),
        pytest.param("data", NEW, 409, "/volume", id="a spec for one that is there"),
        pytest.param("data", ImportRequest("monday"), 409, "/snapshot", id="a snapshot that is there"),
        pytest.param(
            "copy", ImportRequest("monday", VolumeSpec(64 * MIB)), 422, "/volume/pool", id="into memory"
        ),
        pytest.param(
            "copy", ImportRequest("x", VolumeSpec(64 * MIB, "none")), 422, "/volume/pool", id="no such pool"
        ),
        pytest.param(
            "copy",
            ImportRequest("x", VolumeSpec(1 << 50, "slow")),
            422,
            "/volume/size",
            id="larger than the pool",
        ),
    ],
)
async def test_what_cannot_be_imported_is_refused_before_it_comes(
    two: Node, volume: str, request_: ImportRequest, status: int, pointer: str
) -> None:
    refusal = await refused(two.volumes.imports.begin(volume, request_, None))
    assert (refusal.status, refusal.pointer) == (status, pointer), refusal
    assert refusal.detail.startswith("cannot ")
    assert refusal.remedy


@pytest.mark.parametrize(
    ("wanted", "status", "pointer"),
    [
        pytest.param({"snapshot": "none"}, 404, "", id="no snapshot"),
        pytest.param({"base": "none"}, 422, "/base", id="no base"),
        pytest.param({"base": "monday"}, 422, "/base", id="itself as base"),
        pytest.param({"offset": 5}, 422, "/sha256", id="an offset without its digest"),
    ],
)
async def test_what_cannot_be_exported_is_refused(
    two: Node, wanted: dict[str, object], status: int, pointer: str
) -> None:
    refusal = await refused(export(two, **wanted))
    assert (refusal.status, refusal.pointer) == (status, pointer)
