"""Images that are one tar: of a web server or a stream, and those that somebody made to harm."""

import hashlib
import json
import shutil
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from core0.images import archive as subject
from core0.images import room
from core0.images.model import Image, Job, PullError, parse_reference, sources_of
from core0.images.pull import pull
from core0.wire import pieces
from core0.wire.images import ImagesConfig
from tests.core0.images.registry import (
    Registry,
    archive_of,
    digest_of,
    entry,
    serving_folder,
    tar_of,
)
from tests.vm.layouts import write_layout

pytestmark = pytest.mark.usefixtures("mkfs")
TAR = tar_of(entry("hello", bytes(range(256)) * 1000))
Entries = Sequence[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout of one image."""
    folder = tmp_path / "served/demo"
    write_layout(folder, TAR)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where the puller may write."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def load(data: bytes, work: Path, wanted: str = "", end: bool = True) -> Image:
    """Have the puller take a stream."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with ours:
            try:
                for at in range(0, len(data), 50_000):
                    pieces.send(ours, data[at : at + 50_000])
                if end:
                    pieces.send(ours, b"")
            except OSError:  # it had seen enough
                pass

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    reference = parse_reference("local:demo")
    named = type(reference)(reference.kind, reference.base, wanted)
    try:
        return pull(Job(named, str(work), (), 1 << 30, (), stream=theirs.detach()))
    finally:
        sender.join(30)


def test_a_tar_on_a_web_server_is_an_image(layout: Path, work: Path) -> None:
    (layout.parent / "demo.tar").write_bytes(archive_of(layout))
    with serving_folder(layout.parent) as origin:
        wanted = parse_reference(f"{origin}/demo.tar#latest")
        sources = sources_of(wanted, ImagesConfig())
        image = pull(Job(wanted, str(work), (), 1 << 30, sources))
        absent = parse_reference(f"{origin}/absent.tar")
        with pytest.raises(PullError, match="404"):
            pull(Job(absent, str(work), (), 1 << 30, sources_of(absent, ImagesConfig())))
    assert image.layers == (digest_of(TAR),)
    assert [path.name for path in work.iterdir()] == [f"{digest_of(TAR)[len('sha256:') :]}.erofs"]


def test_a_tar_of_a_server_that_breaks_off_is_for_another_try(
    registry: Registry, layout: Path, work: Path
) -> None:
    data = archive_of(layout)

    def before(request: object) -> bool:
        request.send_response(200)  # type: ignore[attr-defined]
        request.send_header("Content-Length", str(len(data)))  # type: ignore[attr-defined]
        request.end_headers()  # type: ignore[attr-defined]
        request.wfile.write(data[:3000])  # type: ignore[attr-defined]
        return True

    registry.before = before
    wanted = parse_reference(f"{registry.origin}/x.tar")
    with pytest.raises(OSError, match="ended early"):
        pull(Job(wanted, str(work), (), 1 << 30, sources_of(wanted, ImagesConfig())))
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("index_first", [True, False])
def test_the_index_may_come_first_or_last(layout: Path, work: Path, index_first: bool) -> None:
    names = sorted(path for path in layout.rglob("*") if path.is_file())
    names.sort(key=lambda path: path.name == "index.json", reverse=index_first)
    data = tar_of(*(entry(str(path.relative_to(layout)), path.read_bytes()) for path in names))
    assert load(data, work).layers == (digest_of(TAR),)


def test_one_of_several_images_is_chosen_by_its_name(layout: Path, work: Path) -> None:
    other = write_layout(layout, tar_of(entry("other")))
    assert other.exists()
    with pytest.raises(PullError, match="the layout has none that is called 'old'"):
        load(archive_of(layout), work, "old")
    assert load(archive_of(layout), work, "latest").layers == (digest_of(tar_of(entry("other"))),)


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs Debian's skopeo")
def test_what_skopeo_packs_is_taken(layout: Path, work: Path, tmp_path: Path) -> None:
    file = tmp_path / "skopeo.tar"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}:latest", f"oci-archive:{file}"], check=True)
    assert load(file.read_bytes(), work).layers == (digest_of(TAR),)


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs Debian's skopeo")
def test_what_an_older_docker_saved_is_told_how_to_convert(layout: Path, work: Path, tmp_path: Path) -> None:
    file = tmp_path / "docker.tar"
    subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}:latest", f"docker-archive:{file}:x:y"], check=True)
    with pytest.raises(PullError, match="skopeo copy docker-archive:FILE oci-archive:OTHER"):
        load(file.read_bytes(), work)


def files_of(layout: Path) -> Entries:
    return [
        entry(str(path.relative_to(layout)), path.read_bytes())
        for path in sorted(layout.rglob("*"))
        if path.is_file()
    ]


def damaged(files: Entries) -> Entries:
    return [(info, content[:-1] + b"?" if "blobs" in info.name else content) for info, content in files]


