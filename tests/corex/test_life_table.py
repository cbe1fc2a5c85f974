"""The life table and the pure decisions around it."""

import signal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corex.process import model
from corex.process.model import EVENTS, STATES, TABLE, Flaw, LifeEvent
from corex.wire.api import Exit, State
from corex.wire.process import ProcessSpec

events = st.sampled_from(sorted(EVENTS))


def test_the_table_knows_exactly_the_states_and_events_of_the_wire() -> None:
    assert set(STATES) == set(get_args(State))
    assert set(EVENTS) == set(get_args(LifeEvent))
    assert {state for state, _ in TABLE} == set(STATES)
    assert {event for _, event in TABLE} == set(EVENTS)
    assert set(TABLE.values()) <= set(STATES)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", ["start", "stop"])
def test_people_may_start_and_stop_in_every_state(state: State, verb: LifeEvent) -> None:
    assert (state, verb) in TABLE


@given(st.lists(events, max_size=50))
def test_any_life_can_be_stopped_by_one_request_and_the_ends_of_its_process(
    happenings: list[LifeEvent],
) -> None:
    state: State = "stopped"
    for event in happenings:
        state = TABLE.get((state, event), state)
    state = model.next_state(state, "stop")
    assert state in ("stopped", "stopping")
    if state == "stopping":
        assert model.next_state(state, "spawned") == "stopping"
        assert model.next_state(state, "broke") == model.next_state(state, "ended") == "stopped"


@given(st.lists(events, max_size=50))
def test_a_process_exists_only_where_its_end_is_expected(happenings: list[LifeEvent]) -> None:
    state: State = "stopped"
    for event in happenings:
        state = TABLE.get((state, event), state)
    can_end = (state, "broke") in TABLE
    assert can_end == (state in ("starting", "running", "stopping"))
    assert (state in model.SETTLED) == (not can_end and state != "backoff")


@pytest.mark.parametrize(
    ("policy", "ended", "wanted", "event"),
    [
        ("never", Exit(code=0), True, "ended"),
        ("never", Exit(code=1), True, "broke"),
        ("never", None, True, "broke"),
        ("on-failure", Exit(code=0), True, "ended"),
        ("on-failure", Exit(code=1), True, "retry"),
        ("on-failure", Exit(signal="SIGKILL"), True, "retry"),
        ("on-failure", None, True, "retry"),
        ("always", Exit(code=0), True, "retry"),
        ("always", Exit(code=1), False, "broke"),
    ],
)
def test_what_follows_an_exit(policy: str, ended: Exit | None, wanted: bool, event: str) -> None:
    assert model.event_after_exit(policy, ended, wanted=wanted) == event  # type: ignore[arg-type]


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_backoff_stays_between_its_bounds_and_does_not_shrink(failures: int, jitter: float) -> None:
    delay = model.backoff_delay(failures, jitter)
    assert 0.8 * model.BACKOFF_FIRST <= delay <= 1.2 * model.BACKOFF_CAP
    assert model.backoff_delay(failures + 1, jitter) >= delay


def test_backoff_doubles_to_its_cap() -> None:
    assert [model.backoff_delay(n, 0.5) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("number", sorted(signal.valid_signals()))
def test_signals_survive_their_names(number: int) -> None:
    assert model.signal_number(model.signal_name(number)) == number


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-1", "SIGNOPE", "sigterm", "9 ", "1e1", "SIG", "SIGSIGTERM", "٣"]
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="there is no signal"):
        model.signal_number(text)


@pytest.mark.parametrize(
    ("ended", "code"),
    [(Exit(code=0), 0), (Exit(code=255), 255), (Exit(signal="SIGKILL"), 137), (Exit(signal="34"), 162)],
)
def test_a_container_exits_as_a_shell_would(ended: Exit, code: int) -> None:
    assert model.exit_code_of(ended) == code


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        (ProcessSpec(("a", "b\0")), "/argv/1"),
        (ProcessSpec(("",)), "/argv/0"),
        (ProcessSpec(("a",), env={"A=B": ""}), "/env"),
        (ProcessSpec(("a",), env={"": ""}), "/env"),
        (ProcessSpec(("a",), env={"A": "\0"}), "/env"),
        (ProcessSpec(("a",), cwd="tmp"), "/cwd"),
        (ProcessSpec(("a",), cwd="/\0"), "/cwd"),
        (ProcessSpec(("a",), stop_signal="SIGNOPE"), "/stop_signal"),
    ],
)
def test_what_the_kernel_would_refuse_is_found_before(spec: ProcessSpec, pointer: str) -> None:
    flaw = model.flaw_of(spec)
    assert isinstance(flaw, Flaw)
    assert flaw.pointer == pointer


def test_an_ordinary_specification_has_no_flaw() -> None:
    assert model.flaw_of(ProcessSpec(("nginx", "-g", "daemon off;"), env={"LANG": "C"}, user="web")) is None
