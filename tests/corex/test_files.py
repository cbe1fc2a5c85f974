"""A container's files: what Core-X opens, what it refuses, and what is left when something goes wrong."""

import asyncio
import errno
import io
import os
import socket
import ssl
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corex.files import hands as hands_module
from corex.files.hands import Hands, HungError
from corex.files.look import list_folder, look
from corex.files.pack import Unpacking, pack
from corex.files.resolve import FileError, Root
from corex.files.untar import TarError
from corex.files.write import Ids, Removal, draft, make_folder
from corex.rest import files as rest

MINE = Ids(os.geteuid(), os.getegid())


def anything(_etag: str | None) -> None:
    """The check of a change that is wanted in any case."""


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A container's root, with something beside it that nobody in it may reach."""
    (tmp_path / "secret").write_text("of the node")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("web:x:1000:1001::/:/bin/sh\n")
    return root


@pytest.fixture
def root(inside: Path) -> Iterator[Root]:
    descriptor = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield Root(descriptor)
    os.close(descriptor)


def content(root: Root, path: bytes) -> bytes:
    with root.file(path) as file:
        return os.read(file.fd, 1000)


def write(root: Root, path: bytes, data: bytes, mode: int | None = None, owner: Ids | None = None) -> bool:
    made = draft(root, path, mode, owner, anything)
    try:
        made.write(data)
        return made.commit(anything)
    finally:
        made.close()


# Resolving.


@pytest.mark.parametrize(
    ("target", "path"),
    [
        pytest.param("../../../../secret", b"/link", id="relative link out"),
        pytest.param("/../../secret", b"/link", id="absolute link out"),
        pytest.param("..", b"/link/link/secret", id="folder link out"),
        pytest.param("/", b"/link/../secret", id="link to the root, then up"),
        pytest.param("x", b"/../secret", id="no link"),
    ],
)
def test_nothing_outside_is_reached(inside: Path, root: Root, target: str, path: bytes) -> None:
    (inside / "link").symlink_to(target)
    with pytest.raises(FileNotFoundError):
        root.file(path)
    assert write(root, path.rpartition(b"/")[0] + b"/secret", b"mine") in (True, False)
    assert (inside.parent / "secret").read_text() == "of the node"


def test_absolute_links_lead_below_the_root(inside: Path, root: Root) -> None:
    (inside / "link").symlink_to("/etc/passwd")
    assert content(root, b"/link").startswith(b"web:")


@pytest.mark.parametrize(
    "path",
    [
        b"/proc/self/mem",
        b"/proc/self/environ",
        b"/proc/1/status",
        b"/proc/sys/kernel/hostname",
        b"/sys/kernel/notes",
    ],
)
def test_what_is_the_kernels_is_refused(path: bytes) -> None:
    with pytest.raises(FileError, match="is the kernel's, not the container's"):
        Root(None).file(path)


@pytest.mark.parametrize("path", [b"/proc/self/root/etc/passwd", b"/proc/self/fd/0", b"/proc/self/cwd/x"])
def test_links_of_proc_are_not_followed(path: bytes) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011
        Root(None).file(path)
    assert refused.value.errno == errno.ELOOP


def test_a_fifo_is_refused_without_its_writer_noticing(inside: Path, root: Root) -> None:
    os.mkfifo(inside / "fifo")
    writer = threading.Thread(target=lambda: (inside / "fifo").write_text("for a reader"), daemon=True)
    writer.start()
    with pytest.raises(FileError, match="is no regular file"):
        root.file(b"/fifo")
    with pytest.raises(FileError, match="is no regular file"):
        write(root, b"/fifo", b"x")
    assert writer.is_alive(), "it waits for somebody who reads"
    assert (inside / "fifo").read_text() == "for a reader"
    writer.join(10)


@pytest.mark.parametrize("kind", ["socket", "folder"])
def test_what_is_no_file_is_refused(inside: Path, root: Root, kind: str) -> None:
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(inside / "it"))
    else:
        (inside / "it").mkdir()
    with pytest.raises(FileError, match=r"is no regular file|is a folder"):
        root.file(b"/it")
    with pytest.raises(FileError, match=r"is no regular file|is a folder"):
        write(root, b"/it", b"x")


