"""State areas in real files, read and written by the worker's processes."""

import asyncio
import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from core0.linux.worker import HungError, Worker
from core0.state import area
from core0.state.disk import Areas, interpret, read_area, read_slots, write_area
from core0.state.model import Copy, Machine, State, Term
from tests.core0.state.model_disks import ModelDisk

TERM = Term("1" * 32, 1)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


def blank(folder: Path, name: str = "area") -> str:
    """An empty state area."""
    with (folder / name).open("wb") as file:
        file.truncate(area.AREA)
    return str(folder / name)


@contextlib.contextmanager
def being_written(path: str) -> Iterator[None]:
    """As if a process had a write under way that the disk does not answer."""
    with Path(path).open("rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        yield


def copy(sequence: int, *history: Term, node: str = "ab" * 16) -> bytes:
    state = State(node, sequence, history or (TERM,), ("d1",), Machine(), 0, {"x": msgspec.Raw(b"[1]")})
    return msgspec.json.encode(Copy("d1", state))


def encoded(sequence: int) -> area.Encoded:
    return area.encode_slot(sequence, copy(sequence))


async def test_what_is_written_is_read_by_another_process(worker: Worker, tmp_path: Path) -> None:
    path, areas = blank(tmp_path), Areas(worker)
    assert (await areas.read(path)).held == ()
    first, second = encoded(1), encoded(2)
    await areas.write(path, b"", first, False)
    await areas.write(path, first.mark, second, False)
    found = await areas.read(path)
    assert sorted(held.copy.state.sequence for held in found.held) == [1, 2]
    assert {held.mark for held in found.held} == {first.mark, second.mark}
    assert bytes(found.held[0].copy.state.sections["x"]) == b"[1]"


async def test_the_largest_state_fits(worker: Worker, tmp_path: Path) -> None:
    path = blank(tmp_path)
    write_area(path, b"", area.encode_slot(1, bytes(area.LARGEST_PAYLOAD)), alone=False)
    assert [len(slot.payload) for slot in read_area(path).slots] == [area.LARGEST_PAYLOAD]


async def test_what_cannot_be_read_or_written_says_why(worker: Worker, tmp_path: Path) -> None:
    areas, missing, small = Areas(worker), str(tmp_path / "none"), tmp_path / "small"
    small.write_bytes(bytes(8192))
    assert "No such file or directory" in (await areas.read(missing)).error
    assert "it has 8192 bytes, a state area has 16777216" in (await areas.read(str(small))).error
    with pytest.raises(OSError, match="No such file or directory"):
        await areas.write(missing, b"", encoded(1), False)


async def test_another_disk_in_its_place_is_not_written(worker: Worker, tmp_path: Path) -> None:
    path, areas = blank(tmp_path), Areas(worker)
    await areas.write(path, b"", encoded(1), False)
    with pytest.raises(OSError, match="is it another disk by now") as raised:
        await areas.write(path, encoded(7).mark, encoded(8), False)
    assert raised.value.errno == errno.ESTALE
    assert [held.copy.state.sequence for held in (await areas.read(path)).held] == [1]


async def test_a_disk_that_hangs_is_given_up_and_delays_no_other(worker: Worker, tmp_path: Path) -> None:
    hung, well = blank(tmp_path, "hung"), blank(tmp_path, "well")
    write_area(well, b"", encoded(1), alone=False)
    areas = Areas(worker, read=0.2, write=0.2)
    with being_written(hung):
        found = await areas.read_first((hung, well), 2, 0.2)
        assert [(one.path, len(one.held)) for one in found] == [(well, 1)]
        assert (await areas.read(hung)).error == "no answer within 0.2 s"
        with pytest.raises(HungError):
            await areas.write(hung, b"", encoded(1), False)
    assert (await Areas(worker).read(hung)).held == ()


async def test_more_hung_disks_than_threads_hold_no_other_up(worker: Worker, tmp_path: Path) -> None:
    hung = [blank(tmp_path, f"hung-{number}") for number in range(5)]
    well = [blank(tmp_path, f"well-{number}") for number in range(2)]
    with contextlib.ExitStack() as stack:
        for path in hung:
            stack.enter_context(being_written(path))
        found = await Areas(worker).read_first((*hung, *well), 2, 30.0)
    assert sorted(one.path for one in found) == well


async def test_a_quick_look_leaves_out_what_cannot_be_read(worker: Worker, tmp_path: Path) -> None:
    well = blank(tmp_path)
    found = await Areas(worker).read_first((str(tmp_path / "none"), well), 2, 5.0)
    assert [one.path for one in found] == [well]


async def test_as_many_areas_are_read_as_are_enough(worker: Worker, tmp_path: Path) -> None:
    """The others are not waited for: here they would never answer."""
    well = [blank(tmp_path, f"well-{number}") for number in range(11)]
    hung = [blank(tmp_path, f"hung-{number}") for number in range(9)]
    with contextlib.ExitStack() as stack:
        for path in hung:
            stack.enter_context(being_written(path))
        found = await Areas(worker).read_first((*well, *hung), 11, 30.0)
    assert sorted(one.path for one in found) == sorted(well)


async def test_a_write_waits_for_the_one_before_it(worker: Worker, tmp_path: Path) -> None:
    path, areas = blank(tmp_path), Areas(worker)
    with being_written(path):
        writing = asyncio.create_task(areas.write(path, b"", encoded(1), False))
        assert not (await asyncio.wait({writing}, timeout=0.1))[0]
    await writing
    assert len((await areas.read(path)).held) == 1


@pytest.mark.parametrize(
    ("sequence", "payload", "why"),
    [
        pytest.param(1, b"\xff", "this image cannot understand it: JSON is malformed", id="no JSON"),
        pytest.param(1, b"[" * 100_000, "this image cannot understand it", id="deep JSON"),
        pytest.param(1, b'{"disk": "d1"}', "missing required field `state`", id="another shape"),
        pytest.param(1, copy(1, node="../../etc"), "at `$.node`", id="a node's id that is none"),
        pytest.param(2, copy(1), "its header says sequence 2, it says 1", id="another sequence"),
        pytest.param(5, copy(5, Term("2" * 32, 6)), "does not lead to sequence 5", id="a term to come"),
        pytest.param(
            5, copy(5, TERM, Term("1" * 32, 4)), "does not lead to sequence 5", id="a term that comes twice"
        ),
        pytest.param(
            5, copy(5, Term("2" * 32, 4), TERM), "does not lead to sequence 5", id="terms in no order"
        ),
    ],
)
def test_what_a_stranger_wrote_is_told_and_not_believed(sequence: int, payload: bytes, why: str) -> None:
    disk = ModelDisk()
    slot = area.encode_slot(sequence, payload)
    disk.write(area.PAYLOADS[0], slot.payload)
    disk.write(area.HEADERS[0], slot.header)
    found = interpret("/dev/vda1", read_slots(disk))
    assert found.held == ()
    assert why in found.strange
