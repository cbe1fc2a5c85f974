"""Sizes as people write and read them."""

import re

from cli.outcome import ExitCode, Failure
from core0.wire.types import Traffic

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SCALE = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def bytes_of(text: str) -> int:
    """A size as people write it, in bytes. Raises Failure (usage)."""
    found = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text)
    if not found:
        raise Failure(f"cannot read the size {text!r}: write it as 500G", ExitCode.USAGE)
    return int(found[1]) * _SCALE[found[2]]


def size(count: int) -> str:
    """Bytes as people read them."""
    scaled, unit = float(count), _UNITS[0]
    for unit in _UNITS:  # noqa: B007 — the last one is wanted
        if scaled < 1024:
            break
        scaled /= 1024
    return f"{count} B" if unit == "B" else f"{scaled:.1f} {unit}"


def traffic_text(traffic: Traffic | None) -> str:
    """What went over a container's link, in a few words."""
    if traffic is None:
        return "-"
    ways = f"{size(traffic.received_bytes)} in, {size(traffic.sent_bytes)} out"
    counts = (
        (traffic.received_dropped + traffic.sent_dropped, "dropped"),
        (traffic.sent_refused, "refused"),
    )
    return ", ".join((ways, *(f"{count} {what}" for count, what in counts if count)))