WRONG = "blobs/sha256/" + "0" * 64
HOSTILE: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "a damaged blob": (damaged, "has another digest; it is damaged or was tampered with"),
    "a blob by another's digest": (lambda files: [entry(WRONG, b"x"), *files], "has another digest"),
    "a blob less": (lambda files: files[1:], "it has no blob sha256:"),
    "a way out": (lambda files: [entry("../../etc/passwd", b"x"), *files], "leads outside by '..'"),
    "a way out of blobs": (lambda files: [entry("blobs/sha256/../x", b"x"), *files], "leads outside"),
    "a link": (
        lambda files: [entry("blobs", type=tarfile.SYMTYPE, linkname="/etc"), *files],
        "'blobs' is no file and no folder",
    ),
    "a hard link": (
        lambda files: [entry(WRONG, type=tarfile.LNKTYPE, linkname="index.json"), *files],
        "is no file and no folder",
    ),
    "a device": (lambda files: [entry("x", type=tarfile.CHRTYPE), *files], "is a device node"),
    "two indexes": (lambda files: [*files, entry("./index.json", b"{}")], "it has './index.json' twice"),
    "an index that is none": (
        lambda files: [entry("index.json", b"{"), *(one for one in files if one[0].name != "index.json")],
        "cannot read the image's index",
    ),
    "a large index": (lambda _: [entry("index.json", bytes(5 << 20))], "its index.json is over"),
    "nothing": (lambda _: [], "it has no index.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_is_wrong_is_refused_and_leaves_nothing(layout: Path, work: Path, name: str) -> None:
    change, told = HOSTILE[name]
    with pytest.raises(PullError, match=told):
        load(tar_of(*change(files_of(layout))), work)
    assert list(work.iterdir()) == []


def test_an_absolute_name_is_only_a_name(layout: Path, work: Path) -> None:
    victim = work.parent / "victim"
    assert load(tar_of(entry(str(victim), b"x"), *files_of(layout)), work)
    assert not victim.exists()


def test_blobs_of_other_sizes_than_their_parents_say_are_refused(layout: Path, work: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["size"] += 1
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(PullError, match="that its parent names"):
        load(archive_of(layout), work)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"\x1f\x8b" + bytes(2000), "it is compressed by gzip; unpack it", id="gzip"),
        pytest.param(b"\x28\xb5\x2f\xfd" + bytes(2000), "it is compressed by zstd", id="zstd"),
        pytest.param(b"PK" + b"x" * 2000, "it is no tar, or damaged", id="no tar"),
        pytest.param(b"", "it has no index.json", id="nothing"),
    ],
)
def test_what_is_no_plain_tar_is_told(work: Path, data: bytes, told: str) -> None:
    with pytest.raises(PullError, match=told):
        load(data, work)


def test_a_stream_that_is_cut_is_told_and_leaves_nothing(layout: Path, work: Path) -> None:
    for length in (0, 700, 5000):
        with pytest.raises(PullError, match="the stream was cut before its end; send it again"):
            load(archive_of(layout)[:length], work, end=False)
    with pytest.raises(PullError, match="it ends within an entry"):
        load(archive_of(layout)[:3000], work)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(("limit", "value"), [("LARGEST", 2000), ("MOST_BLOBS", 3)])
def test_an_archive_is_not_larger_than_is_good(
    layout: Path, work: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(subject, limit, value)
    with pytest.raises(PullError, match="it is larger than"):
        load(archive_of(layout), work)
    assert list(work.iterdir()) == []


def test_memory_that_is_short_ends_an_archive(
    layout: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise PullError("cannot pull the image: no memory")

    monkeypatch.setattr(room, "check_room", full)
    with pytest.raises(PullError, match="no memory"):
        load(archive_of(layout), work)
    assert list(work.iterdir()) == []


def test_what_is_sent_behind_the_end_for_ever_is_not_waited_for(layout: Path, tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield archive_of(layout)
        while True:
            yield bytes(1 << 20)

    spool = subject.Spool(tmp_path / "spool", "it", lambda _: None)
    spool.fill(endless())
    assert b"manifests" in spool.small("index.json")[0]


def test_a_blob_is_read_from_where_it_is_wanted(tmp_path: Path) -> None:
    content = bytes(range(256))
    digest = hashlib.sha256(content).hexdigest()
    data = tar_of(entry("index.json", b"{}"), entry(f"./blobs/sha256/{digest}", content))
    spool = subject.Spool(tmp_path / "spool", "it", lambda _: None)
    spool.fill(data[at : at + 100] for at in range(0, len(data), 100))
    wanted = subject.Descriptor("x", f"sha256:{digest}", 256)
    assert b"".join(spool.blob(wanted, 100)) == content[100:]
    assert spool.small("index.json") == (b"{}", "application/json")
    with pytest.raises(PullError, match="it has no other"):
        spool.small("other")
