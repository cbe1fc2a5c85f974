"""Choosing among copies: by where states come from, whatever the disks' order; the rows tell the cases apart."""

import itertools
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core0.state.choose import Choice, choose, may_decide, relation
from core0.state.model import Copy, Held, Machine, Reading, State, Term, digest

NODE, OTHER = "ab" * 16, "cd" * 16
HERE = Machine("e2b1c3d4-1111-4222-8333-444455556666", ("52:54:00:00:00:01", "52:54:00:00:00:02"))
ELSEWHERE = Machine("aaaabbbb-9999-4888-8777-666655554444", ("52:54:00:00:00:99",))


def term(number: int, first: int) -> Term:
    return Term(f"{number:032x}", first)


def state(
    sequence: int,
    members: str,
    *history: Term,
    changed: int = 0,
    node: str = NODE,
    machine: Machine = HERE,
    value: int = 0,
) -> State:
    """A state whose members are named by one letter each."""
    sections = {"value": msgspec.Raw(str(value).encode())}
    return State(node, sequence, history or (term(1, 1),), tuple(members), machine, changed, sections)


def reading(disk: str, *states: State, strange: str = "", error: str = "") -> Reading:
    held = tuple(Held(Copy(disk, one), digest(one)) for one in states)
    return Reading(f"/dev/{disk}1", held, strange, error)


def chosen(*readings: Reading, machine: Machine = HERE) -> Choice:
    """The choice, which is the same in each order."""
    choices = [choose(order, machine) for order in itertools.permutations(readings)]
    assert all(choice == choices[0] for choice in choices)
    return choices[0]


T1, T2, T3 = term(1, 1), term(2, 6), term(3, 6)


@pytest.mark.parametrize(
    ("later", "earlier", "comes"),
    [
        pytest.param(state(5, "a"), state(5, "a"), True, id="itself"),
        pytest.param(state(5, "a"), state(4, "a"), True, id="of the same term"),
        pytest.param(state(4, "a"), state(5, "a"), False, id="the other way round"),
        pytest.param(state(9, "a", T1, T2), state(5, "a"), True, id="of the term before"),
        pytest.param(state(9, "a", T1, T2), state(6, "a"), False, id="that term went on elsewhere"),
        pytest.param(state(9, "a", T1, T2), state(6, "a", T1, T3), False, id="two terms of one state"),
        pytest.param(state(9, "a", term(7, 8)), state(7, "a", T1, T3), True, id="older than the history"),
        pytest.param(
            state(9, "a", term(7, 8)), state(8, "a", T1, T3), False, id="not older than the history"
        ),
    ],
)
def test_where_a_state_comes_from(later: State, earlier: State, comes: bool) -> None:
    assert later.comes_from(earlier) == comes


def test_the_newest_wins_also_where_an_older_one_is_complete() -> None:
    """A disk of two that are members: its other slot is the state of the time when it was the only one."""
    alone, both = state(4, "a"), state(5, "ab", value=1)
    choice = chosen(reading("a", alone, both))
    assert (choice.state, choice.complete, choice.holders) == (both, False, ("a",))
    (warning,) = choice.warnings
    assert "may be an old one: it is on 1 of the 2 disks that had it; missing: b; put them back" in warning


def test_a_majority_that_is_here_raises_no_warning() -> None:
    choice = chosen(reading("a", state(5, "abc")), reading("b", state(5, "abc")))
    assert (choice.complete, choice.holders, choice.warnings) == (True, ("a", "b"), ())


def test_a_stale_disk_does_not_count_and_is_no_fork() -> None:
    new = state(7, "ab", T1, T2, value=2)
    choice = chosen(reading("a", new), reading("b", new), reading("c", state(5, "abc")))
    assert (choice.state, choice.forks, choice.warnings) == (new, (), ())


def test_of_two_forks_the_one_changed_last_wins_and_the_other_is_reported() -> None:
    one, two = state(9, "a", T1, T2, changed=100), state(6, "b", T1, T3, changed=200)
    choice = chosen(reading("a", one), reading("b", two))
    assert (choice.state, choice.forks) == (two, ("/dev/a1",))
    assert choice.warnings[0].startswith("/dev/a1 is left as it is: it remembers changes of this node that")


