"""Headers of a tar, read by Python's tarfile and by the check of layers."""

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from core0.images.tar import TarCheck
from corex.files import tar
from corex.files.tar import Entry

part = st.binary(min_size=1, max_size=120).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
paths = st.lists(part, min_size=1, max_size=4).map(b"/".join)
names = st.sampled_from([b"user.a", b"security.capability"])
attributes = st.dictionaries(names, st.binary(max_size=300)).map(dict.items)
entries = st.builds(
    Entry,
    paths,
    st.just(tar.FILE),
    st.integers(0, 0o7777),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 3000),
    st.integers(-5, 1 << 36),
    attributes=attributes.map(tuple),
)


@given(st.lists(entries, max_size=5))
def test_what_was_written_is_read_again(written: list[Entry]) -> None:
    data = b"".join(tar.header(one) + b"x" * one.size + tar.padding(one.size) for one in written) + tar.END
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        found = archive.getmembers()
        assert [one.name.encode(errors="surrogateescape") for one in found] == [one.path for one in written]
        for one, was in zip(found, written, strict=True):
            assert (one.mode, one.uid, one.gid, one.size) == (was.mode, was.uid, was.gid, was.size)
            assert 0 <= one.mtime < 8**11
            content = archive.extractfile(one)
            assert content
            assert content.read() == b"x" * was.size
            for name, value in was.attributes:
                shown = one.pax_headers[f"SCHILY.xattr.{name.decode()}"]
                assert shown.encode(errors="surrogateescape") == value


def test_links_and_sizes_that_fit_no_plain_header_are_kept() -> None:
    long, huge = b"a/" * 80 + b"b", 9 << 30
    link = tar.header(Entry(b"link", tar.SYMLINK, 0o777, 0, 0, leads_to=long))
    large = tar.header(Entry(b"large", tar.FILE, 0o644, 0, 0, huge))
    for data, field, value in ((link, "linkname", long.decode()), (large, "size", huge)):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            found = archive.next()
            assert found
            assert getattr(found, field) == value


def test_the_check_of_layers_takes_it() -> None:
    written = [
        Entry(b"folder/", tar.FOLDER, 0o755, 0, 0),
        Entry(b"n" * 200, tar.FILE, 0o644, 1, 2, 5, attributes=((b"user.x", b"\x00\xff"),)),
        Entry(b"link", tar.LINK, 0o644, 1, 2, leads_to=b"n" * 200),
    ]
    check = TarCheck()
    for one in written:
        check.feed(tar.header(one) + b"x" * one.size + tar.padding(one.size))
    check.feed(tar.END)
