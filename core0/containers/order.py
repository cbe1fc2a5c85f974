"""Which containers begin after which. Pure."""

from collections.abc import Callable, Mapping

from core0.wire.control import invalid
from core0.wire.types import Container, ContainerSpec

Find = Callable[[str], ContainerSpec | None]


def check_order(name: str, spec: ContainerSpec, find: Find) -> None:
    """Refuse an order that can never be (422).

    Args:
        name: a container.
        spec: what it shall be.
        find: tells what any other one shall be.
    """
    for other, condition in spec.after.items():
        pointer = f"/after/{other}"
        known = find(other)
        if other != name and known is None:
            detail = f"cannot start it after container {other}: there is none"
            raise invalid(detail, "make that one first, or leave it out", pointer)
        circle = _circle(name, other, find)
        if circle:
            detail = f"cannot start it after itself: {' after '.join((name, *circle))}"
            raise invalid(detail, "leave one of them out", pointer)
        if condition == "healthy" and known and known.health is None:
            detail = f"cannot wait until container {other} is healthy: it has no check"
            raise invalid(detail, "give that one a health check, or wait until it is running", pointer)


def _circle(name: str, other: str, find: Find) -> tuple[str, ...]:
    """The way from another container back to one, itself at the end; empty if there is none."""
    ways: list[tuple[str, ...]] = [(other,)]
    seen = {other}
    while ways:
        way = ways.pop()
        if way[-1] == name:
            return way
        spec = find(way[-1])
        before = spec.after if spec else {}
        ways += [(*way, one) for one in before if one not in seen]
        seen |= set(before)
    return ()


def lacks_before(spec: ContainerSpec, containers: Mapping[str, Container]) -> str:
    """What of its `after` a container still waits for, in words; empty if it may begin."""
    for other, condition in spec.after.items():
        found = containers.get(other)
        if found is None:
            return f"it begins after container {other}, which is not there"
        if found.state not in ("running", "paused"):
            return f"it begins after container {other}, which is {found.state}"
        if condition == "healthy" and (found.health is None or found.health.state != "healthy"):
            said = found.health.state if found.health else "without a report of its health"
            return f"it begins once container {other} is healthy, which is {said}"
    return ""