def test_a_change_that_was_never_acknowledged_is_no_fork() -> None:
    """The machine ended when only `a` had it, and went on with `b`, which it should have had, too."""
    unacknowledged, went_on = state(6, "ab", T1, T2, changed=300), state(6, "b", T1, T3, changed=200)
    choice = chosen(reading("a", unacknowledged), reading("b", went_on))
    assert (choice.state, choice.forks) == (went_on, ())
    assert relation(reading("a", unacknowledged), went_on, "b") == "stale"


def test_what_was_acknowledged_before_such_a_change_still_wins_over_a_fork() -> None:
    acknowledged, unacknowledged = (state(count, "ab", T1, T2, changed=count) for count in (7, 8))
    fork = state(6, "c", T1, T3, changed=6)
    choice = chosen(
        reading("a", acknowledged), reading("b", acknowledged, unacknowledged), reading("c", fork)
    )
    assert (choice.state, choice.forks) == (unacknowledged, ("/dev/c1",))


def test_the_same_sequence_with_different_content_is_resolved_and_reported() -> None:
    one, two = state(5, "a", value=1), state(5, "b", value=2)
    choice = chosen(reading("a", one), reading("b", two))
    winner = max((one, two), key=digest)
    assert choice.state == winner
    assert len(choice.forks) == 1


@pytest.mark.parametrize(
    ("facts", "own"),
    [
        pytest.param(HERE, True, id="the same"),
        pytest.param(Machine(HERE.uuid.upper()), True, id="the UUID in other letters"),
        pytest.param(Machine("", (HERE.addresses[1].upper(),)), True, id="one card in common"),
        pytest.param(
            Machine(ELSEWHERE.uuid, HERE.addresses[:1]), True, id="another board, one card in common"
        ),
        pytest.param(ELSEWHERE, False, id="another machine"),
        pytest.param(Machine(), False, id="nothing known"),
    ],
)
def test_a_machine_knows_its_own_disks(facts: Machine, own: bool) -> None:
    choice = chosen(reading("a", state(5, "a")), machine=facts)
    assert (choice.state is not None) == own
    assert (choice.foreign == ()) == own


@pytest.mark.parametrize(
    "uuid",
    [
        "",
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
        "03000200-0400-0500-0006-000700080009",
    ],
)
def test_a_uuid_that_says_nothing_matches_nothing(uuid: str) -> None:
    assert chosen(reading("a", state(5, "a", machine=Machine(uuid))), machine=Machine(uuid)).state is None


def test_disks_of_another_machine_are_named_with_the_remedy() -> None:
    foreign = state(900, "x", node=OTHER, machine=ELSEWHERE, changed=900)
    choice = chosen(reading("x", foreign), reading("a", state(5, "a")))
    assert choice.state == state(5, "a")
    (warning,) = choice.warnings
    assert warning.startswith(f"/dev/x1 is left as it is: it belongs to node {OTHER} on another machine")
    assert warning.endswith(f"({ELSEWHERE}); adopt that node, or claim the disk anew")


def test_of_two_nodes_with_a_card_of_this_machine_the_one_of_its_board_is_this_one() -> None:
    moved = state(900, "x", node=OTHER, machine=Machine(ELSEWHERE.uuid, HERE.addresses), changed=900)
    choice = chosen(reading("x", moved), reading("a", state(5, "a")))
    assert choice.state == state(5, "a")
    assert [one.node for one in choice.foreign] == [OTHER]


def test_a_node_that_is_known_already_takes_no_other_state() -> None:
    choice = choose((reading("a", state(5, "a")),), HERE, OTHER)
    assert choice.state is None
    assert [one.node for one in choice.foreign] == [NODE]


def test_a_disk_of_this_node_with_a_rest_of_another_is_no_foreign_one() -> None:
    """The machine ended while a disk of another node was overwritten as the operator wished."""
    rest = state(900, "x", node=OTHER, machine=ELSEWHERE)
    choice = chosen(reading("a", state(5, "ab")), reading("b", rest, state(5, "ab")))
    assert (choice.foreign, choice.holders) == ((), ("a", "b"))


def test_copies_of_one_disk_count_once() -> None:
    assert not chosen(
        *(msgspec.structs.replace(reading("a", state(5, "ab")), path=p) for p in "xyz")
    ).complete


