"""Which of the copies that were read is what this node remembers. Pure.

A change is acknowledged once all members of its state hold it, and each state is made of the one before. So where all
states come from one another, the last one has everything that was acknowledged, however few disks hold it; a majority
would not do: of a state with two members whose one disk died, half is left, while the state before it, of one member,
is complete on the same disk.

States that do not come from one another are forks: the machine ran on one disk while another was away, and then the
other way round; or it ended amid a change, and went on without the disk that had got it already. The latter was never
acknowledged if one of its members is here and does not have it. Among what is left the one changed last wins, by the
machine's clock, as nothing on the disks tells it; the others are kept as they are, and are reported.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from core0.state.model import Copy, Machine, Reading, Relation, State, digest
from core0.wire.state import NEWER_IMAGE


class Foreign(msgspec.Struct, frozen=True):
    """A disk that remembers another node: where it is, the node's id, the machine that it was."""

    path: str
    node: str
    machine: Machine


class Choice(msgspec.Struct, frozen=True):
    """What was chosen.

    Attributes:
        state: what the node remembers; None if there is nothing of this machine.
        holders: its members that hold it.
        complete: whether they are more than half of its members.
        forks: the areas that hold a fork of it, which may have been acknowledged.
        foreign: the areas of other nodes.
        warnings: one sentence each.
    """

    state: State | None = None
    holders: tuple[str, ...] = ()
    complete: bool = False
    forks: tuple[str, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    warnings: tuple[str, ...] = ()


class _Rank(NamedTuple):
    """What makes one fork come before another."""

    changed: int
    complete: bool
    sequence: int
    digest: bytes


def choose(readings: Sequence[Reading], machine: Machine, node: str | None = None) -> Choice:
    """Choose among what was read; the order of the readings does not matter.

    Args:
        readings: what the areas hold.
        machine: this machine: a node that is another one is not taken.
        node: this node's id, if it is known already: no other is taken then, whatever its machine.
    """
    found = {name: _newest(copies) for name, copies in _by_node(readings).items()}
    own = node if node is not None else _own_node(found, machine)
    strange = [
        f"{one.path} is left as it is: {one.strange}; {NEWER_IMAGE}" for one in readings if one.strange
    ]
    foreign = tuple(sorted(_foreign(readings, own, found), key=lambda one: (one.path, one.node)))
    if own not in found:
        return Choice(foreign=foreign, warnings=(*sorted(strange), *map(_tell_foreign, foreign)))
    state = found[own]
    holders = _holders(state, _by_node(readings)[own])
    forks = tuple(sorted(one.path for one in readings if relation(one, state, holders) == "fork"))
    complete = _is_majority(holders, state)
    warnings = (*_tell_missing(state, holders, readings), *map(_tell_fork, forks), *sorted(strange))
    return Choice(state, holders, complete, forks, foreign, (*warnings, *map(_tell_foreign, foreign)))


def may_decide(readings: Sequence[Reading], unanswered: int, machine: Machine) -> bool:
    """Whether a boot may go on before all areas have answered.

    It may if what would be chosen is held by most of its members, and by more disks than are still to answer. Then
    these can only have something later if all of those had failed at once while one of these had not. A disk that
    turns out to be such a one is found when it answers (`relation` is `newer`).
    """
    if unanswered == 0:
        return True
    choice = choose(readings, machine)
    return choice.complete and not choice.forks and len(choice.holders) > unanswered


def relation(reading: Reading, state: State, members: Iterable[str]) -> Relation:
    """What an area's content is to a state that is held by some members.

    `blank` holds nothing that is valid; `stale` holds what the state was made of, or what was never acknowledged;
    `newer` holds what was made of the state.
    """
    if reading.error:
        return "unread"
    if reading.strange:
        return "strange"
    if not reading.held:
        return "blank"
    own = [held.copy for held in reading.held if held.copy.state.node == state.node]
    if not own:
        return "foreign"
    if any(_is_after(copy.state, state) for copy in own):
        return "newer"
    if any(_may_be_lost(copy, state, members) for copy in own):
        return "fork"
    return "current" if any(_is_same(copy.state, state) for copy in own) else "stale"


def _may_be_lost(copy: Copy, state: State, members: Iterable[str]) -> bool:
    """Whether a copy has something that the state does not have, and that may have been acknowledged.

    It was not if another of its members held what became the state instead.
    """
    if _is_same(copy.state, state) or _is_after(state, copy.state):
        return False
    return not set(copy.state.members) & (set(members) - {copy.disk})


def _is_same(one: State, other: State) -> bool:
    return one is other or (one.comes_from(other) and other.comes_from(one) and digest(one) == digest(other))


def _is_after(later: State, earlier: State) -> bool:
    return later.comes_from(earlier) and not earlier.comes_from(later)


def _by_node(readings: Iterable[Reading]) -> dict[str, list[Copy]]:
    groups: dict[str, list[Copy]] = {}
    for reading in readings:
        for held in reading.held:
            groups.setdefault(held.copy.state.node, []).append(held.copy)
    return groups


def _own_node(found: dict[str, State], machine: Machine) -> str | None:
    """The node that this machine is: the one whose machine it looks most like.

    Of equals it is the one of more changes, as a node that began while the disks were away has had few.
    """
    likely = [
        (machine.likeness(state.machine), state.sequence, state.changed, name)
        for name, state in found.items()
    ]
    likeness, *_, own = max(likely, default=(0, None))
    return str(own) if likeness else None


def _newest(copies: Sequence[Copy]) -> State:
    """The state that wins among those of one node, and what was made of it, whether or not it was acknowledged."""
    different = {id(copy.state): copy.state for copy in copies}.values()  # equal ones mostly are one object
    states = list({digest(state): state for state in different}.values())
    acknowledged = [state for state in states if _may_be_acknowledged(state, copies)]
    winner = max(_last(acknowledged or states), key=lambda state: _rank(state, copies))
    made_of_it = [state for state in states if state.comes_from(winner) and state != winner]
    return max(_last([winner, *made_of_it]), key=lambda state: _rank(state, copies))


def _last(states: Sequence[State]) -> Sequence[State]:
    """Those of which no other was made; all, if their histories contradict one another."""
    return [one for one in states if not any(_is_after(other, one) for other in states)] or states


def _may_be_acknowledged(state: State, copies: Sequence[Copy]) -> bool:
    """Whether all of its members that are here hold it."""
    present = {copy.disk for copy in copies}
    return set(_holders(state, copies)) >= present & set(state.members)


def _rank(state: State, copies: Sequence[Copy]) -> _Rank:
    complete = _is_majority(_holders(state, copies), state)
    return _Rank(state.changed, complete, state.sequence, digest(state))


def _holders(state: State, copies: Iterable[Copy]) -> tuple[str, ...]:
    """The members of a state that hold it, or something that was made of it."""
    holding = {copy.disk for copy in copies if copy.state.comes_from(state)}
    return tuple(sorted(holding & set(state.members)))


def _is_majority(holders: Sequence[str], state: State) -> bool:
    return 2 * len(holders) > len(set(state.members))


def _foreign(readings: Iterable[Reading], own: str | None, found: dict[str, State]) -> list[Foreign]:
    foreign = []
    for reading in readings:
        nodes = {held.copy.state.node for held in reading.held}
        if own not in nodes:
            foreign += [Foreign(reading.path, node, found[node].machine) for node in nodes]
    return foreign


def _tell_foreign(foreign: Foreign) -> str:
    return (
        f"{foreign.path} is left as it is: it belongs to node {foreign.node} on another machine "
        f"({foreign.machine}); adopt that node, or claim the disk anew"
    )


def _tell_fork(path: str) -> str:
    return (
        f"{path} is left as it is: it remembers changes of this node that the chosen state does not have, because "
        "the machine ran without it and on it by turns; adopt what it remembers, or claim the disk anew"
    )


def _tell_missing(state: State, holders: Sequence[str], readings: Iterable[Reading]) -> list[str]:
    present = {held.copy.disk for one in readings for held in one.held if held.copy.state.node == state.node}
    missing = sorted(set(state.members) - set(holders) - present)
    if not missing or _is_majority(holders, state):
        return []
    held = f"{len(holders)} of the {len(set(state.members))} disks that had it"
    remedy = f"missing: {', '.join(missing)}; put them back, or go on without them"
    return [f"the state may be an old one: it is on {held}; {remedy}"]