def test_a_path_that_is_swapped_again_and_again_never_leads_out(inside: Path, root: Root) -> None:
    """A folder and a link that leads out take turns under one name."""
    (inside / "a").mkdir()
    (inside / "a/secret").write_text("inside")
    (inside / "b").symlink_to("../..")
    ends = threading.Event()

    def swap() -> None:
        place = os.open(inside, os.O_PATH)
        while not ends.is_set():
            for step in (("a", "c"), ("b", "a"), ("a", "b"), ("c", "a")):
                os.rename(*step, src_dir_fd=place, dst_dir_fd=place)
        os.close(place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    for _ in range(2000):
        try:
            seen.add(content(root, b"/a/secret"))
            seen.add(content(root, b"/a/../a/secret"))
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.EAGAIN)  # noqa: PT017
    ends.set()
    swapper.join()
    assert seen <= {b"inside"}


# Writing.


def test_what_is_replaced_keeps_its_owner_and_mode(inside: Path, root: Root) -> None:
    assert write(root, b"/new", b"1")
    assert stat.S_IMODE((inside / "new").stat().st_mode) == 0o644
    (inside / "new").chmod(0o4750)
    if os.geteuid() == 0:
        os.chown(inside / "new", 7, 8)
        (inside / "new").chmod(0o4750)
    before = (inside / "new").stat()
    assert not write(root, b"/new", b"2")
    after = (inside / "new").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    write(root, b"/new", b"3", 0o600, MINE)
    assert (stat.S_IMODE((inside / "new").stat().st_mode), (inside / "new").stat().st_uid) == (
        0o600,
        MINE.uid,
    )


def test_a_link_is_not_written_through(inside: Path, root: Root) -> None:
    (inside / "link").symlink_to("etc/passwd")
    with pytest.raises(FileError, match="is a symbolic link"):
        write(root, b"/link", b"x")


def test_readers_see_the_old_or_the_new_and_nothing_else_is_left(inside: Path, root: Root) -> None:
    write(root, b"/it", b"a" * 1000)
    made = draft(root, b"/it", None, None, anything)
    made.write(b"b" * 500)
    assert (inside / "it").read_bytes() == b"a" * 1000
    (half,) = [one for one in inside.iterdir() if one.name.startswith(".zn-")]
    assert stat.S_IMODE(half.stat().st_mode) == 0o600, "nobody reads it before it is whole"
    made.close()
    made.close()
    assert sorted(one.name for one in inside.iterdir()) == ["etc", "it"]


def test_a_draft_replaces_nothing_that_came_meanwhile_unasked(inside: Path, root: Root) -> None:
    tags: list[str | None] = []
    made = draft(root, b"/it", None, None, anything)
    (inside / "it").write_text("somebody else's")
    assert not made.commit(tags.append)
    assert tags[0], "the check is told of what is there by now"
    made.close()


# Folders.


def test_pages_cover_a_folder_once_in_order(inside: Path, root: Root) -> None:
    (inside / "many").mkdir()
    names = [b"%03d" % number for number in range(25)] + [b"\xff\xfe", b"a b&c%", "ü".encode()]
    for name in names:
        (inside / "many" / os.fsdecode(name)).touch()
    seen: list[str] = []
    after: bytes | None = b""
    while after is not None:
        page = list_folder(root, b"/many/", after, 10)
        seen += [one.path for one in page.entries]
        after = (
            None
            if page.next is None
            else os.fsencode(page.next.replace("%FF", "\udcff").replace("%FE", "\udcfe"))
        )
    assert seen == [quote(b"/many/" + name, safe="/") for name in sorted(names)]


