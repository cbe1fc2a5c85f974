"""The look at a layer's tar while it passes, with what no tar program writes."""

import contextlib
import tarfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.images.tar import TarCheck
from corex.files import untar as subject
from corex.files.untar import TarError
from tests.core0.images.registry import entry, tar_of

WHOLE = tar_of(
    entry("a" * 200, b"x" * 1500, pax_headers={"comment": "y" * 700}),
    entry("link", type=tarfile.SYMTYPE, linkname="t" * 300),
    entry("folder", type=tarfile.DIRTYPE),
)


def look(data: bytes) -> None:
    check = TarCheck()
    check.feed(data)
    check.end()


def header(field: slice, value: bytes, kind: bytes = b"0") -> bytes:
    """A header with one field overwritten and a right checksum."""
    block = bytearray(tar_of(entry("file"))[:512])
    block[field], block[156:157] = value, kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 4096])
def test_pieces_of_any_size_are_the_same_tar(size: int) -> None:
    check = TarCheck()
    for at in range(0, len(WHOLE), size):
        check.feed(WHOLE[at : at + size])
    check.end()


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["GNU", "pax"])
def test_long_names_are_read_in_both_ways_of_writing_them(format_: int) -> None:
    info = tarfile.TarInfo("d/" + "n" * 256)
    with pytest.raises(TarError, match="over 255 bytes"):
        look(info.tobuf(format_))


SIZE = slice(124, 136)
ODD = {
    "a negative size": (header(SIZE, b"-0000001000\0"), "number is none"),
    "underscores": (header(SIZE, b"1_000000000\0"), "number is none"),
    "a size of 2^80": (header(SIZE, b"\x80" + b"\xff" * 11), "ends within"),
    "a header of a gigabyte": (header(SIZE, b"10000000000\0", b"x"), "extended headers have"),
    "a long name of nothing": (header(SIZE, b"00000000000\0", b"L"), "extended headers have"),
    "a pax length of zero": (header(SIZE, b"00000000010\0", b"x") + b"0 a=b\n".ljust(512, b"\0"), "damaged"),
    "a pax length beyond": (header(SIZE, b"00000000010\0", b"x") + b"99 a=b\n".ljust(512, b"\0"), "damaged"),
    "a pax length of words": (
        header(SIZE, b"00000000010\0", b"x") + b"no a=b\n".ljust(512, b"\0"),
        "damaged",
    ),
    "a global size": (
        header(SIZE, b"00000000012\0", b"g") + b"10 size=1\n".ljust(512, b"\0"),
        "global header names",
    ),
    "a sparse file of pax": (
        header(SIZE, b"00000000026\0", b"x")
        + b"22 GNU.sparse.major=1\n".ljust(512, b"\0")
        + header(SIZE, b"00000000000\0"),
        "is a sparse file",
    ),
    "an unknown type": (header(SIZE, b"00000000000\0", b"S"), "unknown type 'S'"),
    "no name": (header(slice(0, 100), bytes(100)), "has no name"),
}


@pytest.mark.parametrize(("data", "told"), ODD.values(), ids=ODD)
def test_what_no_tar_program_writes_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(TarError, match=told):
        look(data)


def test_too_many_entries_are_refused_without_keeping_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_ENTRIES", 20_000)
    block = header(SIZE, b"00000000000\0")
    check = TarCheck()
    tracemalloc.start()
    try:
        for _ in range(20_000):
            check.feed(block)
        with pytest.raises(TarError, match="over 20000 entries"):
            check.feed(block)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_headers_of_one_entry_do_not_pile_up() -> None:
    """Each of them says something else of the next entry, which never comes."""

    def pile_up() -> None:
        check = TarCheck()
        for number in range(100):
            said = b"65004 %08d=" % number + b"v" * 64_988 + b"\n"
            padded = said.ljust(-(-len(said) // 512) * 512, b"\0")
            check.feed(header(SIZE, b"%011o\0" % len(said), b"x") + padded)

    tracemalloc.start()
    try:
        with pytest.raises(TarError, match="an entry's extended headers have 11"):
            pile_up()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=3000), st.integers(0, len(WHOLE)))
def test_noise_ends_or_passes_and_never_breaks_the_look(noise: bytes, at: int) -> None:
    with contextlib.suppress(TarError):
        look(WHOLE[:at] + noise)
