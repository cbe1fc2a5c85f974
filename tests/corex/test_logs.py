"""The log ring and the line splitter: nothing is lost without being declared."""

import asyncio
import fcntl
import os
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from corex.process.logs import CHUNK_BYTES, Logs, Ring
from corex.process.output import FLOOD_BYTES, MAX_LINE, READ_BYTES, Capture, Lines, Pipe
from corex.wire.api import LogGap, LogLine, LogPage

PROCESSES = ("a", "b")
batches = st.lists(
    st.tuples(st.sampled_from(PROCESSES), st.integers(1, 40), st.integers(0, 300), st.booleans()), max_size=60
)


def block(lines: int, length: int) -> bytes:
    return b"\n".join([b"x" * length] * lines)


def count(page: LogPage) -> int:
    return sum(record.lost if isinstance(record, LogGap) else 1 for record in page.records)


@given(batches, st.integers(1, 50), st.integers(600, 5000))
def test_lines_received_and_gaps_are_lines_written_for_a_slow_reader(
    written: list[tuple[str, int, int, bool]], limit: int, capacity: int
) -> None:
    logs = Logs(lambda: 0.0, capacity)
    total, per_process = 0, dict.fromkeys(PROCESSES, 0)
    received, cursor = 0, 0
    for process, lines, length, is_read in written:
        logs.write(process, "stdout", block(lines, length))
        total += lines
        per_process[process] += lines
        if is_read:
            page = logs.after(cursor, limit)
            received, cursor = received + count(page), page.next
            assert received == cursor
    while (page := logs.after(cursor, limit)).records:
        received, cursor = received + count(page), page.next
    assert received == cursor == total
    for process, lines in per_process.items():
        page = logs.ring(process).after_seq(0, 10**6)
        assert count(page) == page.next == lines


@given(batches, st.integers(600, 5000), st.sampled_from([(), ("a",), ("b",), PROCESSES]), st.integers(1, 30))
def test_lines_and_gaps_are_lines_written_for_each_process_that_is_wanted(
    written: list[tuple[str, int, int, bool]], capacity: int, only: tuple[str, ...], most: int
) -> None:
    logs = Logs(lambda: 0.0, capacity)
    logs.write("a", "stdout", b"before")
    first = logs.positions()
    known, told = dict(first), dict.fromkeys(PROCESSES, 0)

    def read(count: int) -> None:
        orders = []
        for order, process, seq, record in islice(logs.told_after(dict(known), only), count):
            told[process] += record.lost if isinstance(record, LogGap) else 1
            known[process] = seq
            orders.append(order)
            assert isinstance(record, LogGap) or (record.process, record.seq) == (process, seq)
        assert orders == sorted(orders)

    for at, (process, lines, length, is_read) in enumerate(written):
        logs.write(process, "stdout", block(lines, length))
        if is_read:
            read(most)
        elif at % 7 == 3:
            logs.forget(process)
    read(10**6)
    for process, last in logs.positions().items():
        wanted = not only or process in only
        assert told[process] == (last - first.get(process, 0) if wanted else 0)
        assert not wanted or known[process] == last


@given(batches, st.integers(0, 100))
def test_the_numbers_of_a_page_ascend_and_start_after_the_cursor(
    written: list[tuple[str, int, int, bool]], after: int
) -> None:
    logs = Logs(lambda: 0.0, 3000)
    for process, lines, length, _ in written:
        logs.write(process, "stderr", block(lines, length))
    orders = [record.order for record in logs.after(after, 1000).records if isinstance(record, LogLine)]
    assert orders == sorted(set(orders))
    assert all(order > after for order in orders)


@given(batches)
def test_a_ring_keeps_to_its_capacity(written: list[tuple[str, int, int, bool]]) -> None:
    ring_capacity, newest = 4000, 0
    logs = Logs(lambda: 0.0, ring_capacity)
    for _, lines, length, _ in written:
        logs.write("a", "stdout", block(lines, length))
        newest = 300 + min(lines * (1 + length), CHUNK_BYTES)
    assert logs.ring("a")._size <= max(ring_capacity, newest)


def test_one_flood_does_not_wash_away_another_log() -> None:
    logs = Logs(lambda: 0.0, 2000)
    logs.write("quiet", "stderr", b"the reason of the crash")
    for _ in range(1000):
        logs.write("loud", "stdout", block(10, 100))
    first = logs.after(0, 1).records[0]
    assert isinstance(first, LogLine)
    assert first.text == "the reason of the crash"


