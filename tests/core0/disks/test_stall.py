"""A disk that leaves requests waiting is seen, one that is slow or idle is not."""

from pathlib import Path

import pytest

from core0.disks.stall import Sample, Stalls, observe


@pytest.mark.parametrize(
    ("samples", "waiting"),
    [
        ([(0.0, 3, 10), (10.0, 4, 10), (15.0, 4, 10)], {"vda": 4}),
        ([(0.0, 3, 10), (14.9, 3, 10)], {}),
        ([(0.0, 3, 10), (10.0, 3, 11), (20.0, 3, 11)], {}),
        ([(0.0, 3, 10), (10.0, 0, 10), (20.0, 3, 10)], {}),
        ([(0.0, 0, 10), (60.0, 0, 10)], {}),
        ([(0.0, 1, 10), (15.0, 1, 10), (20.0, 1, 11)], {}),
    ],
    ids=["hangs", "not yet", "slow", "was idle in between", "idle", "came to itself"],
)
def test_a_disk_hangs_that_answers_nothing_while_requests_wait(
    samples: list[tuple[float, int, int]], waiting: dict[str, int]
) -> None:
    stalls = Stalls()
    found: dict[str, int] = {}
    for now, waits, answered in samples:
        found = stalls.take({"vda": Sample(waits, answered), "vdb": Sample(0, 5)}, now)
    assert found == waiting


def test_a_disk_that_the_node_keeps_busy_does_not_hang_until_its_time_has_run_again() -> None:
    stalls, sample = Stalls(), {"vda": Sample(1, 10), "vdb": Sample(1, 10)}
    assert stalls.take(sample, 0.0) == {}
    assert stalls.take(sample, 20.0, busy={"vda"}) == {"vdb": 1}
    assert stalls.take(sample, 34.0) == {"vdb": 1}
    assert stalls.take(sample, 50.0) == {"vda": 1, "vdb": 1}


def test_the_kernels_counters_are_read(tmp_path: Path) -> None:
    for name, text in (
        ("inflight", "       2        3\n"),
        ("stat", "5 0 0 0 7 0 0 0 5 0 0 11 0 0 0 13 0\n"),
    ):
        (tmp_path / "block" / "vda").mkdir(parents=True, exist_ok=True)
        (tmp_path / "block" / "vda" / name).write_text(text)
    (tmp_path / "block" / "vdb").mkdir()
    assert observe(str(tmp_path)) == {"vda": Sample(5, 36)}