def test_all_parents_are_made_however_many(inside: Path, root: Root) -> None:
    deep = b"/a" * 1500
    info, is_new = make_folder(root, deep, 0o750, MINE, parents=True)
    assert (info.kind, info.mode, is_new) == ("folder", "0750", True)
    assert make_folder(root, deep, 0o700, None, parents=True)[1] is False
    with pytest.raises(FileNotFoundError):
        make_folder(root, b"/b/c", 0o755, None, parents=False)
    removal = Removal(root, b"/a", recursive=True)
    while removal.step():
        pass
    assert (removal.entries, (inside / "a").exists()) == (1500, False)


def test_a_folder_goes_only_with_what_is_in_it_and_links_are_not_followed(inside: Path, root: Root) -> None:
    (inside / "kept").mkdir()
    (inside / "kept/file").touch()
    (inside / "gone").mkdir()
    for number in range(1200):
        (inside / f"gone/{number}").touch()
    (inside / "gone/link").symlink_to("/kept")
    with pytest.raises(OSError) as refused:  # noqa: PT011
        Removal(root, b"/gone", recursive=False).step()
    assert refused.value.errno == errno.ENOTEMPTY
    removal = Removal(root, b"/gone/", recursive=True)
    steps = 1
    while removal.step():
        steps += 1
    assert (removal.entries, steps) == (1202, 3)
    assert (inside / "kept/file").exists()
    assert look(root, b"/").kind == "folder"


# Archives.


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    found: dict[str, tuple[int, bytes | str]] = {}
    for one in sorted(folder.rglob("*")):
        status = one.lstat()
        if one.is_symlink():
            found[str(one.relative_to(folder))] = (0, str(one.readlink()))
        else:
            found[str(one.relative_to(folder))] = (status.st_mode, one.read_bytes() if one.is_file() else b"")
    return found


def unpack(inside: Path, data: bytes, **options: Any) -> Unpacking:
    folder = Root(os.open(inside, os.O_PATH | os.O_DIRECTORY)).folder(b"/")
    unpacking = Unpacking(folder, options.pop("owner", MINE), keep_owner=options.pop("keep_owner", False))
    try:
        for at in range(0, len(data), 700):
            unpacking.feed(data[at : at + 700])
        unpacking.end()
    finally:
        unpacking.close()
    return unpacking


