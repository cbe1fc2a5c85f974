"""Figures of a cgroup's files."""

import pytest

from core0.containers.stats import sum_io


@pytest.mark.parametrize(
    ("text", "sums"),
    [
        pytest.param("", {}, id="nothing yet"),
        pytest.param("254:0 \n", {}, id="a disk without figures"),
        pytest.param(
            "254:0 rbytes=10 wbytes=1 rios=2 wios=1\n254:16 rbytes=5 wbytes=0 rios=1 wios=0 cost.usage=7\n",
            {"rbytes": 15, "wbytes": 1, "rios": 3, "wios": 1, "cost.usage": 7},
            id="two disks",
        ),
    ],
)
def test_io_of_all_disks_counts_together(text: str, sums: dict[str, int]) -> None:
    assert sum_io(text) == sums
