"""Layers of every kind through the puller and the image's mkfs.erofs, seen as the kernel mounts them."""

import contextlib
import gzip
import json
import os
import resource
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from core0.images import room
from core0.images.model import PullError
from core0.images.mounted import MountedLayers
from core0.images.pull import pull
from core0.images.unpack import WINDOW_LOG
from corex.files.untar import MOST_ENTRIES
from tests.core0.images.registry import LAYER, MANIFEST, Registry, digest_of, entry, gzipped, tar_of

pytestmark = pytest.mark.usefixtures("mkfs")
Mount = Callable[[Path], AbstractContextManager[Path]]
HELLO = tar_of(entry("hello", b"hello\n" * 50_000))
needs_zstd = pytest.mark.skipif(not shutil.which("zstd"), reason="needs Debian's zstd")


def zstd(data: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-c", *options], input=data, capture_output=True, check=True).stdout


def layer_of(folder: Path, tar: bytes) -> Path:
    return folder / f"{digest_of(tar).removeprefix('sha256:')}.erofs"


@pytest.mark.parametrize(
    ("pack", "kind"),
    [
        pytest.param(lambda tar: tar, "", id="plain"),
        pytest.param(lambda tar: gzip.compress(tar, mtime=0), "+gzip", id="gzip"),
        pytest.param(
            lambda tar: gzip.compress(tar[:700], mtime=0) + gzip.compress(tar[700:], mtime=0),
            "+gzip",
            id="gzip in members",
        ),
        pytest.param(zstd, "+zstd", id="zstd", marks=needs_zstd),
        pytest.param(
            lambda tar: zstd(tar[:700]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(tar[700:]),
            "+zstd",
            id="zstd in frames, one of them to skip",
            marks=needs_zstd,
        ),
        pytest.param(
            lambda tar: zstd(tar, "--ultra", "-20", f"--zstd=wlog={WINDOW_LOG}"),
            "+zstd",
            id="zstd with the largest window",
            marks=needs_zstd,
        ),
    ],
)
def test_a_layer_of_any_packing_becomes_the_same_file_system(
    registry: Registry, tmp_path: Path, pack: Callable[[bytes], bytes], kind: str
) -> None:
    registry.push((HELLO, pack(HELLO), kind))
    image = pull(registry.job(tmp_path))
    assert image.layers == (digest_of(HELLO),)
    assert b"hello\nhello\n" in layer_of(tmp_path, HELLO).read_bytes()


@pytest.mark.root
def test_containers_share_what_was_read_of_a_layer(registry: Registry, tmp_path: Path) -> None:
    """Each mount of the file would be a file system of its own, with its own pages of it."""
    registry.push(gzipped(HELLO))
    pull(registry.job(tmp_path))
    file, folder = layer_of(tmp_path, HELLO), tmp_path / "mounted"
    layers = MountedLayers(folder)
    copies = [layers.copy(file), layers.copy(file), MountedLayers(folder).copy(file)]
    try:
        assert len({os.stat("hello", dir_fd=copy).st_dev for copy in copies}) == 1
        layers.drop([file])
        assert not list(folder.iterdir())
        assert os.stat("hello", dir_fd=copies[0]).st_size == 300_000, "who has a copy keeps it"
    finally:
        layers.drop([file])
        for copy in copies:
            os.close(copy)


def test_padding_behind_the_archive_belongs_to_the_layer(registry: Registry, tmp_path: Path) -> None:
    padded = HELLO + bytes(4 << 20)
    registry.push(gzipped(padded))
    assert pull(registry.job(tmp_path)).layers == (digest_of(padded),)


@pytest.mark.root
def test_what_a_layer_says_of_files_is_what_the_kernel_sees(
    registry: Registry, tmp_path: Path, mounted: Mount
) -> None:
    capability = bytes.fromhex("0000000200200000000000000000000000000000").decode("latin-1")
    tar = tar_of(
        entry("etc", type=tarfile.DIRTYPE, mode=0o750),
        entry("etc/.wh.old"),
        entry("etc/.wh..wh..opq"),
        entry("bin/ping", b"ping", mode=0o4755, uid=5, gid=6, pax_headers={
            "SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.colour": "green"}),
        entry("bin/ping4", type=tarfile.LNKTYPE, linkname="bin/ping"),
        entry("run/initctl", type=tarfile.FIFOTYPE),
        entry("/sbin", type=tarfile.SYMTYPE, linkname="/../../bin"),
        entry("long/" + "n" * 255, b"long"),
    )  # fmt: skip
    registry.push(gzipped(tar))
    pull(registry.job(tmp_path))
    with mounted(layer_of(tmp_path, tar)) as root:
        whiteout = (root / "etc/old").stat()
        assert (stat.S_ISCHR(whiteout.st_mode), whiteout.st_rdev) == (True, 0)
        assert os.getxattr(root / "etc", "trusted.overlay.opaque") == b"y"
        assert stat.S_IMODE((root / "etc").stat().st_mode) == 0o750
        ping = (root / "bin/ping").stat()
        assert (ping.st_uid, ping.st_gid, stat.S_IMODE(ping.st_mode), ping.st_nlink) == (5, 6, 0o4755, 2)
        assert (root / "bin/ping").samefile(root / "bin/ping4")
        assert os.getxattr(root / "bin/ping", "user.colour") == b"green"
        assert os.getxattr(root / "bin/ping", "security.capability")[:4] == b"\0\0\0\2"
        assert stat.S_ISFIFO((root / "run/initctl").stat().st_mode)
        assert (root / "sbin").readlink() == Path("/../../bin")
        assert (root / "long" / ("n" * 255)).read_bytes() == b"long"


NODE = entry("dev/sda", type=tarfile.BLKTYPE, devmajor=8)
OVERLAY = {"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
HOSTILE = {
    "a disk": (tar_of(NODE), "'dev/sda' is a device node"),
    "a character device": (tar_of(entry("null", type=tarfile.CHRTYPE)), "'null' is a device node"),
    "dots": (tar_of(entry("a/../../etc/passwd", b"x")), "leads outside"),
    "dots behind a slash": (tar_of(entry("/../etc/passwd", b"x")), "leads outside"),
    "a hard link with dots": (
        tar_of(entry("x", type=tarfile.LNKTYPE, linkname="../etc/shadow")),
        "the hard link 'x' leads outside",
    ),
    "a hard link to nothing of it": (
        tar_of(entry("x", type=tarfile.LNKTYPE, linkname="/etc/shadow")),
        "cannot convert layer",
    ),
    "a whiteout of its parent": (tar_of(entry("a/.wh...")), "removes no name of its own folder"),
    "a way for overlayfs": (tar_of(entry("x", pax_headers=OVERLAY)), "trusted.overlay.redirect"),
    "a long name": (tar_of(entry("n" * 256)), "over 255 bytes"),
    "a long path": (tar_of(entry("a/" * 2100 + "b")), "or 4096 in all"),
    "a long link": (tar_of(entry("a", type=tarfile.SYMTYPE, linkname="b/" * 2100)), "leads to over"),
    "no tar": (b"hello" * 500, "no tar, or damaged"),
    "a cut one": (HELLO[:5000], "ends within an entry"),
    "sparse": (HELLO[:156] + b"S" + HELLO[157:], "checksum"),
}


@pytest.mark.parametrize(("tar", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_layer_is_refused_with_its_reason_and_leaves_nothing(
    registry: Registry, tmp_path: Path, tar: bytes, told: str
) -> None:
    registry.push(gzipped(tar))
    with pytest.raises(PullError) as refused:
        pull(registry.job(tmp_path))
    assert told in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def bomb_of_gzip() -> bytes:
    return gzip.compress(bytes(80 << 20), 9)


@pytest.mark.parametrize(
    ("blob", "kind", "told"),
    [
        pytest.param(bomb_of_gzip, "+gzip", "is over 200 times its size", id="a bomb of gzip"),
        pytest.param(
            lambda: zstd(bytes(80 << 20)), "+zstd", "is over 200 times", id="a bomb of zstd", marks=needs_zstd
        ),
        pytest.param(
            lambda: zstd(os.urandom(3000) * 9, "--ultra", "-20", f"--zstd=wlog={WINDOW_LOG + 1}"),
            "+zstd",
            "Frame requires too much memory",
            id="a window of 64 MiB",
            marks=needs_zstd,
        ),
        pytest.param(lambda: gzip.compress(HELLO)[:-9], "+gzip", "ends early", id="gzip that ends early"),
        pytest.param(lambda: b"", "+gzip", "ends early", id="no gzip at all"),
        pytest.param(
            lambda: zstd(HELLO)[:-9], "+zstd", "ends early", id="zstd that ends early", marks=needs_zstd
        ),
        pytest.param(lambda: HELLO, "+zstd", "Unknown frame descriptor", id="no zstd"),
        pytest.param(lambda: HELLO, "+gzip", "incorrect header", id="no gzip"),
        pytest.param(lambda: HELLO, "+xz", "build it with gzip or zstd", id="another packing"),
    ],
)
def test_a_blob_that_does_not_unpack_within_limits_is_refused(
    registry: Registry, tmp_path: Path, blob: Callable[[], bytes], kind: str, told: str
) -> None:
    registry.push((HELLO, blob(), kind))
    with pytest.raises(PullError, match="layer sha256:") as refused:
        pull(registry.job(tmp_path))
    assert told in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_unpacks_to_another_tar_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.push((tar_of(entry("other", b"x")), gzip.compress(HELLO), "+gzip"))
    with pytest.raises(PullError, match=r"unpacked it is sha256:\w+, not sha256:"):
        pull(registry.job(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("available", "told"),
    [
        pytest.param(60, "60 MiB of memory are available, of which 64 are kept", id="none left"),
        pytest.param(80, "this layer alone needs 24 more; remove images", id="none for the copy"),
        pytest.param(200, "", id="enough"),
    ],
)
def test_a_layer_that_memory_has_no_room_for_ends_while_it_comes(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: int, told: str
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {1 << 20} kB\nMemAvailable: {available << 10} kB\nHugePages_Total: 0\n")
    monkeypatch.setattr(room, "_MEMINFO", meminfo)
    tar = tar_of(entry("large", os.urandom(30 << 20)))
    registry.push((tar, tar, ""))
    (tmp_path / "work").mkdir()
    if told:
        with pytest.raises(PullError, match=told):
            pull(registry.job(tmp_path / "work"))
        assert list((tmp_path / "work").iterdir()) == []
    else:
        assert pull(registry.job(tmp_path / "work")).layers == (digest_of(tar),)


TEN_MILLION = 10_000_000


def test_ten_million_entries_end_at_the_limit_and_are_not_even_fetched(
    registry: Registry, tmp_path: Path
) -> None:
    """Whoever has the registry may send them for ever: what is read ends with the entry that is too much."""
    many = [tar_of(entry(f"{number:06}"))[:512] for number in range(1000)]
    sent = [0]

    def before(request: Any) -> bool:
        if not request.path.endswith(endless["digest"]):
            return False
        request.send_response(200)
        request.send_header("Content-Length", str(TEN_MILLION * 512))
        request.end_headers()
        with contextlib.suppress(ConnectionError):
            for _ in range(TEN_MILLION // len(many)):
                request.wfile.write(b"".join(many))
                sent[0] += len(many)
        return True

    registry.push((HELLO, HELLO, ""))
    manifest = json.loads(registry.content["demo:latest"][0])
    endless = {"mediaType": LAYER, "digest": "sha256:" + "e" * 64, "size": TEN_MILLION * 512}
    manifest["layers"] = [endless]
    registry.tag(json.dumps(manifest).encode(), MANIFEST, "demo:latest")
    registry.before = before
    before_all = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PullError, match="it has over 500000 entries"):
        pull(registry.job(tmp_path))
    assert sent[0] < MOST_ENTRIES * 2, "the connection was closed"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_all < 64 << 10, "KiB of this process"
    assert list(tmp_path.iterdir()) == []