def test_what_is_packed_is_unpacked_again(tmp_path: Path, inside: Path, root: Root) -> None:
    folder = inside / "from"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "sub").chmod(0o750)
    (folder / "sub" / ("n" * 150)).write_bytes(os.urandom(700_000))
    (folder / os.fsdecode(b"\xff")).write_text("odd")
    (folder / "link").symlink_to("/nowhere")
    (folder / "one").write_text("1")
    os.link(folder / "one", folder / "two")
    os.mkfifo(folder / "fifo")
    data = b"".join(pack(root, b"/from"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames()[0] == "."
    to = tmp_path / "to"
    to.mkdir()
    done = unpack(to, data)
    (folder / "fifo").unlink()
    assert tree(to) == tree(folder)
    assert done.bytes == 700_004
    assert (to / "one").stat().st_ino == (to / "two").stat().st_ino
    assert int((to / "one").stat().st_mtime) == int((folder / "one").stat().st_mtime)
    unpack(to, data)
    assert tree(to) == tree(folder), "again over what is there"


def tar_of(
    *members: tuple[str, dict[str, Any]], data: bytes = b"evil", form: int = tarfile.PAX_FORMAT
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, fields in members:
            member = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(member, field, value)
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param([("/abs", {})], "is absolute", id="absolute"),
        pytest.param([("../secret", {})], "leads outside", id="up"),
        pytest.param([("a/../../secret", {})], "leads outside", id="down and up"),
        pytest.param(
            [("l", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("l/secret", {})],
            "is a link or a file",
            id="through a link",
        ),
        pytest.param(
            [("h", {"type": tarfile.LNKTYPE, "linkname": "../secret"})], "leads outside", id="hard link out"
        ),
        pytest.param(
            [
                ("l", {"type": tarfile.SYMTYPE, "linkname": "../secret"}),
                ("h", {"type": tarfile.LNKTYPE, "linkname": "l"}),
            ],
            "which is no file",
            id="hard link to a link",
        ),
        pytest.param([("d", {"type": tarfile.CHRTYPE})], "device node or a FIFO", id="device"),
        pytest.param([("d", {"type": tarfile.FIFOTYPE})], "device node or a FIFO", id="fifo"),
        pytest.param([("d", {"type": b"V"})], "unknown type", id="unknown"),
        pytest.param([("n" * 300, {})], "longer than", id="long name"),
        pytest.param([("f", {}), ("f/below", {})], "is a link or a file", id="below a file"),
        pytest.param([("u", {"uid": 2**32 - 1})], "belongs to nobody", id="no user"),
        pytest.param([("g", {"gid": 10**15})], "belongs to nobody", id="no group"),
        pytest.param([("l", {"type": tarfile.SYMTYPE, "linkname": ""})], "leads to nothing", id="empty link"),
        pytest.param(
            [("l", {"type": tarfile.SYMTYPE, "pax_headers": {"linkpath": "a\0b"}})],
            "leads to nothing",
            id="link with a zero byte",
        ),
    ],
)
def test_hostile_members_are_refused(
    inside: Path, members: list[tuple[str, dict[str, Any]]], reason: str
) -> None:
    with pytest.raises(TarError, match=reason):
        unpack(inside, tar_of(*members))
    assert (inside.parent / "secret").read_text() == "of the node"
    assert not (inside / "below").exists()


def test_a_tar_that_ends_early_leaves_no_half_file(inside: Path) -> None:
    data = tar_of(("whole", {}), ("half", {}), data=b"x" * 5000)
    with pytest.raises(TarError, match="ends within an entry"):
        unpack(inside, data[:8000])
    assert sorted(one.name for one in inside.iterdir()) == ["etc", "whole"]


def test_rights_of_an_archive_count_only_if_asked(inside: Path) -> None:
    data = tar_of(("s", {"mode": 0o4755, "uid": 5, "gid": 6}))
    unpack(inside, data)
    assert (inside / "s").stat().st_mode & 0o7777 == 0o755
    if os.geteuid() == 0:
        assert (inside / "s").stat().st_uid == 0
        unpack(inside, data, keep_owner=True)
        assert (inside / "s").stat().st_mode & 0o7777 == 0o4755
        assert ((inside / "s").stat().st_uid, (inside / "s").stat().st_gid) == (5, 6)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_refused_or_unpacked_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(tar_of(("a/b", {}), ("c", {"type": tarfile.SYMTYPE, "linkname": "a"}), ("c/../d", {})))
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    outer = tmp_path_factory.mktemp("damaged")
    (outer / "in").mkdir()
    with suppress(TarError, OSError, FileError):
        unpack(outer / "in", bytes(whole))
    assert [one.name for one in outer.iterdir()] == ["in"]


def test_times_that_nobody_lives_to_see_are_taken_for_late(inside: Path) -> None:
    unpack(inside, tar_of(("late", {"mtime": 2**80}), form=tarfile.GNU_FORMAT))
    # as late as the file system has it, in this millennium
    assert 2**32 < (inside / "late").stat().st_mtime <= 1 << 34


# Threads.


async def test_hands_go_when_there_is_nothing_to_do() -> None:
    before = set(threading.enumerate())
    hands = Hands(most=2, rest=0.05)
    names = await asyncio.gather(*(hands.do(lambda: threading.current_thread().name) for _ in range(20)))
    assert set(names) == {"files"}
    assert len(set(threading.enumerate()) - before) <= 2
    while set(threading.enumerate()) - before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert await hands.do(lambda: 7) == 7, "and come back"


async def test_storage_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands_module, "DEADLINE", 0.05)
    hands, goes_on, closed = Hands(), threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def hang() -> Late:
        goes_on.wait()
        return Late()

    with pytest.raises(HungError, match="did not answer"):
        await hands.do(hang)
    assert await hands.do(lambda: 1) == 1, "the others go on"
    goes_on.set()
    while not closed.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_where_no_thread_can_be_made_nothing_is_done_and_all_is_well_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hands, done = Hands(most=2), []

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(BlockingIOError, match="has as many processes as it may"):
                await hands.do(done.append, "refused")
        hands.later(done.append, "later")
    assert await hands.do(lambda: 7) == 7
    assert done == ["later"]
    assert await asyncio.gather(*(hands.do(lambda: 1) for _ in range(9))) == [1] * 9


# Over the wire.

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.mark.root
async def test_a_file_is_written_read_in_parts_and_deleted(browser: aiohttp.ClientSession) -> None:
    url = "/v1/fs/file?path=/tmp/a%20%FFb"
    data = os.urandom(3_000_000)
    async with browser.put(f"{url}&mode=0640&owner=web", data=io.BytesIO(data), headers=OCTETS) as answer:
        info = await answer.json()
        assert (answer.status, info["size"], info["mode"]) == (201, len(data), "0640")
        assert (info["uid"], info["gid"], info["name"]) == (1000, 1001, "a \\xffb")
        assert info["path"] == "/tmp/a%20%FFb"
    async with browser.get(url) as answer:
        assert await answer.read() == data
        etag = answer.headers["ETag"]
        assert (etag, answer.headers["Content-Disposition"]) == (info["etag"], "attachment")
    for header, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-", 1_000_000, 3_000_000),
        ("bytes=-5", 2_999_995, 3_000_000),
        ("bytes=2999999-9999999", 2_999_999, 3_000_000),
    ):
        async with browser.get(url, headers={"Range": header, "If-Range": etag}) as answer:
            assert (answer.status, answer.headers["Content-Range"]) == (
                206,
                f"bytes {start}-{end - 1}/3000000",
            )
            assert await answer.read() == data[start:end]
    for header in ("bytes=3000000-", "bytes=-0"):
        async with browser.get(url, headers={"Range": header}) as answer:
            assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */3000000")
    for header in ("bytes=5-4", "lines=1-2", "bytes=0-1,5-6", "bytes=-"):
        async with browser.get(url, headers={"Range": header}) as answer:
            assert (answer.status, answer.content_length) == (200, 3_000_000)
            answer.close()
    async with browser.get(url, headers={"Range": "bytes=0-0", "If-Range": '"other"'}) as answer:
        assert answer.status == 200
        answer.close()
    async with browser.get(url, headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    async with browser.head(url) as answer:
        assert (answer.status, answer.content_length) == (200, 3_000_000)
    for headers, status in (
        ({"If-None-Match": "*"}, 412),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": etag}, 200),
    ):
        async with browser.put(url, data=b"2", headers={**OCTETS, **headers}) as answer:
            assert answer.status == status
    async with browser.delete(url, headers={"If-Match": etag}) as answer:
        assert answer.status == 412
    async with browser.delete(url) as answer:
        assert answer.status == 204
    async with browser.get(url) as answer:
        assert answer.status == 404


@pytest.mark.root
@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        pytest.param("GET", "/v1/fs/file", 422, "path", id="no path"),
        pytest.param("GET", "/v1/fs/file?path=etc/passwd", 422, "path", id="relative"),
        pytest.param("GET", "/v1/fs/file?path=/etc/%00", 422, "zero byte", id="zero byte"),
        pytest.param("GET", "/v1/fs/file?path=/" + "a" * 10_000, 422, "path", id="long path"),
        pytest.param("GET", "/v1/fs/file?path=/" + "a" * 300, 422, "File name too long", id="long name"),
        pytest.param("GET", "/v1/fs/file?path=/etc", 409, "is a folder", id="folder"),
        pytest.param("GET", "/v1/fs/file?path=/missing", 404, "No such file", id="missing"),
        pytest.param("GET", "/v1/fs/file?path=/dev/null", 409, "no regular file", id="device"),
        pytest.param("GET", "/v1/fs/file?path=/etc/passwd/x", 409, "Not a directory", id="below a file"),
        pytest.param("GET", "/v1/fs/folder?path=/etc/passwd", 409, "Not a directory", id="no folder"),
        pytest.param("GET", "/v1/fs/folder?path=/&limit=0", 422, "limit", id="empty page"),
        pytest.param("PUT", "/v1/fs/file?path=/", 422, "names nothing", id="root"),
        pytest.param("PUT", "/v1/fs/file?path=/tmp/..", 422, "names nothing", id="up"),
        pytest.param("PUT", "/v1/fs/file?path=/tmp/x/", 422, "name of a folder", id="slash"),
        pytest.param("PUT", "/v1/fs/file?path=/no/where", 404, "No such file", id="no such folder"),
        pytest.param("PUT", "/v1/fs/file?path=/tmp/x&mode=9", 422, "mode", id="mode"),
        pytest.param("PUT", "/v1/fs/file?path=/tmp/x&owner=nobody-here", 422, "nobody-here", id="owner"),
        pytest.param("PUT", "/v1/fs/archive?path=/tmp", 422, "it is no tar", id="no tar"),
        pytest.param("DELETE", "/v1/fs/folder?path=/etc", 409, "not empty", id="not empty"),
        pytest.param(
            "DELETE", "/v1/fs/folder?path=/etc/passwd", 409, "is no folder", id="delete a file as a folder"
        ),
        pytest.param("DELETE", "/v1/fs/file?path=/etc", 409, "is a folder", id="delete a folder as a file"),
        pytest.param("DELETE", "/v1/fs/folder?path=/&recursive=true", 422, "names nothing", id="delete all"),
    ],
)
async def test_bad_input_is_a_problem(
    browser: aiohttp.ClientSession, method: str, path: str, status: int, says: str
) -> None:
    data = b"x" * 600 if method == "PUT" else None
    async with browser.request(method, path, data=data, headers=OCTETS if data else {}) as answer:
        found = await answer.json(content_type="application/problem+json")
        assert (answer.status, found["detail"][:7]) == (status, "cannot ")
        assert says in found["detail"]


