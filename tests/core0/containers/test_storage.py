"""The size of a container's files, changed behind its back: over a real tmpfs that is mounted nowhere."""

import errno
import os

import msgspec
import pytest

from core0.containers import storage
from core0.containers.model import Record
from core0.wire.types import ContainerSpec, CoreX
from tests.core0.containers.conftest import Files

pytestmark = pytest.mark.root
SPEC = ContainerSpec("http://127.0.0.1:9/demo/", "ab" * 32)
MIB = 1 << 20
# Root of some container.
OTHER = 1_065_536


@pytest.fixture
def record(files: Files) -> Record:
    """A container whose first process is this one."""
    place = storage.place_of(files.work)
    return Record(1, SPEC, "", "", "", 2, CoreX(9001, "cd" * 32), os.getpid(), 0, place)


def test_it_grows_and_shrinks_to_what_there_is(files: Files, record: Record) -> None:
    files.write(3)
    assert storage.used(record) == pytest.approx(3 * MIB, abs=64 << 10)
    for size in (64, 4):
        storage.resize(record, size)
        assert files.size == size * MIB
    with pytest.raises(OSError, match=r"cannot change tmpfs: Invalid argument: .*Too small a size"):
        storage.resize(record, 2)
    assert files.size == 4 * MIB


def test_another_folder_in_its_place_is_none(files: Files, record: Record) -> None:
    other = os.open("/", os.O_PATH)
    os.dup2(other, files.work)
    os.close(other)
    with pytest.raises(OSError, match="its first process does not hold them any more"):
        storage.resize(record, 64)


@pytest.mark.parametrize("way", [".", "..", "../file", "new"])
def test_who_holds_the_folder_and_is_not_the_node_s_root_does_nothing_by_it(files: Files, way: str) -> None:
    files.write(1)
    pid = os.fork()
    if pid == 0:
        os._exit(refusal_of(way, files.work))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EACCES


def refusal_of(way: str, folder: int) -> int:
    """By which error another user cannot open or make a file; 0 if it can."""
    try:
        os.setgroups(())
        os.setresgid(*[OTHER] * 3)
        os.setresuid(*[OTHER] * 3)
        os.open(way, os.O_RDONLY | (os.O_CREAT if way == "new" else 0), dir_fd=folder)
    except OSError as error:
        return error.errno or 255
    return 0


def test_of_a_process_that_has_ended_there_is_nothing(record: Record) -> None:
    with pytest.raises(FileNotFoundError):
        storage.used(msgspec.structs.replace(record, pid=2**22))
