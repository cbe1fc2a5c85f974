"""Medians, ratios and goals."""

import pytest

from cli.measure import Measure, ratios


def test_the_median_is_held_against_the_goal() -> None:
    assert Measure("m", "s", (5, 1, 2, 9, 2), goal=2).met
    assert not Measure("m", "s", (5, 1, 3, 9, 3), goal=2).met
    assert Measure("m", "s", (5.0,)).met


def test_a_ratio_is_taken_run_by_run() -> None:
    ours, other = Measure("a", "s", (4, 9, 6)), Measure("b", "s", (2, 3, 3))
    assert ratios("a / b", ours, other, goal=2.5).samples == (2, 3, 2)
    with pytest.raises(ValueError, match="shorter"):
        ratios("a / b", ours, Measure("b", "s", (2,)), goal=2)
