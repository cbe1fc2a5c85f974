"""The lines that the node prints on its console for machines to read as well as people.

One line per boot phase: ``zn: phase <name> <state> at <seconds>s[: <detail>]``. The time is CLOCK_BOOTTIME,
seconds since the kernel's entry. The QEMU library waits for these lines; `/v1/boot` lists the same facts.
"""

import re
from dataclasses import dataclass

# In the order in which a boot passes them; "ready" follows when Core-0 answers authenticated requests.
PHASES = (
    "init",
    "mounts",
    "cgroups",
    "devices",
    "modules",
    "sysctls",
    "supervise",
    "identity",
    "network",
    "api",
    "ready",
)

STATES = ("done", "failed")

_LINE = re.compile(
    r"zn: phase (?P<name>[a-z]+) (?P<state>done|failed) at (?P<at>\d+\.\d{3})s(?:: (?P<detail>.*))?$"
)


@dataclass(frozen=True)
class Phase:
    """One boot phase as printed on the console."""

    name: str
    state: str
    at: float
    detail: str = ""


def format_phase(phase: Phase) -> str:
    """The console line of a phase, without the line end."""
    detail = f": {phase.detail}" if phase.detail else ""
    return f"zn: phase {phase.name} {phase.state} at {phase.at:.3f}s{detail}"


def parse_phase(line: str) -> Phase | None:
    """The phase that a console line reports, or None. Bytes before the marker are ignored."""
    found = _LINE.search(line.rstrip("\r\n"))
    if not found:
        return None
    return Phase(found["name"], found["state"], float(found["at"]), found["detail"] or "")
