"""The lines that the node prints on its console for machines to read as well as people.

One line per boot phase: ``zn: phase <name> <state> at <seconds>s[: <detail>]``. The time is CLOCK_BOOTTIME,
seconds since the kernel's entry. The QEMU library waits for these lines; `/v1/boot` lists the same facts.
"""

import os
import re
import time
from typing import Literal, NamedTuple

from core0.wire.paths import BOOT_LOG

# In the order in which a boot passes them, but that identity and network go side by side. "ready" means that
# Core-0 answers authenticated requests; "storage" comes some seconds later and nobody waits for it.
PHASES = (
    "init",
    "image",
    "root",
    "mounts",
    "clock",
    "cgroups",
    "drivers",
    "kernel",
    "supervise",
    "identity",
    "network",
    "ready",
    "storage",
)

State = Literal["done", "failed"]

# compiled when it is first used: the node only writes these lines
_LINE = r"zn: phase (?P<name>[a-z]+) (?P<state>done|failed) at (?P<at>\d+\.\d{3})s(?:: (?P<detail>.*))?$"


class Phase(NamedTuple):
    """One boot phase as printed on the console."""

    name: str
    state: State
    at: float
    detail: str = ""


def format_phase(phase: Phase) -> str:
    """The console line of a phase, without the line end."""
    detail = f": {phase.detail}" if phase.detail else ""
    return f"zn: phase {phase.name} {phase.state} at {phase.at:.3f}s{detail}"


def parse_phase(line: str) -> Phase | None:
    """The phase that a console line reports, or None. Bytes before the marker are ignored."""
    found = re.search(_LINE, line.rstrip("\r\n"))
    if not found:
        return None
    state: State = "done" if found["state"] == "done" else "failed"
    return Phase(found["name"], state, float(found["at"]), found["detail"] or "")


def announce(name: str, state: State = "done", detail: str = "", log: str = BOOT_LOG) -> Phase:
    """Print a phase on the console and append it to the boot log that `/v1/boot` reads."""
    phase = Phase(name, state, time.clock_gettime(time.CLOCK_BOOTTIME), " ".join(detail.split()))
    line = (format_phase(phase) + "\n").encode()
    os.write(1, line)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    return phase
