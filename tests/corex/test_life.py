"""Real lives in a world where time, chance and the kernel do as a test says."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corex.process import model
from corex.process.life import Life
from corex.wire.api import Exit
from corex.wire.process import Backoff, ProcessSpec, Readiness, Schedule
from tests.corex.fake_world import START, Machine

TERM, KILL = signal.SIGTERM, signal.SIGKILL


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(monkeypatch)
    yield made
    made.close()


def spec(**fields: Any) -> ProcessSpec:
    return ProcessSpec(("a",), **fields)


def declare(machine: Machine, **specs: ProcessSpec) -> None:
    machine.processes.declare(specs)
    machine.loop.settle()


def life(machine: Machine, name: str) -> Life:
    found = machine.processes.get(name)
    assert found is not None
    return found


# Restarts.


def test_a_run_that_was_stable_forgets_earlier_failures(machine: Machine) -> None:
    declare(machine, a=spec(restart="always", backoff=Backoff(first=1, stable=10)))
    for delay in (1, 2, 4):
        machine.end("a", 1)
        assert life(machine, "a").next_start == machine.wall() + delay
        machine.loop.advance(delay)
        assert machine.state("a") == "running"
    machine.loop.advance(10)
    machine.end("a", 1)
    assert life(machine, "a").why == "it exited with code 1; the next start follows after 1.0 s"


def test_a_limit_ends_the_restarts_and_a_request_begins_anew(machine: Machine) -> None:
    declare(machine, a=spec(restart="on-failure", backoff=Backoff(first=1, factor=1, limit=2)), b=spec())
    for _ in range(2):
        machine.end("a", 3)
        machine.loop.advance(1)
    machine.end("a", 3)
    assert life(machine, "a").why == (
        "it exited with code 3; it was restarted 2 times in a row, which is its limit"
    )
    assert machine.states("a").count("backoff") == 2
    machine.start("a")
    machine.end("a", 3)
    assert machine.state("a") == "backoff"


def test_a_reset_starts_what_waits_for_its_restart_and_stops_what_failed(machine: Machine) -> None:
    declare(machine, a=spec(restart="always", backoff=Backoff(first=1000, cap=1000)), b=spec())
    machine.end("a", 1)
    life(machine, "a").reset()
    machine.loop.settle()
    assert (machine.state("a"), life(machine, "a").restarts) == ("running", 0)
    machine.end("b", 7)
    life(machine, "b").reset()
    assert (machine.state("b"), life(machine, "b").exit) == ("stopped", None)


def test_stopping_during_backoff_leaves_no_ghost(machine: Machine) -> None:
    declare(machine, a=spec(restart="always"), b=spec())
    machine.end("a", 1)
    machine.stop("a")
    machine.loop.advance(100)
    assert machine.states("a")[-2:] == ["backoff", "stopped"]


def test_who_is_deaf_to_its_stop_signal_is_killed_and_the_next_run_is_not(machine: Machine) -> None:
    declare(machine, a=spec(stop_timeout=5.0))
    machine.stop("a")
    machine.loop.advance(4.5)
    assert [number for _, number in machine.signals] == [TERM]
    machine.loop.advance(1)
    assert [number for _, number in machine.signals] == [TERM, KILL]
    machine.start("a")
    machine.end("a", signal="SIGKILL")
    assert machine.state("a") == "running"
    machine.signals.clear()
    machine.loop.advance(100)
    assert machine.signals == []


def test_stopping_while_it_is_spawned_stops_it_as_soon_as_it_runs(machine: Machine) -> None:
    machine.spawner.holds = True
    declare(machine, a=spec())
    machine.stop("a")
    assert machine.state("a") == "stopping"
    machine.spawner.orders[0].set_result(None)
    machine.loop.settle()
    assert [number for _, number in machine.signals] == [TERM]
    machine.end("a", signal="SIGTERM")
    assert machine.state("a") == "stopped"


# Order.


@pytest.mark.parametrize(
    ("condition", "fields", "happens", "meanwhile"),
    [
        pytest.param("started", {"ready": Readiness(notify=True)}, None, "starting", id="started"),
        pytest.param("ready", {"ready": Readiness(notify=True)}, "ready", "running", id="ready"),
        pytest.param("ready", {}, None, "starting", id="ready without a sign"),
        pytest.param("ready", {"kind": "one-shot"}, "end", "running", id="a one-shot is ready once it ended"),
        pytest.param("completed", {}, "break", "running", id="completed"),
        pytest.param("completed", {}, "end", "running", id="completed well"),
        pytest.param("succeeded", {}, "end", "running", id="succeeded"),
    ],
)
def test_a_process_waits_for_what_it_starts_after(
    machine: Machine, condition: Any, fields: dict[str, Any], happens: str | None, meanwhile: str
) -> None:
    machine.spawner.holds = True
    declare(machine, a=spec(after={"b": condition}), b=spec(**fields))
    assert machine.state("a") == "waiting"
    machine.spawner.holds = False
    if meanwhile == "running":
        machine.spawner.orders[0].set_result(None)
        machine.loop.settle()
        assert machine.state("a") == "waiting"
    assert life(machine, "a").why.endswith(f", which is {meanwhile}")
    if happens is None:
        machine.spawner.orders[0].set_result(None)
    elif happens == "ready":
        life(machine, "b")._ready("it said so")
    else:
        machine.end("b", 0 if happens == "end" else 1)
    machine.loop.settle()
    assert machine.state("a") == "running"
    assert life(machine, "a").why == "it runs: what it waited for is there"


@pytest.mark.parametrize(
    ("condition", "code"), [("ready", 1), ("started", 1), ("succeeded", 1), ("healthy", 0), ("ready", 0)]
)
def test_who_waits_for_what_never_comes_fails_and_so_do_those_after_it(
    machine: Machine, condition: Any, code: int
) -> None:
    ready = Readiness(notify=True) if condition != "started" else None
    declare(
        machine,
        a=spec(after={"b": "started"}),
        b=spec(after={"c": "succeeded" if condition == "healthy" else condition}),
        c=spec(ready=ready, stop_signal="SIGINT"),
        d=spec(),
    )
    if condition == "started":
        machine.end("c", code)
        assert machine.state("b") == "running", "it had started"
        return
    machine.end("c", 1 if condition == "healthy" else code)
    assert machine.state("a") == machine.state("b") == "failed"
    assert life(machine, "b").why.startswith("it does not start before c ")
    assert ", which is failed: it does not start before c" in life(machine, "a").why
    assert not machine.processes.over.done(), "d runs"


def test_a_container_ends_when_all_that_is_left_waits_for_what_never_comes(machine: Machine) -> None:
    declare(machine, main=spec(after={"migrate": "succeeded"}), migrate=spec(kind="one-shot"))
    machine.end("migrate", 4)
    assert machine.processes.over.result() == 1


def test_stopping_while_it_waits_leaves_no_ghost(machine: Machine) -> None:
    declare(machine, a=spec(after={"b": "ready"}), b=spec(ready=Readiness(notify=True)))
    machine.stop("a")
    life(machine, "b")._ready("it said so")
    machine.loop.advance(100)
    assert (machine.states("a"), life(machine, "a").pid) == (["waiting", "stopped"], None)


def test_starting_starts_what_comes_before_and_nothing_else(machine: Machine) -> None:
    machine.processes.declare(
        {
            "a": spec(after={"b": "ready", "c": "started"}, enabled=False),
            "b": spec(after={"d": "succeeded"}, enabled=False),
            "c": spec(enabled=False),
            "d": spec(kind="one-shot", enabled=False),
            "e": spec(enabled=False),
        }
    )
    machine.start("a")
    assert [machine.state(name) for name in "abcde"] == [
        "waiting",
        "waiting",
        "running",
        "running",
        "stopped",
    ]
    assert life(machine, "d").why == "it runs: it was started for a"
    machine.end("d")
    assert [machine.state(name) for name in "abcde"] == ["running", "running", "running", "exited", "stopped"]
    machine.stop("a")
    machine.end("a")
    machine.start("a")
    assert machine.state("d") == "exited", "it succeeded already"


def test_a_thousand_in_a_row_start_and_stop_one_after_the_other(machine: Machine) -> None:
    names = [f"p{number}" for number in range(1000)]
    declare(
        machine,
        **{
            name: spec(after={before: "ready"} if before else {})
            for name, before in zip(names, ["", *names], strict=False)
        },
    )
    for _ in range(1000):
        machine.loop.settle()
    assert {machine.state(name) for name in names} == {"running"}
    machine.processes.end()
    machine.loop.settle()
    for name in reversed(names):
        assert [number for pid, number in machine.signals if pid == machine.pid(name)] == [TERM]
        machine.signals.clear()
        machine.end(name, signal="SIGTERM")
        machine.signals = [one for one in machine.signals if one[1] == TERM]
    assert machine.processes.over.result() == 143


def test_all_that_nobody_starts_after_stops_at_once(machine: Machine) -> None:
    declare(machine, a=spec(), b=spec(after={"a": "started"}), c=spec(after={"a": "started"}), d=spec())
    pids = {name: machine.pid(name) for name in "abcd"}
    machine.processes.end()
    machine.loop.settle()
    assert {pid for pid, _ in machine.signals} == {pids["b"], pids["c"], pids["d"]}
    machine.end("b", 0)
    assert pids["a"] not in {pid for pid, _ in machine.signals}, "c runs"
    machine.end("c", 0)
    assert (pids["a"], TERM) in machine.signals


def test_who_never_ends_is_left_to_the_kernel(machine: Machine) -> None:
    declare(machine, a=spec(), b=spec(after={"a": "started"}))
    machine.processes.end()
    machine.loop.advance(130)
    assert machine.processes.over.result() == 0


def test_nothing_starts_while_the_container_stops(machine: Machine) -> None:
    declare(machine, a=spec(restart="always"), b=spec(after={"a": "started"}), c=spec(restart="always"))
    machine.end("c", 1)
    machine.processes.end()
    machine.loop.settle()
    machine.start("c")
    machine.end("b", 1)
    machine.end("a", 5)
    machine.loop.advance(100)
    assert machine.processes.over.result() == 5
    assert [machine.state(name) for name in "abc"] == ["stopped"] * 3


# What the end of a process means for the container.


@pytest.mark.parametrize(("code", "over"), [(0, None), (3, 3)])
def test_a_failure_may_stop_the_container_with_its_code(
    machine: Machine, code: int, over: int | None
) -> None:
    declare(machine, main=spec(), helper=spec(on_failure="stop-container"))
    machine.end("helper", code)
    if over is None:
        assert not machine.processes.over.done()
        return
    assert machine.state("main") == "stopping"
    machine.end("main", 0)
    assert machine.processes.over.result() == over


def test_a_success_may_stop_the_container(machine: Machine) -> None:
    declare(machine, main=spec(restart="always"), job=spec(kind="one-shot", on_success="stop-container"))
    machine.end("job", 0)
    machine.end("main", signal="SIGTERM")
    assert machine.processes.over.result() == 0


def test_the_last_one_s_code_counts_if_it_stops_the_container(machine: Machine) -> None:
    declare(machine, main=spec(), helper=spec(on_failure="stop-container"))
    machine.end("main", 0)
    machine.end("helper", 9)
    assert machine.processes.over.result() == 9


def test_a_failure_stops_the_container_only_when_no_restart_follows(machine: Machine) -> None:
    backoff = Backoff(first=1, limit=1)
    declare(machine, main=spec(restart="on-failure", backoff=backoff, on_failure="stop-container"))
    machine.end("main", 5)
    assert not machine.processes.over.done()
    machine.loop.advance(1)
    machine.end("main", 6)
    assert machine.processes.over.result() == 6


# Readiness.


def test_who_is_not_ready_in_time_is_ended_as_a_failure(machine: Machine) -> None:
    declare(machine, a=spec(ready=Readiness(notify=True, timeout=30), restart="on-failure"))
    machine.loop.advance(30)
    assert life(machine, "a").why == "it was not ready within 30 s, and was sent SIGTERM"
    machine.end("a", 0)
    assert machine.state("a") == "backoff"
    assert life(machine, "a").why.startswith("it was not ready within 30 s, and exited with code 0; the next")


def test_who_was_to_be_ended_and_is_stopped_is_stopped(machine: Machine) -> None:
    declare(machine, a=spec(ready=Readiness(notify=True, timeout=30), restart="on-failure"))
    machine.loop.advance(30)
    machine.stop("a")
    machine.end("a", 0)
    assert machine.state("a") == "stopped"


def test_who_is_ready_has_no_deadline(machine: Machine) -> None:
    declare(machine, a=spec(ready=Readiness(notify=True, timeout=30)))
    life(machine, "a")._ready("it said so")
    machine.loop.advance(100)
    assert machine.state("a") == "ready"


def test_a_watchdog_that_is_not_fed_ends_its_process(machine: Machine) -> None:
    declare(machine, a=spec(ready=Readiness(notify=True, watchdog=10)))
    one = life(machine, "a")
    assert one.run is not None
    assert machine.spawner.commands[machine.pid("a")].env["WATCHDOG_USEC"] == "10000000"
    one.run._hear({"READY": "1"}, machine.world)
    for _ in range(3):
        machine.loop.advance(8)
        one.run._hear({"WATCHDOG": "1"}, machine.world)
    assert machine.state("a") == "ready"
    machine.loop.advance(10)
    assert one.why == "its watchdog heard nothing for 10 s, and was sent SIGTERM"


def test_who_reloads_is_not_ready_meanwhile(machine: Machine) -> None:
    declare(machine, a=spec(ready=Readiness(notify=True, timeout=5)))
    one = life(machine, "a")
    assert one.run is not None
    one.run._hear({"READY": "1", "STATUS": "serves \x1b\n"}, machine.world)
    one.run._hear({"RELOADING": "1"}, machine.world)
    assert (machine.state("a"), one.why, one.status) == ("running", "it reloads", "serves ??")
    machine.loop.advance(10)
    one.run._hear({"READY": "1", "MAINPID": "1"}, machine.world)
    assert (machine.state("a"), machine.pid("a")) == ("ready", one.pid)


# Schedules.


def scheduled(**fields: Any) -> ProcessSpec:
    return ProcessSpec(("a",), kind="scheduled", **fields)


def test_an_interval_counts_from_start_to_start_and_leaves_out_what_falls_into_a_run(
    machine: Machine,
) -> None:
    declare(machine, a=scheduled(schedule=Schedule(every=60)))
    assert life(machine, "a").next_start == START + 60
    machine.loop.advance(60)
    machine.loop.advance(10)
    machine.end("a")
    assert life(machine, "a").next_start == START + 120
    machine.loop.advance(50 + 130)
    machine.end("a", 1)
    assert (machine.state("a"), life(machine, "a").next_start) == ("scheduled", START + 300)
    assert life(machine, "a").why == "it exited with code 1; its schedule starts it"


def test_a_start_by_hand_comes_before_the_schedule_and_a_stop_ends_it(machine: Machine) -> None:
    declare(machine, a=scheduled(schedule=Schedule(cron="0 0 1 1 *")), b=spec())
    machine.start("a")
    assert machine.state("a") == "running"
    machine.end("a")
    assert machine.state("a") == "scheduled"
    machine.stop("a")
    machine.loop.advance(10)
    assert (machine.state("a"), life(machine, "a").next_start) == ("stopped", None)


def test_a_scheduled_process_is_restarted_after_a_failure_first(machine: Machine) -> None:
    backoff = Backoff(first=1, limit=1)
    declare(machine, a=scheduled(schedule=Schedule(every=60), restart="on-failure", backoff=backoff))
    machine.loop.advance(60)
    machine.end("a", 1)
    assert machine.state("a") == "backoff"
    machine.loop.advance(1)
    machine.end("a", 1)
    assert machine.state("a") == "scheduled"


def test_a_clock_that_was_set_moves_the_next_start(machine: Machine) -> None:
    declare(machine, a=scheduled(schedule=Schedule(cron="0 12 * * *")))
    before = life(machine, "a").next_start
    machine.loop.now += 7 * 86400
    machine.processes.clock_was_set()
    assert before is not None
    assert life(machine, "a").next_start == before + 7 * 86400


def test_a_zone_that_the_container_lacks_is_said(machine: Machine) -> None:
    declare(machine, a=scheduled(schedule=Schedule(cron="0 12 * * *", zone="Europe/Berlin")), b=spec())
    assert (machine.state("a"), life(machine, "a").why) == (
        "failed",
        "time zone Europe/Berlin is not in the container's /usr/share/zoneinfo",
    )


def test_who_starts_after_a_scheduled_one_waits_for_a_run(machine: Machine) -> None:
    declare(machine, a=spec(after={"b": "succeeded"}), b=scheduled(schedule=Schedule(every=60)))
    machine.loop.advance(60)
    machine.end("b", 1)
    assert machine.state("a") == "waiting"
    machine.loop.advance(60)
    machine.end("b", 0)
    assert machine.state("a") == "running"


# Anything, in any order.


class Lives(RuleBasedStateMachine):
    """Three processes of which anything may happen to any at any time."""

    names = st.sampled_from(["a", "b", "c"])

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.machine = Machine(self.patch)

    @initialize(
        restart=st.sampled_from(["always", "on-failure", "never"]),
        limit=st.sampled_from([None, 0, 2]),
        condition=st.sampled_from(["started", "ready", "completed", "succeeded"]),
        is_scheduled=st.booleans(),
    )
    def declare(self, restart: Any, limit: int | None, condition: Any, is_scheduled: bool) -> None:
        backoff = Backoff(limit=limit)
        ready = Readiness(notify=True, timeout=5)
        once: Any = "never" if condition in ("completed", "succeeded") else restart
        b = spec(restart=once, ready=ready, after={"c": "started"}, backoff=backoff)
        c = scheduled(schedule=Schedule(every=30)) if is_scheduled else spec(restart=restart)
        self.machine.processes.declare({"a": spec(restart=restart, after={"b": condition}), "b": b, "c": c})
        self.machine.loop.settle()

    def life(self, name: str) -> Life:
        return life(self.machine, name)

    @rule(name=names, verb=st.sampled_from(["start", "stop", "restart", "reset", "condemn"]))
    def ask(self, name: str, verb: str) -> None:
        verbs: dict[str, Callable[[Life], None]] = {
            "start": self.machine.processes.start,
            "stop": Life.stop,
            "restart": self.machine.processes.restart,
            "reset": Life.reset,
            "condemn": lambda one: one.condemn("it shall fail"),
        }
        verbs[verb](self.life(name))

    @rule()
    def turn(self) -> None:
        self.machine.loop.settle()

    @rule(seconds=st.sampled_from([0.25, 1.0, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.machine.loop.advance(seconds)

    @rule(name=names, ended=st.sampled_from([Exit(code=0), Exit(code=1), Exit(signal="SIGKILL")]))
    def end(self, name: str, ended: Exit) -> None:
        if (pid := self.life(name).pid) is not None:
            self.machine.reaper.end(pid, ended)

    @rule(name=names)
    def get_ready(self, name: str) -> None:
        run = self.life(name).run
        if run is not None:
            run._hear({"READY": "1"}, self.machine.world)

    @rule(refuses=st.booleans())
    def refuse(self, refuses: bool) -> None:
        self.machine.spawner.refuses = refuses

    @precondition(lambda self: not self.machine.spawner.holds)
    @rule()
    def hold(self) -> None:
        self.machine.spawner.holds = True

    @rule()
    def let_go(self) -> None:
        self.machine.spawner.holds = False
        for order in self.machine.spawner.orders:
            order.set_result(None)
        self.machine.spawner.orders.clear()
        self.machine.loop.settle()

    @invariant()
    def each_is_what_its_state_says(self) -> None:
        lives = self.machine.processes.all()
        for one in lives:
            assert (one.pid is not None) <= (one.state in model.ALIVE)
            assert (one.next_start is not None) <= (one.state in ("backoff", "scheduled"))
            assert one.wanted or one.state in ("stopping", *model.SETTLED)
            assert not (one.wanted and one.state == "stopped")
            assert one.why
        pids = {one.pid for one in lives} - {None}
        spawned = set(self.machine.reaper.waiting)
        assert pids == spawned, "each process has its life, and none is without one"

    def teardown(self) -> None:
        self.let_go()
        for one in self.machine.processes.all():
            one.stop()
        self.machine.loop.settle()
        for pid in list(self.machine.reaper.waiting):
            self.machine.reaper.end(pid, Exit(signal="SIGTERM"))
        self.machine.loop.advance(100)
        assert {one.state for one in self.machine.processes.all()} == {"stopped"}
        self.machine.close()
        self.patch.undo()


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
