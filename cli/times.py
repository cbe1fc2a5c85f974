"""Moments as people write them and as programs read them."""

import datetime
import re

from cli.outcome import ExitCode, Failure

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def moment_of(text: str, now: float) -> float:
    """Seconds since 1970 UTC at a time of RFC 3339, without an offset in this machine's zone, or so long ago.

    Args:
        text: as in 2026-11-22T18:05:09Z, or as in 90s, 10min, 2h, 1d.
        now: seconds since 1970 UTC.

    Raises:
        Failure: it is neither (usage).
    """
    ago = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(s|m|min|h|d)", text)
    if ago:
        return now - float(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise Failure(
            f"cannot read the time {text!r}: write it as 2026-11-22T18:05:09Z, or as 10min ago: 10min",
            ExitCode.USAGE,
        ) from None


def stamp_of(moment: float) -> str:
    """A moment as RFC 3339 has it, in UTC, to the millisecond.

    Args:
        moment: seconds since 1970 UTC.
    """
    there = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return there.isoformat(timespec="milliseconds").replace("+00:00", "Z")
