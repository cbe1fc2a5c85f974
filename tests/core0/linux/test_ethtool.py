"""What drivers say of themselves: the answer's layout, hostile answers, and this kernel's own."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.linux import ethtool


def answer(firmware: bytes) -> bytes:
    head = struct.pack("=I32s32s32s32s32s", 3, b"virtio_net", b"1.0.0", firmware, b"0000:00:03.0", b"")
    return head + bytes(12) + struct.pack("=5I", 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        pytest.param(b"", "", id="nothing"),
        pytest.param(b"N/A", "", id="nothing, in words"),
        pytest.param(b"1.8-0", "1.8-0", id="a version"),
        pytest.param(b" 7.10 0x800075df\0rest", "7.10 0x800075df", id="spaces, and rest behind the end"),
        pytest.param(b"\x1b[2J\xff1\n2", "[2J\N{REPLACEMENT CHARACTER}1 2", id="no text"),
        pytest.param(b"x" * 32, "x" * 32, id="without an end"),
    ],
)
def test_the_firmware_of_an_answer(said: bytes, understood: str) -> None:
    assert ethtool.parse(answer(said)) == understood


@given(st.binary(min_size=196, max_size=196))
def test_any_answer_gives_one_printable_line(data: bytes) -> None:
    assert ethtool.parse(data).isprintable()


@pytest.mark.root
def test_a_device_without_firmware_tells_none_and_one_that_is_not_there_is_named(in_fresh_network) -> None:
    in_fresh_network("""
import errno, subprocess
from core0.linux import ethtool
subprocess.run(['ip', 'link', 'add', 'one', 'type', 'veth', 'peer', 'name', 'two'], check=True)
assert ethtool.firmware('one') == ''
try:
    ethtool.firmware('three')
except OSError as error:
    assert error.errno == errno.ENODEV, error
else:
    raise AssertionError
""")


def test_a_name_that_is_too_long_is_refused_before_the_kernel_cuts_it() -> None:
    with pytest.raises(OSError, match=r"cannot ask link .*: a link's name has at most 15 bytes"):
        ethtool.firmware("sixteen-bytes-xx")
