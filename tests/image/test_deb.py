"""Reading Debian packages that are made here, by hand and by dpkg-deb."""

import io
import lzma
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from image import deb
from image.tree import Kind, TreeError

NAMES = st.text("abcdefghijklmnop.", min_size=1, max_size=15).filter(lambda name: name.strip(".") != "")


def ar(members: list[tuple[str, bytes]]) -> bytes:
    pieces = [b"!<arch>\n"]
    for name, content in members:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{0o100644:<8o}{len(content):<10}`\n"
        pieces += [header.encode(), content, b"\n" * (len(content) % 2)]
    return b"".join(pieces)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, target, mode
    return made


def package(data: bytes, name: str = "data.tar.xz") -> bytes:
    packed = {"xz": lzma.compress, "zst": zstandard.compress, "tar": bytes}[name.rsplit(".", 1)[-1]](data)
    return ar([("debian-binary", b"2.0\n"), ("control.tar.xz", lzma.compress(tar())), (name, packed)])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=5))
def test_members_of_an_ar_archive_come_back(members: list[tuple[str, bytes]]) -> None:
    assert list(deb.members(ar(members))) == [(name.rstrip("/"), content) for name, content in members]


@pytest.mark.parametrize("name", ["data.tar.xz", "data.tar.zst", "data.tar"])
def test_files_folders_and_links_become_entries(name: str) -> None:
    data = tar(
        (info("./usr/bin/", tarfile.DIRTYPE, mode=0o755), b""),
        (info("./usr/bin/tool", mode=0o755), b"#!"),
        (info("./usr/bin/other", tarfile.SYMTYPE, "tool"), b""),
        (info("./usr/bin/hard", tarfile.LNKTYPE, "./usr/bin/tool", mode=0o755), b""),
    )
    entries = {entry.path: entry for entry in deb.read(package(data, name), "tool")}
    assert entries["usr/bin"].kind is Kind.FOLDER
    assert (entries["usr/bin/tool"].content, entries["usr/bin/tool"].mode) == (b"#!", 0o755)
    assert entries["usr/bin/other"].content == b"tool"
    assert entries["usr/bin/hard"].content == b"#!"


def test_a_device_in_a_package_is_refused() -> None:
    with pytest.raises(TreeError, match="neither file, folder nor link"):
        deb.read(package(tar((info("./dev/kmem", tarfile.CHRTYPE), b""))), "bad")


def test_a_path_out_of_the_tree_is_refused() -> None:
    with pytest.raises(TreeError, match="leaves the tree"):
        deb.read(package(tar((info("../../etc/passwd"), b"x"))), "bad")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"PK\x03\x04", "not an ar archive", id="not ar"),
        pytest.param(ar([("debian-binary", b"2.0\n")])[:-3], "is cut", id="cut member"),
        pytest.param(ar([("debian-binary", b"2.0\n")]) + b"x", "no ar header", id="rubbish behind"),
        pytest.param(ar([("debian-binary", b"2.0\n")]), "has no data.tar", id="no data"),
    ],
)
def test_a_damaged_package_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(deb.DebError, match=message):
        deb.read(content, "bad")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="the independent peer, dpkg-deb, is not installed")
def test_what_dpkg_deb_builds_is_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: zn-test\nVersion: 1\nArchitecture: all\nMaintainer: none\nDescription: test\n"
    )
    (root / "etc").mkdir()
    (root / "etc/zn").write_bytes(b"content")
    subprocess.run(["dpkg-deb", "-b", str(root), str(tmp_path / "t.deb")], check=True, capture_output=True)
    entries = {entry.path: entry for entry in deb.read((tmp_path / "t.deb").read_bytes(), "zn-test")}
    assert entries["etc/zn"].content == b"content"