def test_a_log_that_was_forgotten_goes_on_counting() -> None:
    logs = Logs(lambda: 0.0)
    logs.write("a", "stdout", b"1\n2")
    logs.forget("a")
    logs.write("a", "stdout", b"3")
    assert count(logs.ring("a").after_seq(2, 10)) == 1
    assert logs.after(0, 10).records[0] == LogGap(2)


def test_a_reader_ahead_of_the_log_keeps_its_cursor() -> None:
    assert Ring("a").after_seq(7, 10) == LogPage([], 7)


def test_bytes_that_are_not_utf_8_stay_readable() -> None:
    logs = Logs(lambda: 0.0)
    logs.write("a", "stdout", b"gr\xfc\xdfe")
    record = logs.after(0, 1).records[0]
    assert isinstance(record, LogLine)
    assert record.text == "gr\\xfc\\xdfe"


@given(st.lists(st.binary(max_size=40).map(lambda piece: piece.replace(b"x", b"\n")), max_size=40))
def test_the_splitter_keeps_every_byte_and_ends_lines_where_the_stream_does(pieces: list[bytes]) -> None:
    out: list[bytes] = []
    lines = Lines(lambda batch, _partial: out.extend(batch.split(b"\n")))
    for piece in pieces:
        if piece:
            lines.feed(piece)
    lines.end()
    whole = b"".join(pieces)
    assert out == (whole[:-1] if whole.endswith(b"\n") else whole).split(b"\n")[: len(out)]
    assert len(out) == whole.count(b"\n") + bool(whole and not whole.endswith(b"\n"))


@given(st.lists(st.integers(0, MAX_LINE // 3), min_size=1, max_size=40), st.booleans())
def test_what_comes_at_once_is_read_as_it_was_written(lengths: list[int], is_odd: bool) -> None:
    lines = [bytes([97 + number % 26]) * length for number, length in enumerate(lengths)]
    if is_odd:
        lines[0] = b"\xc3"  # the first byte of two, at the end of a line
    logs = Logs(lambda: 0.0, 1 << 30)
    logs.write("a", "stdout", b"\n".join(lines))
    read = logs.ring("a").after_seq(0, 1000).records
    assert [line.text for line in read if isinstance(line, LogLine)] == [
        line.decode("utf-8", "backslashreplace") for line in lines
    ]
    assert [line.seq for line in read if isinstance(line, LogLine)] == list(range(1, len(lines) + 1))
    for after in range(len(lines)):
        first = logs.after(after, 1).records[0]
        assert isinstance(first, LogLine)
        assert first.order == after + 1


@given(st.integers(0, 5 * MAX_LINE), st.integers(100, 3 * MAX_LINE))
def test_a_long_line_becomes_marked_parts(length: int, piece: int) -> None:
    out: list[tuple[bytes, bool]] = []
    lines = Lines(lambda batch, partial: out.extend((line, partial) for line in batch.split(b"\n")))
    data = b"y" * length + b"\nz\n"
    for start in range(0, len(data), piece):
        lines.feed(data[start : start + piece])
    lines.end()
    whole, *rest = b"".join(line if partial else line + b"\n" for line, partial in out).split(b"\n")
    assert (whole, rest) == (b"y" * length, [b"z", b""])
    assert all(len(line) <= MAX_LINE for line, _ in out)


async def test_a_pipe_that_is_full_becomes_larger_and_is_drained_whole() -> None:
    reading, writing = os.pipe()
    capture = Capture(1 << 30)
    pipe = Pipe(asyncio.get_running_loop(), reading, capture, most=FLOOD_BYTES)
    os.write(writing, b"x" * READ_BYTES)
    pipe.drain()
    assert fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ) == FLOOD_BYTES
    os.write(writing, b"y" * FLOOD_BYTES)
    os.close(writing)
    pipe.drain()
    assert bytes(capture.data) == b"x" * READ_BYTES + b"y" * FLOOD_BYTES
    await asyncio.wait_for(pipe.ended(), 10)


async def test_a_pipe_that_is_never_full_stays_as_it_is() -> None:
    reading, writing = os.pipe()
    capture = Capture(1 << 30)
    pipe = Pipe(asyncio.get_running_loop(), reading, capture, most=FLOOD_BYTES)
    before = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
    os.write(writing, b"x" * (READ_BYTES - 1))
    pipe.drain()
    assert fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ) == before
    os.close(writing)
    await asyncio.wait_for(pipe.ended(), 10)


def test_a_capture_keeps_the_first_bytes_and_says_so() -> None:
    capture = Capture(5)
    capture.feed(b"abc")
    assert not capture.truncated
    capture.feed(b"defg")
    assert (bytes(capture.data), capture.truncated) == (b"abcde", True)
