"""btrfs by its ioctls, on a real file system; btrfs-progs is the independent reader."""

import contextlib
import errno
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core0.linux import btrfs
from tests.core0.conftest import Loop

pytestmark = pytest.mark.root
MIB = 1 << 20


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def root(btrfs_disk: Loop) -> Iterator[int]:
    with opened(btrfs_disk.place) as descriptor:
        yield descriptor


def progs(*words: str | Path) -> str:
    return subprocess.run(["btrfs", *words], check=True, capture_output=True, text=True).stdout


def write_until_refused(file: Path, piece: int = MIB) -> tuple[int, str]:
    """Bytes written until the kernel says no, and how it says it."""
    data = os.urandom(piece)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, data)
    except OSError as error:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size, errno.errorcode[error.errno or 0]
    finally:
        os.close(descriptor)


def write(file: Path, size: int) -> None:
    with file.open("wb") as out:
        out.write(os.urandom(size))
        os.fsync(out.fileno())


def test_subvolumes_and_snapshots_are_what_btrfs_progs_sees(btrfs_disk: Loop, root: int) -> None:
    btrfs.create_subvolume(root, "one")
    write(btrfs_disk.place / "one" / "file", 100)
    with opened(btrfs_disk.place / "one") as one:
        btrfs.create_snapshot(root, "frozen", one, read_only=True)
        btrfs.create_snapshot(root, "copy", one, read_only=False)
        number, uuid = btrfs.subvolume(one).id, btrfs.subvolume(one).uuid
        assert not btrfs.is_read_only(one)
    assert (btrfs_disk.place / "copy" / "file").stat().st_size == 100
    with opened(btrfs_disk.place / "frozen") as frozen:
        seen = btrfs.subvolume(frozen)
        assert (seen.read_only, seen.source, seen.parent) == (True, uuid, btrfs.TOP_LEVEL)
        shown = progs("subvolume", "show", btrfs_disk.place / "frozen")
        assert re.search(rf"Subvolume ID:\s+{seen.id}\n", shown)
        assert seen.uuid in shown.replace("-", "")
        with pytest.raises(OSError, match="Read-only"):
            write(btrfs_disk.place / "frozen" / "file", 1)
    found = btrfs.subvolumes(root)
    assert sorted(name for _, name in found.values()) == ["copy", "frozen", "one"]
    assert found[number] == (btrfs.TOP_LEVEL, "one")


