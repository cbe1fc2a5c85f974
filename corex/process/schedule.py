"""When a scheduled process starts next. Pure; the cron expressions themselves are cronsim's.

Zones: the tz database's compiled files (RFC 9636). Core-X lives on a runtime without them and takes them from the
container's own /usr/share/zoneinfo; the tables of summer time are then those that the container's programs go by.
"""

import io
import math
import os
from datetime import UTC, datetime, tzinfo

from cronsim import CronSim, CronSimError

from corex.wire.process import Schedule

# Asked nothing, zoneinfo loads how Python was built, 200 KiB, to learn where zones are: they come as bytes here.
os.environ.setdefault("PYTHONTZPATH", "")
from zoneinfo import ZoneInfo

ZONES = "/usr/share/zoneinfo"
# Names of the one zone that needs no table.
UTC_NAMES = frozenset({"UTC", "Etc/UTC", "Z"})
_EXAMPLE = datetime(2024, 1, 1, tzinfo=UTC)


def check_cron(schedule: Schedule) -> None:
    """Refuse an expression that is none, or names no moment of the next 50 years.

    Raises:
        ValueError: with the reason.
    """
    if schedule.cron is None:
        return
    try:
        next(CronSim(schedule.cron, _EXAMPLE))
    except CronSimError as error:
        raise ValueError(f"it is no cron expression: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except StopIteration:
        raise ValueError("there is no such moment in the next 50 years") from None


def zone_file(zone: str) -> str | None:
    """Where the container has a zone's table; None for UTC, which has none."""
    return None if zone in UTC_NAMES else f"{ZONES}/{zone}"


def read_zone(zone: str, data: bytes) -> tzinfo:
    """A zone of its table's bytes.

    Raises:
        ValueError: they are no such table; empty ones are of a zone that is not there.
    """
    if not data:
        raise ValueError(f"time zone {zone} is not in the container's {ZONES}")
    try:
        return ZoneInfo.from_file(io.BytesIO(data), key=zone)
    except Exception as error:  # noqa: BLE001  # zoneinfo says nothing of what a stranger's bytes may raise
        raise ValueError(f"the container's {ZONES}/{zone} is no time zone: {error}") from None


def next_start(schedule: Schedule, now: float, last: float | None, zone: tzinfo) -> float:
    """When it starts next, in seconds since 1970 UTC, after `now`.

    An interval is counted from the last start, so that starts do not drift; those that fell into a run are left out.
    Times of day that a change to summer time leaves out are made up for just after it, those that happen twice are
    taken once, as in Debian's cron.

    Args:
        schedule: what was checked by `check_cron`.
        now: seconds since 1970 UTC.
        last: its last start, None if there was none.
        zone: of its cron expression.
    """
    if schedule.every is not None:
        # a clock that was set back, or far ahead, begins to count anew
        begun = last if last is not None and last <= now else now
        moment = begun + schedule.every * (math.floor((now - begun) / schedule.every) + 1)
        return moment if moment > now else moment + schedule.every  # what rounding took
    return next(CronSim(schedule.cron or "", datetime.fromtimestamp(now, zone))).timestamp()
