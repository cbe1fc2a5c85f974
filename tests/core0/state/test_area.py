"""The area's format: what a crash, a flipped bit or a stranger leaves is whole or is seen not to be."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.state import area
from core0.state.disk import Contents, Slot, read_slots, write_slot
from tests.core0.state.model_disks import ModelDisk, PowerCutError

PAYLOADS = st.binary(max_size=3 * area.BLOCK)
SEQUENCES = st.integers(1, 1 << 60)


def payloads(disk: ModelDisk) -> set[bytes]:
    return {slot.payload for slot in read_slots(disk).slots}


def written(*payloads: bytes) -> tuple[ModelDisk, bytes]:
    """A disk with these payloads written one after the other; and the last one's mark."""
    disk, mark = ModelDisk(), b""
    for sequence, payload in enumerate(payloads, 1):
        encoded = area.encode_slot(sequence, payload)
        write_slot(disk, mark, encoded, alone=False)
        mark = encoded.mark
    return disk, mark


@given(SEQUENCES, PAYLOADS)
def test_a_slot_says_what_was_written(sequence: int, payload: bytes) -> None:
    encoded = area.encode_slot(sequence, payload)
    assert (len(encoded.header), len(encoded.payload) % area.BLOCK) == (area.BLOCK, 0)
    header = area.parse_header(encoded.header)
    assert header
    assert (header.version, header.sequence, header.length) == (area.VERSION, sequence, len(payload))
    assert header.mark == encoded.mark
    assert area.is_whole(header, payload)


@given(PAYLOADS, st.integers(0), st.integers(0, 7))
def test_any_flipped_bit_makes_a_slot_invalid(payload: bytes, at: int, bit: int) -> None:
    disk, _ = written(payload)
    spots = [*range(area.BLOCK), *range(area.PAYLOADS[0], area.PAYLOADS[0] + len(payload))]
    spot = spots[at % len(spots)]
    sector = bytearray(disk.medium[spot // 512])
    sector[spot % 512] ^= 1 << bit
    disk.medium[spot // 512] = bytes(sector)
    assert read_slots(disk) == Contents()


@given(st.binary(max_size=200))
def test_rubbish_is_no_header(some: bytes) -> None:
    block = some.ljust(area.BLOCK, some[-1:] or b"\0")
    assert area.parse_header(block) is None
    assert area.parse_header(area.encode_slot(1, b"x").header[:64] + block[64:]) is None


def test_a_length_beyond_the_slot_is_no_header() -> None:
    head = bytearray(area.encode_slot(1, b"x").header[:-32])
    struct.pack_into("<Q", head, 32, area.LARGEST_PAYLOAD + 1)
    assert area.parse_header(bytes(head) + area._sha256(bytes(head))) is None


def test_what_does_not_fit_is_refused() -> None:
    assert len(area.encode_slot(1, bytes(area.LARGEST_PAYLOAD)).payload) == area.LARGEST_PAYLOAD
    with pytest.raises(ValueError, match="cannot fit 7864321 bytes into a slot of 7864320"):
        area.encode_slot(1, bytes(area.LARGEST_PAYLOAD + 1))


def test_slots_lie_side_by_side_within_the_area() -> None:
    parts = [
        *((at, at + area.BLOCK) for at in area.HEADERS),
        *((at, at + area.LARGEST_PAYLOAD) for at in area.PAYLOADS),
    ]
    assert all(start % area.BLOCK == 0 and end <= area.AREA for start, end in parts)
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(sorted(parts)))


def test_the_slots_are_written_in_turn() -> None:
    disk, _ = written(b"one", b"two", b"three")
    assert payloads(disk) == {b"two", b"three"}


def test_a_format_of_the_future_is_told_and_not_taken_for_nothing() -> None:
    disk, _ = written(b"one", b"two")
    head = bytearray(area.encode_slot(3, b"three").header[:-32])
    struct.pack_into("<I", head, 16, 7)
    disk.write(area.HEADERS[0], bytes(head) + area._sha256(bytes(head)))
    contents = read_slots(disk)
    assert contents.strange == "format 7, this image knows format 1"
    assert [slot.payload for slot in contents.slots] == [b"two"]


def test_another_disk_than_the_one_that_was_read_is_not_written() -> None:
    disk, _ = written(b"one")
    before = dict(disk.medium)
    for mark in (b"", b"m" * 32):
        with pytest.raises(OSError, match="it holds something else than what was read from it"):
            write_slot(disk, mark, area.encode_slot(2, b"two"), alone=False)
    assert disk.medium == before


def test_what_must_end_ends_with_the_next_write() -> None:
    disk, mark = written(b"one", b"two")
    write_slot(disk, mark, area.encode_slot(1, b"other"), alone=True)
    assert payloads(disk) == {b"other"}


def crashed(alone: bool, steps: int, survivors: frozenset[int]) -> ModelDisk:
    """A disk that held one and two and was to hold three; the power was cut after some steps."""
    disk, mark = written(b"1" * 5000, b"2" * 9000)
    disk.steps = steps
    with pytest.raises(PowerCutError):
        write_slot(disk, mark, area.encode_slot(3, b"3" * 7000), alone=alone)
    pending = list(disk.sectors())
    order = iter(range(len(pending)))
    disk.cut_power(lambda: next(order) in survivors)
    return disk


@pytest.mark.parametrize("steps", range(4))
@given(survivors=st.frozensets(st.integers(0, 23)))
def test_a_power_cut_anywhere_leaves_the_kept_slot_and_nothing_half_made(
    steps: int, survivors: frozenset[int]
) -> None:
    """Two blocks of payload, one of the header, the flush: whatever sectors got to the medium before."""
    found = payloads(crashed(False, steps, survivors))
    assert b"2" * 9000 in found
    assert found <= {b"1" * 5000, b"2" * 9000, b"3" * 7000}


@pytest.mark.parametrize("steps", range(6))
@given(survivors=st.frozensets(st.integers(0, 23)))
def test_a_power_cut_never_leaves_an_area_without_the_old_or_the_new(
    steps: int, survivors: frozenset[int]
) -> None:
    found = payloads(crashed(True, steps, survivors))
    assert found & {b"2" * 9000, b"3" * 7000}


def test_every_sector_torn_by_itself_is_seen() -> None:
    for steps in range(1, 4):
        for lost in range(24):
            survivors = frozenset(range(24)) - {lost}
            whole = payloads(crashed(False, steps, survivors))
            zeros = (14, 15, *range(17, 23))  # behind the payload, and within the header
            assert (b"3" * 7000 in whole) == (steps == 3 and lost in zeros)


def test_contents_cross_the_workers_socket() -> None:
    import msgspec

    contents = Contents((Slot(1, b"m", b"\xff"),), "strange")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(contents), type=Contents) == contents
