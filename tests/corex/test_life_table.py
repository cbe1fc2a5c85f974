"""The life table and the pure decisions around it."""

import signal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corex.process import model
from corex.process.model import EVENTS, STATES, TABLE, Flaw, LifeEvent
from corex.wire.api import Exit, State
from corex.wire.process import Backoff, ProcessSpec, Readiness, Schedule

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


def lived(happenings: list[LifeEvent]) -> State:
    """The state after events, of which those that cannot be are left out."""
    state: State = "stopped"
    for event in happenings:
        state = TABLE.get((state, event), state)
    return state


@given(st.lists(events, max_size=50))
def test_any_life_can_be_stopped_by_one_request_and_the_end_of_its_process(
    happenings: list[LifeEvent],
) -> None:
    state = model.next_state(lived(happenings), "stop")
    assert state in ("stopped", "stopping")
    if state == "stopping":
        assert model.next_state(state, "spawned") == "stopping"
        assert model.next_state(state, "gone") == "stopped"


@given(st.lists(events, max_size=50))
def test_where_a_process_is_its_end_is_expected_and_nowhere_else(happenings: list[LifeEvent]) -> None:
    state = lived(happenings)
    can_end = (state, "retry") in TABLE
    assert can_end == (state in model.ALIVE or state == "starting")
    assert ((state, "gone") in TABLE) == (state == "stopping")
    assert (state in model.SETTLED) == (not can_end and state not in ("backoff", "waiting", "scheduled"))
    assert (state in model.SETTLED) == (state not in model.ACTIVE)


def test_every_state_can_be_reached() -> None:
    reached: set[State] = {"stopped"}
    while more := {after for (state, _), after in TABLE.items() if state in reached} - reached:
        reached |= more
    assert reached == set(STATES)


CRON = Schedule(cron="0 * * * *")


@pytest.mark.parametrize(
    ("policy", "succeeded", "fields", "event", "why"),
    [
        ("never", True, {}, "ended", "its restart policy is never"),
        ("never", False, {}, "broke", "its restart policy is never"),
        ("on-failure", True, {}, "ended", "its restart policy is on-failure"),
        ("on-failure", False, {}, "retry", "its restart policy is on-failure"),
        ("always", True, {}, "retry", "its restart policy is always"),
        ("always", False, {}, "retry", "its restart policy is always"),
        ("always", False, {"limit": 3}, "broke", "it was restarted 3 times in a row, which is its limit"),
        ("always", True, {"limit": 3}, "ended", "it was restarted 3 times in a row, which is its limit"),
        ("always", False, {"limit": 0}, "broke", "it is not to be restarted, which is its limit"),
        ("always", False, {"limit": 4}, "retry", "its restart policy is always"),
    ],
)
@pytest.mark.parametrize("schedule", [None, CRON])
def test_what_follows_an_end(
    policy: str, succeeded: bool, fields: dict[str, int], event: str, why: str, schedule: Schedule | None
) -> None:
    spec = ProcessSpec(("a",), restart=policy, backoff=Backoff(**fields), schedule=schedule)  # type: ignore[arg-type]
    verdict = model.verdict_on_end(spec, succeeded=succeeded, failures=4)
    assert (verdict.event, verdict.why) == (event if event == "retry" or not schedule else "schedule", why)


backoffs = st.builds(
    Backoff,
    first=st.floats(0, 100),
    factor=st.floats(1, 100),
    cap=st.floats(0, 86400),
    jitter=st.floats(0, 1),
)


@given(backoffs, st.integers(1, 10**6), st.floats(0, 1))
def test_backoff_stays_between_its_bounds_and_does_not_shrink(
    backoff: Backoff, failures: int, jitter: float
) -> None:
    delay = model.backoff_delay(backoff, failures, jitter)
    assert 0 <= delay <= (1 + backoff.jitter) * backoff.cap
    assert delay >= (1 - backoff.jitter) * min(backoff.first, backoff.cap) - 1e-9
    assert model.backoff_delay(backoff, failures + 1, jitter) >= delay


def test_backoff_doubles_to_its_cap() -> None:
    delays = [model.backoff_delay(Backoff(), failures, 0.5) for failures in range(1, 9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


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
        (ProcessSpec(("a",), umask="0o22"), "/umask"),
        (ProcessSpec(("a",), umask="89"), "/umask"),
        (ProcessSpec(("a",), limits={"nofile": (2, 1)}), "/limits/nofile"),
        (ProcessSpec(("a",), limits={"core": (-1, 1)}), "/limits/core"),
        (ProcessSpec(("a",), kind="scheduled"), "/schedule"),
        (ProcessSpec(("a",), schedule=CRON), "/schedule"),
        (ProcessSpec(("a",), kind="one-shot", restart="always"), "/restart"),
        (ProcessSpec(("a",), kind="scheduled", schedule=CRON, restart="always"), "/restart"),
        (ProcessSpec(("a",), kind="scheduled", schedule=Schedule()), "/schedule"),
        (ProcessSpec(("a",), kind="scheduled", schedule=Schedule(cron="* * * * *", every=5)), "/schedule"),
        (ProcessSpec(("a",), kind="scheduled", schedule=Schedule(cron="61 * * * *")), "/schedule/cron"),
        (ProcessSpec(("a",), kind="scheduled", schedule=Schedule(cron="* * *")), "/schedule/cron"),
        (ProcessSpec(("a",), kind="scheduled", schedule=Schedule(cron="0 0 30 2 *")), "/schedule/cron"),
        (ProcessSpec(("a",), kind="scheduled", schedule=Schedule(every=5, zone="../x")), "/schedule/zone"),
        (ProcessSpec(("a",), kind="scheduled", schedule=Schedule(every=5, zone="a//b")), "/schedule/zone"),
        (ProcessSpec(("a",), ready=Readiness()), "/ready"),
        (ProcessSpec(("a",), ready=Readiness(line="x", notify=True)), "/ready"),
        (ProcessSpec(("a",), ready=Readiness(line="(")), "/ready/line"),
        (ProcessSpec(("a",), ready=Readiness(line="x", path="/")), "/ready/path"),
        (ProcessSpec(("a",), ready=Readiness(port=1, path="x")), "/ready/path"),
        (ProcessSpec(("a",), ready=Readiness(port=1, path="/ a")), "/ready/path"),
        (ProcessSpec(("a",), ready=Readiness(argv=("",))), "/ready/argv/0"),
        (ProcessSpec(("a",), ready=Readiness(argv=("a", "\0"))), "/ready/argv/1"),
        (ProcessSpec(("a",), ready=Readiness(line="x", watchdog=1)), "/ready/watchdog"),
    ],
)
def test_what_the_kernel_would_refuse_is_found_before(spec: ProcessSpec, pointer: str) -> None:
    flaw = model.flaw_of(spec)
    assert isinstance(flaw, Flaw)
    assert flaw.pointer == pointer


def test_an_ordinary_specification_has_no_flaw() -> None:
    assert model.flaw_of(ProcessSpec(("nginx", "-g", "daemon off;"), env={"LANG": "C"}, user="web")) is None