def test_a_deleted_subvolume_is_gone_with_what_was_in_it(btrfs_disk: Loop, root: int) -> None:
    btrfs.create_subvolume(root, "one")
    with opened(btrfs_disk.place / "one") as one:
        btrfs.create_subvolume(one, "inside")
        with opened(btrfs_disk.place / "one" / "inside") as inside:
            number = btrfs.subvolume(inside).id
    with pytest.raises(OSError, match="cannot delete subvolume one: Directory not empty"):
        btrfs.delete_subvolume(root, "one")
    btrfs.delete_subvolume_by_number(root, number)
    btrfs.delete_subvolume(root, "one")
    btrfs.commit(root)
    assert progs("subvolume", "list", btrfs_disk.place) == ""


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 256])
def test_a_name_that_is_no_folders_entry_is_refused(root: int, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a subvolume"):
        btrfs.create_subvolume(root, name)


def test_what_the_kernel_refuses_says_what_was_tried(btrfs_disk: Loop, root: int) -> None:
    btrfs.create_subvolume(root, "one")
    with pytest.raises(FileExistsError, match="cannot create subvolume one: File exists"):
        btrfs.create_subvolume(root, "one")
    with pytest.raises(OSError, match="cannot read about the subvolume"), opened(Path("/proc")) as proc:
        btrfs.subvolume(proc)


@pytest.mark.parametrize("simple", [True, False], ids=["simple", "full"])
@pytest.mark.parametrize("size", [16 * MIB, 200 * MIB])
def test_a_limit_holds_to_a_hundredth(btrfs_disk: Loop, root: int, simple: bool, size: int) -> None:
    btrfs.enable_quota(root, simple=simple)
    btrfs.wait_rescan(root)
    assert btrfs.quota(root) == btrfs.Quota(on=True, simple=simple)
    btrfs.create_subvolume(root, "one", limit=size)
    written, refused = write_until_refused(btrfs_disk.place / "one" / "file")
    assert refused == "EDQUOT"
    assert written == pytest.approx(size, rel=0.01)
    btrfs.sync(root)
    with opened(btrfs_disk.place / "one") as one:
        group = btrfs.groups(root)[btrfs.subvolume(one).id]
    assert group.limit == size
    assert group.referenced == pytest.approx(size, rel=0.01)


def test_members_of_a_group_share_its_limit(btrfs_disk: Loop, root: int) -> None:
    btrfs.enable_quota(root, simple=True)
    both = btrfs.group_id(1, 300)
    btrfs.create_group(root, both)
    btrfs.limit_group(root, both, 32 * MIB)
    for name in ("one", "two"):
        btrfs.create_subvolume(root, name, groups=[both])
    with opened(btrfs_disk.place / "one") as one:
        btrfs.create_subvolume(one, "inside")
        with opened(btrfs_disk.place / "one" / "inside") as inside:
            number = btrfs.subvolume(inside).id
    btrfs.commit(root)
    assert btrfs.groups(root)[number].parents == (both,)
    write(btrfs_disk.place / "one" / "file", 20 * MIB)
    written, refused = write_until_refused(btrfs_disk.place / "two" / "file")
    assert (written, refused) == (pytest.approx(12 * MIB, rel=0.05), "EDQUOT")
    btrfs.limit_group(root, both, 64 * MIB)
    write(btrfs_disk.place / "two" / "more", 20 * MIB)
    btrfs.limit_group(root, both, None)
    btrfs.commit(root)
    assert btrfs.groups(root)[both].limit is None


def test_a_group_counts_a_subvolume_that_joins_it(btrfs_disk: Loop, root: int) -> None:
    btrfs.enable_quota(root, simple=True)
    btrfs.create_subvolume(root, "one")
    write(btrfs_disk.place / "one" / "file", 10 * MIB)
    btrfs.sync(root)
    with opened(btrfs_disk.place / "one") as one:
        number = btrfs.subvolume(one).id
    group = btrfs.group_id(1, number)
    btrfs.create_group(root, group)
    btrfs.assign_group(root, number, group)
    btrfs.commit(root)
    assert btrfs.groups(root)[group].referenced == pytest.approx(10 * MIB, rel=0.01)
    with pytest.raises(OSError, match="cannot delete quota group") as caught:
        btrfs.delete_group(root, number)
    assert caught.value.errno == errno.EBUSY


def test_without_quota_there_are_no_groups(root: int) -> None:
    assert btrfs.quota(root) == btrfs.Quota()
    assert btrfs.groups(root) == {}


def test_groups_of_more_subvolumes_than_one_search_gives_are_all_there(root: int) -> None:
    btrfs.enable_quota(root, simple=True)
    for number in range(600):
        btrfs.create_subvolume(root, f"number{number}")
    btrfs.commit(root)
    assert len([one for one in btrfs.groups(root) if one >= 256]) == 600
    assert len(btrfs.subvolumes(root)) == 600


def test_what_a_file_system_says_of_itself(btrfs_disk: Loop, root: int) -> None:
    shown = progs("filesystem", "show", "--raw", btrfs_disk.place)
    seen = btrfs.filesystem(root)
    assert f"uuid: {seen.uuid}" in shown
    (device,) = btrfs.devices(root)
    assert f"size {device.size} used {device.used} path {device.path}" in shown
    assert btrfs.device_errors(root, device.number).total == 0
    write(btrfs_disk.place / "file", 3 * MIB)
    btrfs.sync(root)
    spaces = btrfs.spaces(root)
    assert spaces["data"].used == 3 * MIB
    assert 0 < spaces["metadata"].used < spaces["metadata"].total
    assert 0 < spaces["reserve"].total < spaces["metadata"].total


def test_a_stream_is_received_by_btrfs_progs(
    btrfs_disk: Loop, root: int, make_btrfs: Callable[..., Loop]
) -> None:
    other = make_btrfs("other")
    btrfs.create_subvolume(root, "one")
    write(btrfs_disk.place / "one" / "file", 5 * MIB)
    numbers = []
    for name in ("first", "second"):
        with opened(btrfs_disk.place / "one") as one:
            btrfs.create_snapshot(root, name, one, read_only=True)
        (btrfs_disk.place / "one" / name).write_text("new")
        with opened(btrfs_disk.place / name) as snapshot:
            numbers.append(btrfs.subvolume(snapshot).id)
            given = sent(snapshot, parent=numbers[0] if len(numbers) > 1 else 0)
        subprocess.run(["btrfs", "receive", other.place], input=given, check=True, capture_output=True)
    assert len(given) < MIB
    assert (other.place / "second" / "file").read_bytes() == (btrfs_disk.place / "one" / "file").read_bytes()
    assert (other.place / "second" / "first").read_text() == "new"
    with opened(other.place / "second") as received, opened(btrfs_disk.place / "second") as original:
        assert btrfs.subvolume(received).received == btrfs.subvolume(original).uuid


def sent(snapshot: int, parent: int) -> bytes:
    reader, writer = os.pipe()
    pieces: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            pieces.append(file.read())

    reading = threading.Thread(target=read)
    reading.start()
    btrfs.send(snapshot, writer, parent=parent)
    os.close(writer)
    reading.join()
    return pieces[0]


def test_bytes_of_a_snapshots_source_are_counted_while_it_leads_to_them(btrfs_disk: Loop, root: int) -> None:
    btrfs.enable_quota(root, simple=True)
    btrfs.create_subvolume(root, "one")
    for name in ("kept", "changed", "deleted"):
        write(btrfs_disk.place / "one" / name, 8 * MIB)
    (btrfs_disk.place / "one" / "small").write_text("inside its inode")
    with opened(btrfs_disk.place / "one") as one:
        btrfs.create_snapshot(root, "two", one, read_only=False)
    with opened(btrfs_disk.place / "two") as two:
        born = btrfs.subvolume(two).made
        assert btrfs.older_bytes(two, born) == 24 * MIB
        write(btrfs_disk.place / "two" / "changed", 8 * MIB)
        write(btrfs_disk.place / "two" / "new", 8 * MIB)
        (btrfs_disk.place / "two" / "deleted").unlink()
        progs("filesystem", "sync", btrfs_disk.place)
        subprocess.run(["cp", "--reflink", "kept", "again"], cwd=btrfs_disk.place / "two", check=True)
        btrfs.sync(root)
        assert btrfs.older_bytes(two, born) == 8 * MIB
        assert btrfs.groups(root)[btrfs.subvolume(two).id].referenced == pytest.approx(16 * MIB, rel=0.01)