@pytest.mark.root
async def test_folders_and_archives_over_the_wire(browser: aiohttp.ClientSession, busybox_root: Path) -> None:
    async with browser.put("/v1/fs/folder?path=/tmp/f/g&parents=true") as answer:
        assert (answer.status, (await answer.json())["kind"]) == (201, "folder")
    async with browser.put("/v1/fs/folder?path=/tmp/f/g") as answer:
        assert answer.status == 200
    data = tar_of(("g/one", {}), ("two", {}), data=b"x" * 400_000)
    async with browser.put("/v1/fs/archive?path=/tmp/f&owner=web", data=data, headers=OCTETS) as answer:
        assert (answer.status, await answer.json()) == (200, {"entries": 2, "bytes": 800_000})
    assert (busybox_root / "tmp/f/g/one").stat().st_uid == 1000
    async with browser.get("/v1/fs/folder?path=/tmp/f&limit=1") as answer:
        page = await answer.json()
        assert ([one["name"] for one in page["entries"]], page["next"]) == (["g"], "g")
    async with browser.get("/v1/fs/folder?path=/tmp/f&limit=1&after=g") as answer:
        page = await answer.json()
        assert ([one["name"] for one in page["entries"]], page["next"]) == (["two"], None)
    async with browser.get("/v1/fs/archive?path=/tmp/f") as answer:
        assert answer.content_type == "application/x-tar"
        with tarfile.open(fileobj=io.BytesIO(await answer.read())) as archive:
            assert sorted(archive.getnames()) == [".", "./g", "./g/one", "./two"]
    async with browser.get("/v1/fs/stat?path=/tmp/f/two") as answer:
        assert ((await answer.json())["kind"], answer.status) == ("file", 200)
    async with browser.delete("/v1/fs/folder?path=/tmp/f&recursive=true") as answer:
        assert await answer.json() == {"entries": 4}


