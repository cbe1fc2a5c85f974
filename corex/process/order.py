"""What must be true of others before a process starts. Pure."""

from collections.abc import Mapping

import msgspec

from corex.process import model
from corex.wire.api import State
from corex.wire.process import Condition, ProcessSpec

_WANTED: Mapping[Condition, str] = {
    "started": "has started",
    "ready": "is ready",
    "healthy": "is healthy",
    "completed": "has ended",
    "succeeded": "has succeeded",
}


class Seen(msgspec.Struct, frozen=True):
    """A process as those see it that start after it.

    Attributes:
        spec: what it is to be.
        state: what it is.
        why: why it is that.
        succeeded: how its last run ended; None if none has.
        healthy: whether all its checks say so.
    """

    spec: ProcessSpec
    state: State
    why: str
    succeeded: bool | None
    healthy: bool


class Lack(msgspec.Struct, frozen=True):
    """What a process waits for, in words; `forever` if only a person can change that."""

    why: str
    forever: bool


def is_met(condition: Condition, seen: Seen) -> bool:
    """Whether a process is what another waits for."""
    ends = seen.spec.kind != "service"
    has_succeeded = seen.state == "exited" or (seen.state == "scheduled" and seen.succeeded is True)
    if condition == "started":
        ran = seen.state == "scheduled" and seen.succeeded is not None
        return seen.state in model.UP or seen.state == "exited" or ran
    if condition == "ready":
        is_ready = seen.state == "ready" or (seen.state == "running" and seen.spec.ready is None and not ends)
        return is_ready or (ends and has_succeeded)
    if condition == "healthy":
        return seen.state in model.UP and seen.healthy
    if condition == "completed":
        return seen.state in ("exited", "failed") or (
            seen.state == "scheduled" and seen.succeeded is not None
        )
    return has_succeeded


def lack_of(name: str, condition: Condition, seen: Seen) -> Lack | None:
    """What is missing of one process; None if nothing is."""
    if is_met(condition, seen):
        return None
    wanted = _WANTED[condition]
    if seen.state in ("exited", "failed"):
        why = f"it does not start before {name} {wanted}, which is {seen.state}: {seen.why}"
        return Lack(why, forever=True)
    return Lack(f"it starts once {name} {wanted}, which is {seen.state}", forever=False)


def circle_of(specs: Mapping[str, ProcessSpec]) -> tuple[str, ...]:
    """Processes each of which starts after the next, the first again at the end; empty if there is no such circle."""
    done: set[str] = set()
    for first in specs:
        way: list[str] = []
        # each process on the way, with those it starts after that were not looked at yet
        stack = [(first, iter(specs[first].after))] if first not in done else []
        way += [name for name, _ in stack]
        while stack:
            name, others = stack[-1]
            other = next((one for one in others if one in specs and one not in done), None)
            if other is None:
                done.add(name)
                stack.pop()
                way.pop()
            elif other in way:
                return (*way[way.index(other) :], other)
            else:
                stack.append((other, iter(specs[other].after)))
                way.append(other)
    return ()


def dependents_of(specs: Mapping[str, ProcessSpec]) -> dict[str, tuple[str, ...]]:
    """By process, those that start after it, as far as there are any."""
    found: dict[str, list[str]] = {}
    for name, spec in specs.items():
        for other in spec.after:
            found.setdefault(other, []).append(name)
    return {name: tuple(others) for name, others in found.items()}
