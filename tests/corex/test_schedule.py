"""When scheduled processes start, and alarms by the wall clock."""

import asyncio
import errno
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corex.process.clock import WallClock
from corex.process.schedule import check_cron, next_start, read_zone, zone_file
from corex.wire.process import Schedule

# A zone as the container has it: the European Union's rules of summer time, in the footer (RFC 9636, section 3.3).
_HEAD = b"TZif2" + bytes(15) + b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4))
_BLOCK = (3600).to_bytes(4, "big") + bytes(2) + b"CET\0"
BERLIN = (_HEAD + _BLOCK) * 2 + b"\nCET-1CEST,M3.5.0,M10.5.0/3\n"


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("cron", "now", "after"),
    [
        ("0 12 * * *", "2026-01-10T00:00+01:00", "2026-01-10T12:00+01:00"),
        ("0 12 * * *", "2026-07-10T00:00+02:00", "2026-07-10T12:00+02:00"),
        ("0 12 * * *", "2026-01-10T12:00+01:00", "2026-01-11T12:00+01:00"),
        ("30 2 * * *", "2026-03-28T12:00+01:00", "2026-03-29T03:00+02:00"),  # left out by summer time
        ("30 2 * * *", "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00"),  # comes twice
        ("30 2 * * *", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),  # and is taken once
        ("*/15 * * * *", "2026-10-25T02:50+02:00", "2026-10-25T02:00+01:00"),
        ("0 6 * * MON-FRI", "2026-11-20T06:00+01:00", "2026-11-23T06:00+01:00"),
        ("*/10 * * * * *", "2026-01-10T00:00:05+01:00", "2026-01-10T00:00:10+01:00"),
        ("0 0 29 2 *", "2026-01-01T00:00+01:00", "2028-02-29T00:00+01:00"),
    ],
)
def test_cron_is_of_its_zone(cron: str, now: str, after: str) -> None:
    zone = read_zone("Europe/Berlin", BERLIN)
    found = next_start(Schedule(cron=cron, zone="Europe/Berlin"), at(now), None, zone)
    assert datetime.fromtimestamp(found, UTC) == datetime.fromisoformat(after)


@given(st.floats(0, 4e9), st.sampled_from(["* * * * *", "0 3 * * *", "0 0 1 * MON", "59 23 31 12 *"]))
def test_cron_is_always_later_and_by_whole_minutes(now: float, cron: str) -> None:
    found = next_start(Schedule(cron=cron), now, None, UTC)
    assert found > now - 1
    assert found % 60 == 0
    assert next_start(Schedule(cron=cron), found, None, UTC) > found


@given(st.floats(1e9, 3e9), st.floats(1, 1e6), st.floats(-1e6, 1e6))
def test_an_interval_does_not_drift(now: float, every: float, since: float) -> None:
    found = next_start(Schedule(every=every), now, now - since, UTC)
    assert now < found <= now + every * (1 + 1e-6)
    if since >= 0:
        rounds = (found - (now - since)) / every
        assert rounds == pytest.approx(round(rounds), abs=1e-3)
    assert next_start(Schedule(every=every), now, None, UTC) == pytest.approx(now + every)


def test_utc_needs_no_file_and_others_do() -> None:
    assert zone_file("UTC") is None
    assert zone_file("Europe/Berlin") == "/usr/share/zoneinfo/Europe/Berlin"
    zone = read_zone("Europe/Berlin", BERLIN)
    assert isinstance(zone, ZoneInfo)
    assert zone.key == "Europe/Berlin"


@given(st.binary(max_size=200))
def test_a_file_that_is_no_zone_is_said(data: bytes) -> None:
    for what in (data, BERLIN[: len(data)], b"TZif2" + data):
        with pytest.raises(ValueError, match="time zone"):
            read_zone("Europe/Berlin", what)


def test_a_schedule_without_cron_has_nothing_to_check() -> None:
    check_cron(Schedule(every=1))


# Alarms.


async def test_alarms_come_in_their_order_and_cancelled_ones_do_not() -> None:
    clock = WallClock(asyncio.get_running_loop())
    came: list[str] = []
    done = asyncio.Event()
    now = time.time()
    clock.at(now + 0.12, done.set)
    clock.at(now + 0.08, lambda: came.append("second"))
    clock.at(now + 0.04, lambda: came.append("cancelled")).cancel()
    clock.at(now + 0.02, lambda: came.append("first"))
    clock.at(now - 1000, lambda: came.append("past"))
    clock.at(now + 1e12, lambda: came.append("never"))
    await asyncio.wait_for(done.wait(), 10)
    assert came == ["past", "first", "second"]
    clock.close()


async def test_who_set_the_clock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's part is told here: a test must not set its machine's clock."""
    clock = WallClock(asyncio.get_running_loop())
    told: list[int] = []
    clock.changed = lambda: told.append(1)
    clock.at(time.time() + 1000, lambda: None)

    def cancelled(_descriptor: int, _size: int) -> bytes:
        raise OSError(errno.ECANCELED, "")

    monkeypatch.setattr(os, "read", cancelled)
    clock._wake()
    assert told == [1]
    clock.close()


def test_who_waits_for_nothing_has_no_timer() -> None:
    loop: Any = None
    before = len(list(Path("/proc/self/fd").iterdir()))
    clock = WallClock(loop)
    clock.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
