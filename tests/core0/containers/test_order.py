"""Which containers begin after which: what can never be, and what is still missing."""

import pytest
from msgspec.structs import replace

from core0.containers.order import check_order, lacks_before
from core0.wire.control import RefusedError
from core0.wire.types import Container, ContainerSpec, ContainerState
from corex.wire.health import HealthCheck, HealthReport, HealthState

SPEC = ContainerSpec("http://host/demo/", "0" * 64)
CHECKED = replace(SPEC, health=HealthCheck(port=80))


def after(**others: str) -> ContainerSpec:
    return replace(SPEC, after=others)


@pytest.mark.parametrize(
    ("name", "spec", "pointer", "why"),
    [
        pytest.param("web", after(gone="running"), "/after/gone", "there is none", id="none of that name"),
        pytest.param("web", after(web="running"), "/after/web", "itself: web after web", id="itself"),
        pytest.param("a", after(b="running"), "/after/b", "itself: a after b after c after a", id="a circle"),
        pytest.param("web", after(a="healthy"), "/after/a", "it has no check", id="without a check"),
    ],
)
def test_an_order_that_can_never_be_is_refused(
    name: str, spec: ContainerSpec, pointer: str, why: str
) -> None:
    others = {"a": SPEC, "b": after(c="running"), "c": after(a="running")}
    others.pop(name, None)
    with pytest.raises(RefusedError, match=why) as refused:
        check_order(name, spec, others.get)
    assert (refused.value.refusal.status, refused.value.refusal.pointer) == (422, pointer)


def test_a_diamond_is_no_circle() -> None:
    others = {"a": CHECKED, "b": after(a="running"), "c": after(a="healthy"), "x": after(x="running")}
    check_order("web", after(b="running", c="running", a="healthy"), others.get)


def container(state: ContainerState, health: HealthState | None = None) -> Container:
    report = HealthReport(health, "", 0.0) if health else None
    return Container("db", state, "", CHECKED, health=report)


@pytest.mark.parametrize(
    ("condition", "found", "told"),
    [
        pytest.param("running", None, "which is not there", id="gone"),
        pytest.param("running", container("pulling"), "which is pulling", id="on its way"),
        pytest.param("running", container("running"), "", id="runs"),
        pytest.param("running", container("running", "unhealthy"), "", id="runs, however it is"),
        pytest.param("healthy", container("running", "starting"), "which is starting", id="not yet well"),
        pytest.param("healthy", container("running"), "without a report", id="says nothing"),
        pytest.param("healthy", container("failed", "healthy"), "which is failed", id="was well"),
        pytest.param("healthy", container("running", "healthy"), "", id="well"),
    ],
)
def test_what_is_missing_is_told(condition: str, found: Container | None, told: str) -> None:
    others = {"db": found} if found else {}
    said = lacks_before(after(db=condition), others)
    assert (told in said) if told else said == ""
