"""Measurements: samples of one run, their median, and the goal that they are held against."""

import statistics
from collections.abc import Sequence

import msgspec

from cli.output import print_rows

RUNS = 5


class Measure(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        name: what, in words.
        unit: of samples and goal.
        samples: in the order in which they were taken.
        goal: the most that the median may be, None if there is no goal.
    """

    name: str
    unit: str
    samples: tuple[float, ...]
    goal: float | None = None

    @property
    def median(self) -> float:
        """The middle sample."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool:
        """Whether the median is within the goal."""
        return self.goal is None or self.median <= self.goal


def ratios(name: str, ours: Measure, other: Measure, goal: float) -> Measure:
    """How many times ours takes what the other takes, run by run, so that both saw the same machine."""
    pairs = zip(ours.samples, other.samples, strict=True)
    return Measure(name, "times", tuple(one / two for one, two in pairs), goal)


def report(measures: Sequence[Measure], as_json: bool) -> None:
    """Print the measures with their medians."""
    columns = ("measure", "median", "least", "most", "runs", "goal")
    facts = [{**msgspec.structs.asdict(one), "median": one.median, "met": one.met} for one in measures]
    print_rows(facts, columns, [_row(one) for one in measures], as_json=as_json)


def _row(one: Measure) -> tuple[str, ...]:
    goal = "-" if one.goal is None else f"≤ {one.goal:g} {one.unit} {'met' if one.met else 'MISSED'}"
    numbers = (one.median, min(one.samples), max(one.samples))
    return (one.name, *(f"{number:.2f} {one.unit}" for number in numbers), str(len(one.samples)), goal)
