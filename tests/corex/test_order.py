"""Who starts after whom, and what must be true then."""

from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corex.process.order import Seen, circle_of, dependents_of, is_met, lack_of
from corex.wire.api import State
from corex.wire.process import Condition, ProcessSpec, Readiness, Schedule

SHOWS = Readiness(notify=True)
SERVICE, SHOWING = ProcessSpec(("a",)), ProcessSpec(("a",), ready=SHOWS)
ONCE = ProcessSpec(("a",), kind="one-shot")
TIMED = ProcessSpec(("a",), kind="scheduled", schedule=Schedule(every=1))

# By specification and state (and how the last run ended), the conditions that are met.
MET: dict[tuple[str, str, bool | None], set[str]] = {
    ("service", "running", None): {"started", "ready"},
    ("showing", "running", None): {"started"},
    ("showing", "ready", None): {"started", "ready"},
    ("one-shot", "running", None): {"started"},
    ("service", "exited", True): {"started", "completed", "succeeded"},
    ("one-shot", "exited", True): {"started", "ready", "completed", "succeeded"},
    ("one-shot", "failed", False): {"completed"},
    ("scheduled", "scheduled", None): set(),
    ("scheduled", "scheduled", False): {"started", "completed"},
    ("scheduled", "scheduled", True): {"started", "ready", "completed", "succeeded"},
    ("scheduled", "running", True): {"started"},
    ("service", "backoff", False): set(),
    ("service", "stopping", None): set(),
    ("service", "stopped", True): set(),
    ("service", "waiting", None): set(),
    ("service", "starting", None): set(),
}
SPECS = {"service": SERVICE, "showing": SHOWING, "one-shot": ONCE, "scheduled": TIMED}


@pytest.mark.parametrize(("seen", "met"), MET.items(), ids=[" ".join(map(str, one)) for one in MET])
def test_what_is_true_of_a_process(seen: tuple[str, Any, bool | None], met: set[str]) -> None:
    kind, state, succeeded = seen
    one = Seen(SPECS[kind], state, "why", succeeded, healthy=False)
    assert {condition for condition in get_args(Condition) if is_met(condition, one)} == met


@pytest.mark.parametrize("state", get_args(State))
def test_who_runs_is_healthy_if_its_checks_say_so(state: State) -> None:
    assert not is_met("healthy", Seen(SERVICE, state, "", None, healthy=False))
    assert is_met("healthy", Seen(SERVICE, state, "", None, healthy=True)) == (state in ("running", "ready"))


@given(
    st.sampled_from(get_args(Condition)),
    st.sampled_from(get_args(State)),
    st.sampled_from(list(SPECS.values())),
)
def test_only_what_ended_for_good_is_waited_for_in_vain(
    condition: Condition, state: State, spec: ProcessSpec
) -> None:
    seen = Seen(spec, state, "because", None, healthy=False)
    lack = lack_of("db", condition, seen)
    assert (lack is None) == is_met(condition, seen)
    if lack is not None:
        assert lack.forever == (state in ("exited", "failed"))
        assert f", which is {state}" in lack.why
        assert lack.why.endswith(": because") == lack.forever


graphs = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefx"), max_size=3, unique=True), max_size=6
)


def reaches(graph: dict[str, list[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    left = list(graph[start])
    while left:
        one = left.pop()
        if one == goal:
            return True
        if one in graph and one not in seen:
            seen.add(one)
            left += graph[one]
    return False


@given(graphs)
def test_a_circle_is_found_if_there_is_one_and_is_one(graph: dict[str, list[str]]) -> None:
    specs = {
        name: ProcessSpec(("a",), after=dict.fromkeys(others, "ready")) for name, others in graph.items()
    }
    circle = circle_of(specs)
    assert bool(circle) == any(reaches(graph, name, name) for name in graph)
    if circle:
        assert circle[0] == circle[-1]
        assert all(after in graph[one] for one, after in pairwise(circle))


def test_a_long_row_is_no_circle_and_takes_no_recursion() -> None:
    specs = {f"p{n}": ProcessSpec(("a",), after={f"p{n + 1}": "ready"}) for n in range(5000)}
    assert circle_of(specs) == ()
    specs["p5000"] = ProcessSpec(("a",), after={"p0": "started"})
    assert len(circle_of(specs)) == 5002


@given(graphs)
def test_dependents_are_the_other_way_round(graph: dict[str, list[str]]) -> None:
    specs = {
        name: ProcessSpec(("a",), after=dict.fromkeys(others, "ready")) for name, others in graph.items()
    }
    pairs = {(name, other) for name, others in graph.items() for other in others}
    assert {(one, other) for other, ones in dependents_of(specs).items() for one in ones} == pairs