@pytest.mark.root
async def test_half_a_body_leaves_what_was_there(
    core: Any, browser: aiohttp.ClientSession, busybox_root: Path
) -> None:
    async with browser.put("/v1/fs/file?path=/tmp/half", data=b"before", headers=OCTETS) as answer:
        assert answer.status == 201
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = core.endpoint.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    head = f"PUT /v1/fs/file?path=/tmp/half HTTP/1.1\r\nHost: {core.endpoint.address}\r\n"
    head += f"Authorization: Bearer {core.endpoint.token}\r\nContent-Type: application/octet-stream\r\n"
    writer.write(head.encode() + b"Content-Length: 1000000\r\n\r\n" + b"x" * 500_000)
    await writer.drain()
    folder = busybox_root / "tmp"
    await until(lambda: any(one.name.startswith(".zn-") for one in folder.iterdir()))
    writer.transport.abort()
    await until(lambda: not any(one.name.startswith(".zn-") for one in folder.iterdir()))
    assert (folder / "half").read_bytes() == b"before"


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Body:
    """A request whose body stands still."""

    async def read(self) -> bytes:
        await asyncio.sleep(3600)
        return b""


async def test_an_upload_that_stands_still_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "STALL", 0.02)

    class Stuck:
        raw = Body()

    with pytest.raises(rest.ProblemError) as refused:
        await rest._piece(Stuck())  # type: ignore[arg-type]
    assert (refused.value.problem.status, refused.value.headers["Connection"]) == (408, "close")


