"""Supervision: delays that grow and are forgotten, told in words. The clock is a parameter."""

import os
import signal
from pathlib import Path

import pytest

from core0.init import supervise
from core0.init.supervise import Service, Supervisor, describe_status, restart_delay


def test_delays_double_up_to_half_a_minute():
    assert [restart_delay(count) for count in (0, 1, 2, 3, 9, 10, 1000)] == [0, 0.1, 0.2, 0.4, 25.6, 30, 30]


@pytest.fixture
def started(monkeypatch):
    """Services that 'start' as pids 100, 101, … so that the table of the supervisor can be tested alone."""
    pids = []

    def start(service, _listener):
        pids.append(service.name)
        return 99 + len(pids)

    monkeypatch.setattr(supervise, "start", start)
    monkeypatch.setattr(supervise, "end_leftovers", lambda _: None)
    return pids


def service(name: str) -> Service:
    return Service(name, run=lambda _: None)


def test_a_service_that_ends_starts_again_after_its_delay(started):
    supervisor = Supervisor([service("api"), service("node")], now=0.0)
    assert supervisor.start_due(0.0) == []
    assert started == ["api", "node"]
    assert supervisor.next_due() is None
    said = supervisor.ended(100, 1 << 8, now=1.0)
    assert said == "Process api ended: exit code 1; starting it again in 0.1 s"
    assert supervisor.next_due() == pytest.approx(1.1)
    supervisor.start_due(1.05)
    assert started == ["api", "node"], "not before it is due"
    supervisor.start_due(1.2)
    assert started == ["api", "node", "api"]


def test_a_stable_run_forgets_earlier_failures(started):
    supervisor = Supervisor([service("api")], now=0.0)
    now = 0.0
    for _ in range(5):
        supervisor.start_due(now)
        supervisor.ended(99 + len(started), 0, now)
        now = supervisor.next_due()
    assert now > 1
    supervisor.start_due(now)
    said = supervisor.ended(99 + len(started), signal.SIGKILL, now + 61)
    assert said == "Process api ended: killed by SIGKILL; starting it again in 0.1 s"


def test_strangers_are_not_services(started):
    assert Supervisor([service("api")], now=0.0).ended(4711, 0, 0.0) is None


def test_a_draining_supervisor_starts_nothing(started):
    supervisor = Supervisor([service("api")], now=0.0)
    supervisor.start_due(0.0)
    assert supervisor.drain() == [100]
    supervisor.ended(100, 0, 1.0)
    supervisor.start_due(100.0)
    assert started == ["api"]


def test_a_listener_that_cannot_be_made_is_tried_again(started):
    def listen():
        raise OSError("address in use")

    supervisor = Supervisor([Service("api", run=lambda _: None, listen=listen)], now=0.0)
    (said,) = supervisor.start_due(0.0)
    assert said == "Process api could not start: address in use; starting it again in 0.1 s"
    assert supervisor.next_due() == pytest.approx(0.1)


def test_statuses_in_words():
    assert describe_status(3 << 8) == "exit code 3"
    assert describe_status(signal.SIGSEGV) == "killed by SIGSEGV"


def test_children_are_reaped_all_at_once():
    previous = signal.getsignal(signal.SIGCHLD)
    reader = supervise.watch_children()
    try:
        pids = set()
        for code in (1, 2, 3):
            pid = os.fork()
            if pid == 0:
                os._exit(code)
            pids.add(pid)
        reaped, seen = {}, {}

        def look(pid):
            seen[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]

        while pids - reaped.keys():
            reaped.update(supervise.ended_children(reader, look))
        assert {pid: seen[pid] for pid in pids} == dict.fromkeys(pids, "Z"), "each could still be looked at"
        assert sorted(os.waitstatus_to_exitcode(reaped[pid]) for pid in pids) == [1, 2, 3]
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, previous)
        reader.close()
