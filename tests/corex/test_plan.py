"""Plans of layers: what they say together, how two differ, and that applying one leaves nothing to do."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corex.process import plan
from corex.process.model import must_restart
from corex.process.plan import PlanError
from corex.wire.plan import CheckLayer, Layer, Plan, ProcessLayer
from corex.wire.process import CheckSpec, ProcessSpec
from tests.corex.fake_world import Machine

ARGV = ("sleep", "1")


@pytest.mark.parametrize(("layer", "spec"), [(ProcessLayer, ProcessSpec), (CheckLayer, CheckSpec)])
def test_a_layer_can_say_all_that_a_specification_says(layer: Any, spec: Any) -> None:
    """With the same limits, so that no plan is refused only when its layers are put together."""

    def types_of(struct: Any) -> dict[str, str]:
        schema = msgspec.json.schema_components([struct], ref_template="{name}")[1][struct.__name__]
        drop = ("default", "title", "description")
        return {
            name: repr({key: value for key, value in one.items() if key not in drop})
            for name, one in schema["properties"].items()
        }

    said = types_of(layer)
    assert said.pop("override")
    assert said == types_of(spec)


def test_merging_changes_what_is_given_and_replacing_forgets_the_rest() -> None:
    low = ProcessLayer(
        argv=ARGV, env={"A": "1", "B": "1"}, limits={"core": (0, 0)}, after={"x": "ready"}, nice=3
    )
    merged = ProcessLayer(env={"B": "2", "C": "2"}, limits={"cpu": (1, 1)}, after={"x": "started"}, umask="0")
    x = ProcessLayer(argv=ARGV)
    both = {"low": Layer(processes={"a": low, "x": x}), "high": Layer(processes={"a": merged})}
    assert plan.merge(both).processes["a"] == ProcessSpec(
        ARGV,
        env={"A": "1", "B": "2", "C": "2"},
        limits={"core": (0, 0), "cpu": (1, 1)},
        after={"x": "started"},
        nice=3,
        umask="0",
    )
    replaced = msgspec.structs.replace(merged, override="replace", argv=("id",))
    both["high"] = Layer(processes={"a": replaced})
    assert plan.merge(both).processes["a"].env == {"B": "2", "C": "2"}
    assert plan.merge(both).processes["a"].nice == 0


def test_checks_are_merged_the_same_way() -> None:
    layers = {
        "low": Layer(
            processes={"a": ProcessLayer(argv=ARGV)}, checks={"c": CheckLayer(process="a", port=80)}
        ),
        "high": Layer(checks={"c": CheckLayer(interval=5, path="/x")}),
    }
    assert plan.merge(layers).checks == {"c": CheckSpec(process="a", port=80, interval=5, path="/x")}


@pytest.mark.parametrize(
    ("check", "pointer"),
    [
        (CheckLayer(), "/checks/c/process"),
        (CheckLayer(process="a"), "/checks/c"),
        (CheckLayer(process="a", port=1, argv=("x",)), "/checks/c"),
        (CheckLayer(process="a", argv=("x",), path="/"), "/checks/c/path"),
        (CheckLayer(process="a", port=1, path="x"), "/checks/c/path"),
        (CheckLayer(process="a", argv=("x", "\0")), "/checks/c/argv/1"),
        (CheckLayer(process="b", port=1), "/checks/c/process"),
    ],
)
def test_a_check_that_is_none_is_refused(check: CheckLayer, pointer: str) -> None:
    with pytest.raises(PlanError) as refused:
        plan.merge({"one": Layer(processes={"a": ProcessLayer(argv=ARGV)}, checks={"c": check})})
    assert refused.value.pointer == pointer


def test_one_process_more_is_checked_as_all_of_them_are() -> None:
    known = plan.merge(
        {
            "l": Layer(
                processes={
                    "a": ProcessLayer(argv=ARGV, after={"b": "completed"}),
                    "b": ProcessLayer(argv=ARGV),
                }
            )
        }
    )
    for name, spec in {
        "b": ProcessSpec(ARGV, restart="always"),
        "c": ProcessSpec(ARGV, after={"d": "ready"}),
        "d": ProcessSpec(("",)),
        "e": ProcessSpec(ARGV, after={"a": "healthy"}),
    }.items():
        with pytest.raises(PlanError) as one:
            plan.with_process(known, name, spec)
        layers = {
            "l": Layer(
                processes={
                    n: ProcessLayer("replace", **msgspec.structs.asdict(s))
                    for n, s in {**known.processes, name: spec}.items()
                }
            )
        }
        with pytest.raises(PlanError) as all_of_them:
            plan.merge(layers)
        assert (one.value.pointer, str(one.value)) == (all_of_them.value.pointer, str(all_of_them.value))


def test_an_etag_tells_plans_apart_and_not_the_order_of_names() -> None:
    one, other = ProcessSpec(ARGV, env={"A": "1", "B": "2"}), ProcessSpec(ARGV, env={"B": "2", "A": "1"})
    assert plan.etag_of(Plan({"a": one})) == plan.etag_of(Plan({"a": other}))
    assert plan.etag_of(Plan({"a": one})) != plan.etag_of(Plan({"b": one}))
    assert plan.etag_of(one).startswith('"')


def test_what_can_change_while_it_runs_needs_no_restart() -> None:
    spec = ProcessSpec(ARGV)
    live: dict[str, Any] = {
        "restart": "always", "stop_signal": "SIGINT", "stop_timeout": 1.0, "on_failure": "stop-container",
        "enabled": False, "after": {"x": "ready"},
    }  # fmt: skip
    for field, value in live.items():
        assert not must_restart(spec, msgspec.structs.replace(spec, **{field: value}))
    for field, value in {"argv": ("x",), "env": {"A": ""}, "nice": 1, "scope": "tree", "umask": "0"}.items():
        assert must_restart(spec, msgspec.structs.replace(spec, **{field: value}))


entries = st.builds(
    ProcessLayer,
    override=st.sampled_from(["merge", "replace"]),
    argv=st.sampled_from([("a",), ("b",)]),
    env=st.sampled_from([{}, {"A": "1"}, msgspec.UNSET]),
    restart=st.sampled_from(["always", "never", msgspec.UNSET]),
    after=st.sampled_from([{}, {"a": "started"}, {"b": "ready"}, msgspec.UNSET]),
    enabled=st.booleans(),
)
layers = st.builds(Layer, processes=st.dictionaries(st.sampled_from("abc"), entries, max_size=3))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), layers), min_size=1, max_size=5), st.randoms())
def test_after_applying_a_plan_nothing_is_left_to_do(changes: list[tuple[str, Layer]], random: Any) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(Machine(patch)) as machine:
        for name, layer in changes:
            _change(machine, name, layer, random)
            processes = machine.processes
            assert processes.differences(processes.plan) == []
            assert {life.name: life.spec for life in processes.all()} == processes.plan.processes


def _change(machine: Machine, name: str, layer: Layer, random: Any) -> None:
    """Put a layer, apply it, and let what is to be stopped end, and others now and then."""
    processes = machine.processes
    before = dict(processes.layers)
    try:
        processes.put_layer(name, layer)
    except PlanError:
        assert processes.layers == before
        return
    processes.apply()
    machine.loop.settle()
    for life in processes.all():
        if life.pid is not None and (life.state == "stopping" or random.random() < 0.2):
            machine.end(life.name, random.randrange(2))
    machine.loop.advance(5)