@pytest.fixture
def small(busybox_root: Path) -> Iterator[Path]:
    """A file system of a container that is soon full."""
    place = busybox_root / "tmp/small"
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place]).returncode:
        pytest.skip("cannot mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
async def test_a_full_disk_is_said_and_nothing_is_left(small: Path, browser: aiohttp.ClientSession) -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield b"x" * 65536

    for path, data in (
        ("file?path=/tmp/small/big", io.BytesIO(b"x" * 2_000_000)),
        ("file?path=/tmp/small/big", pieces()),
        ("archive?path=/tmp/small", io.BytesIO(tar_of(("a", {}), data=b"x" * 2_000_000))),
    ):
        async with browser.put(f"/v1/fs/{path}", data=data, headers=OCTETS) as answer:
            assert answer.status == 507
            assert "No space left" in (await answer.json(content_type=None))["detail"]
        await until(lambda: not list(small.iterdir()))


@pytest.mark.root
async def test_a_file_of_the_far_future_is_read(small: Path, browser: aiohttp.ClientSession) -> None:
    (small / "late").touch()
    os.utime(small / "late", (2**40, 2**40))
    async with browser.get("/v1/fs/file?path=/tmp/small/late") as answer:
        assert (answer.status, answer.headers["Last-Modified"][-17:]) == (200, "9999 23:59:59 GMT")


@pytest.mark.root
async def test_core_x_itself_is_out_of_reach(start: Any) -> None:
    """Without a root of its own this Core-X sees the machine's /proc: the worst case."""
    core = await start(None)
    for path in (
        "/proc/self/environ",
        "/proc/1/mem",
        "/proc/thread-self/maps",
        "/proc/1/root/etc/passwd",
    ):
        with pytest.raises(Exception, match=r"is the kernel's|Too many"):
            await core.client.read_file(path)


@pytest.mark.root
async def test_nothing_is_imported_for_files_after_the_fork(core: Any) -> None:
    await core.client.make_folder("/tmp/late/\udcff", parents=True)
    await core.client.write_file("/tmp/late/a", b"1", owner="web:29", mode="600", new=True)
    assert await core.client.read_file("/tmp/late/a") == b"1"
    async with core.client.open_archive("/tmp/late") as pieces:
        data = b"".join([piece async for piece in pieces])
    assert (await core.client.unpack("/tmp/late", data)).entries == 3
    page = await core.client.folder(b"/tmp/late")
    assert [one.path for one in page.entries] == ["/tmp/late/a", "/tmp/late/%FF"]
    assert (await core.client.delete_folder("/tmp/late", recursive=True)).entries == 3
    assert core.imported_late() == []