def test_what_this_image_does_not_understand_is_told() -> None:
    choice = chosen(reading("a", state(5, "a"), strange="format 7, this image knows format 1"))
    assert choice.state == state(5, "a")
    (warning,) = choice.warnings
    assert warning.startswith(
        "/dev/a1 is left as it is: format 7, this image knows format 1; boot the image that"
    )


NEW = state(7, "ab", T1, T2, value=2)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(reading("c"), "blank", id="nothing"),
        pytest.param(reading("a", state(5, "abc"), NEW), "current", id="the state itself"),
        pytest.param(reading("c", state(5, "abc")), "stale", id="what it was made of"),
        pytest.param(reading("c", state(9, "c", T1, T2)), "newer", id="what was made of it"),
        pytest.param(reading("c", state(9, "c", T1, T3)), "fork", id="what was made beside it"),
        pytest.param(reading("c", state(9, "ac", T1, T3)), "stale", id="beside it, never acknowledged"),
        pytest.param(reading("c", state(9, "c", node=OTHER)), "foreign", id="another node"),
        pytest.param(reading("c", NEW, strange="format 7"), "strange", id="not understood"),
        pytest.param(reading("c", error="no answer within 1 s"), "unread", id="not read"),
    ],
)
def test_what_an_area_is_to_the_state(found: Reading, expected: str) -> None:
    assert relation(found, NEW, "ab") == expected


S1, S2, S3 = state(5, "a"), state(5, "ab"), state(5, "abc")


@pytest.mark.parametrize(
    ("readings", "unanswered", "may"),
    [
        pytest.param([], 0, True, id="no disks"),
        pytest.param([], 1, False, id="none has answered"),
        pytest.param([reading("a", S1)], 0, True, id="all have answered"),
        pytest.param([reading("a", S1)], 1, False, id="one against one"),
        pytest.param([reading("a", S2)], 1, False, id="one of two"),
        pytest.param([reading("a", S2), reading("b", S2)], 1, True, id="both, and another disk"),
        pytest.param([reading("a", S3), reading("b", S3)], 1, True, id="two of three"),
        pytest.param([reading("a", S3), reading("b", S3)], 2, False, id="as many are still to answer"),
        pytest.param([reading("a", S3), reading("b")], 1, False, id="a blank one says nothing"),
        pytest.param(
            [reading(disk, msgspec.structs.replace(S2, machine=ELSEWHERE)) for disk in "ab"],
            1,
            False,
            id="another machine's",
        ),
        pytest.param(
            [reading("a", state(9, "a", T1, T2)), reading("b", state(9, "b", T1, T3))], 1, False, id="forks"
        ),
    ],
)
def test_a_boot_waits_only_for_what_could_matter(
    readings: Sequence[Reading], unanswered: int, may: bool
) -> None:
    assert may_decide(readings, unanswered, HERE) == may


@st.composite
def states(draw: st.DrawFn) -> State:
    """A state whose history leads to it, which need not agree with any other's."""
    firsts = sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=4)))
    names = draw(st.permutations(range(1, 5)))
    return state(
        draw(st.integers(firsts[-1], 12)),
        "".join(sorted(draw(st.sets(st.sampled_from("abcd"))))),
        *(term(*one) for one in zip(names, firsts, strict=False)),
        changed=draw(st.integers(0, 3)),
        node=draw(st.sampled_from((NODE, OTHER))),
        value=draw(st.integers(0, 3)),
    )


STATES = states()
READINGS = st.lists(
    st.builds(
        lambda disk, states: reading(disk, *states), st.sampled_from("abcd"), st.lists(STATES, max_size=2)
    ),
    max_size=5,
)


@given(READINGS, st.randoms(use_true_random=False))
def test_whatever_disks_say_one_of_their_states_is_chosen_in_any_order(
    readings: list[Reading], random: "object"
) -> None:
    """Also what no node has ever written: histories that contradict one another."""
    choice = choose(readings, HERE)
    random.shuffle(readings)  # type: ignore[attr-defined]
    again = choose(readings, HERE)
    assert (again.state, again.holders, again.complete) == (choice.state, choice.holders, choice.complete)
    assert sorted(again.warnings) == sorted(choice.warnings)
    states = [held.copy.state for one in readings for held in one.held]
    assert (choice.state in states) if states else choice.state is None
