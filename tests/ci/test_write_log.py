"""Logs of writes: read, cut at any moment, and replayed; one made by QEMU's own blklogwrites."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.pytest_machines import Machines
from ci.qemu.accel import TCG, Acceleration
from ci.qemu.disks import backend
from ci.qemu.spec import Disk, MachineSpec, NetBoot
from ci.qemu.write_log import Replay, Request, WriteLogError, requests, split_at_flush, survivors

SUPERBLOCK = struct.pack("<QQQI", 0x6A736677736872, 1, 0, 512).ljust(512, b"\0")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


@pytest.fixture
def acceleration() -> Acceleration:
    return TCG


def entry(sector: int, data: bytes, flags: int = 0, count: int | None = None) -> bytes:
    header = struct.pack("<QQQQ", sector, len(data) // 512 if count is None else count, flags, len(data))
    return header.ljust(512, b"\0") + data


def block(letter: str, count: int = 1) -> bytes:
    return letter.encode() * 512 * count


def test_a_log_gives_its_requests_in_their_order() -> None:
    log = SUPERBLOCK + entry(2, block("a", 2)) + entry(0, b"", FLUSH) + entry(9, block("b"), FUA)
    log += entry(0, b"note".ljust(512), MARK) + entry(4, b"", DISCARD, 8)
    assert list(requests(log)) == [
        Request(1024, 1024, 1024, False, False, 2048),
        Request(0, 0, 2560, True, False, 2560),
        Request(4608, 512, 3072, False, True, 3584),
        Request(2048, 4096, None, False, False, 5120),
    ]


@pytest.mark.parametrize("lost", [1, 512, 1023])
def test_a_request_that_is_not_whole_is_left_out(lost: int) -> None:
    log = SUPERBLOCK + entry(2, block("a")) + entry(3, block("b"))
    assert [one.place for one in requests(log[:-lost])] == [1024]


@pytest.mark.parametrize(
    ("log", "why"),
    [(b"", "no superblock"), (bytes(512), "of another kind"), (b"x" * 1024, "of another kind")],
    ids=["empty", "zeros", "noise"],
)
def test_what_is_no_log_is_refused(log: bytes, why: str) -> None:
    with pytest.raises(WriteLogError, match=f"cannot read the log of writes: .*{why}"):
        list(requests(log))


@given(st.binary(max_size=4096))
def test_no_log_whatever_is_in_it_ends_otherwise(data: bytes) -> None:
    for request in requests(SUPERBLOCK + data):
        assert request.end <= 512 + len(data)


def write(number: int, *, flush: bool = False, durable: bool = False) -> Request:
    return Request(number * 16384, 0 if flush else 16384, 0, flush, durable, 0)


@given(st.lists(st.sampled_from(["write", "flush", "fua"]), max_size=30), st.randoms(), st.data())
def test_a_cut_loses_only_what_no_flush_came_behind(
    kinds: list[str], chance: random.Random, data: st.DataObject
) -> None:
    logged = [write(at, flush=kind == "flush", durable=kind == "fua") for at, kind in enumerate(kinds)]
    cut = data.draw(st.integers(0, len(logged)))
    durable = split_at_flush(logged, cut)
    assert durable <= cut
    assert all(kind != "flush" for kind in kinds[durable + 1 : cut])
    kept = survivors(logged[durable:cut], chance)
    places = [one.place for one in kept]
    assert len(set(places)) == len(places)
    assert set(places) <= {one.place for one in logged[durable:cut]}
    assert {one.place for one in logged[durable:cut] if one.durable} <= set(places)
    assert all(one.length in range(4096, 16385, 4096) for one in kept if not one.flush)


def test_a_log_goes_on_where_an_image_of_the_disk_ends(tmp_path: Path) -> None:
    log, start = tmp_path / "disk.log", tmp_path / "start.img"
    log.write_bytes(SUPERBLOCK + entry(1, block("b"), FLUSH))
    start.write_bytes(block("a", 4))
    replay = Replay(log, 2048, tmp_path, start)
    assert replay.cut(0, random.Random(1)).read_bytes() == block("a", 4)
    replay.end()


@pytest.mark.vm
async def test_a_disk_is_replayed_to_each_moment(machines: Machines, tmp_path: Path) -> None:
    disk, log = tmp_path / "disk.img", tmp_path / "disk.log"
    log.touch()
    with disk.open("wb") as file:
        file.truncate(1 << 20)
    logged = Disk("logged", disk, log=log)
    spec = MachineSpec("idle", NetBoot("http://10.0.2.2:9/none"), memory=64, disks=(logged,))
    machine = await machines.start(spec)
    sizes = []
    for command in ("write -P 1 0 8192", "flush", "write -P 2 4096 4096", "discard 0 4096", "flush"):
        await machine.monitor.human(f'qemu-io -d {backend(logged)} "{command}"')
        sizes.append(log.stat().st_size)
    await machine.quit()
    replay = Replay(log, 1 << 20, tmp_path)
    assert [one.end for one in replay.requests[: len(sizes)]] == sizes
    chance = random.Random(1)
    assert replay.cut(2, chance).read_bytes()[:8192] == b"\1" * 8192
    states = {replay.cut(4, chance).read_bytes()[:8192] for _ in range(40)}
    assert {b"\1" * 8192, b"\1" * 4096 + b"\2" * 4096, bytes(4096) + b"\2" * 4096} <= states
    assert replay.cut(5, chance).read_bytes()[:8192] == bytes(4096) + b"\2" * 4096
    assert disk.read_bytes() == replay.cut(5, chance).read_bytes()
    replay.end()
