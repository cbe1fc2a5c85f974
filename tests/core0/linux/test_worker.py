"""The worker: jobs in processes of their own, given up when they hang."""

import asyncio
import errno
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core0.linux.worker import HungError, Worker


def add(one: int, two: bytes) -> tuple[int, bytes]:
    return one + 1, two * 2


def nothing() -> None: ...


def own_number(place: str) -> None:
    Path(place).write_text(str(os.getpid()))
    signal.pause()


def open_missing(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


def divide(one: int) -> float:
    return 1 / one


def copy(words: bytes, reader: int, writer: int) -> int:
    return os.write(writer, os.read(reader, 100) + words)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_gone(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([pidfd], [], [], 30)[0]
    os.close(pidfd)


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.close()


async def test_a_job_gets_its_arguments_and_gives_its_result(worker: Worker) -> None:
    large = bytes(3 << 20)
    assert await worker.call(add, 1, large, deadline=30) == (2, large * 2)
    assert await worker.call(nothing, deadline=30) is None


async def test_jobs_run_side_by_side(worker: Worker, tmp_path: Path) -> None:
    hanging = asyncio.create_task(worker.call(own_number, str(tmp_path / "pid"), deadline=60))
    assert await worker.call(add, 1, b"", deadline=30) == (2, b"")
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_a_job_that_hangs_is_given_up_and_killed(worker: Worker, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    with pytest.raises(HungError, match=r"no answer within 0\.5 s") as caught:
        await worker.call(own_number, str(place), deadline=0.5)
    async with asyncio.timeout(30):
        await caught.value.ended.wait()
    _wait_gone(int(place.read_text()))


async def test_the_kernels_error_arrives_with_its_number(worker: Worker) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await worker.call(open_missing, "/nowhere", deadline=30)
    assert caught.value.errno == errno.ENOENT


async def test_a_defect_arrives_with_its_traceback(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        await worker.call(divide, 0, deadline=30)


async def test_a_job_that_dies_is_named(worker: Worker) -> None:
    with pytest.raises(OSError, match="die was killed before it answered"):
        await worker.call(die, deadline=30)


async def test_a_job_gets_open_files(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("read, ")
    with (tmp_path / "one").open("rb") as one, (tmp_path / "two").open("wb") as two:
        files = (one.fileno(), two.fileno())
        assert await worker.call(copy, b"written", deadline=30, descriptors=files) == 13
    assert (tmp_path / "two").read_text() == "read, written"


async def test_the_worker_keeps_no_open_file_of_a_job(worker: Worker) -> None:
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    await worker.call(copy, b"", deadline=30, descriptors=(null, writer))
    os.close(null)
    os.close(writer)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(reader, ended.set)
    async with asyncio.timeout(30):
        await ended.wait()
    assert os.read(reader, 1) == b""
    asyncio.get_running_loop().remove_reader(reader)
    os.close(reader)
