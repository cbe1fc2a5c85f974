"""How `zn process` shows a process: a row, all facts, or what became of it."""

import time

from cli.outcome import ExitCode, Failure
from cli.output import print_json, print_line
from corex.wire.api import ProcessInfo

COLUMNS = ("name", "state", "pid", "cpu", "memory", "restarts", "since", "why")


def report(info: ProcessInfo, *, as_json: bool, failed: bool) -> None:
    """Say what became of a process.

    Raises:
        Failure: `failed`, that is not what was asked for.
    """
    if as_json:
        print_json(info)
    else:
        outdated = "; restart it to apply its specification" if info.outdated else ""
        print_line(f"{info.name} is {info.state}: {info.why}{outdated}")
    if failed:
        raise Failure(f"cannot bring {info.name} to where it should be: {info.why}", ExitCode.FAILED)


def row(info: ProcessInfo) -> tuple[object, ...]:
    """What there is for `COLUMNS`."""
    usage = info.usage
    return (
        info.name,
        info.state,
        info.pid or "",
        f"{usage.cpu_seconds:.1f} s" if usage else "",
        f"{usage.memory_bytes / 2**20:.1f} MiB" if usage and usage.memory_bytes is not None else "",
        info.restarts,
        _ago(info.since),
        info.why,
    )


def facts(info: ProcessInfo) -> list[tuple[str, object]]:
    """Its state, its figures and its specification."""
    spec = info.spec
    return [
        *zip(COLUMNS, row(info), strict=True),
        ("wanted", info.wanted),
        ("layers", ", ".join(info.layers)),
        ("outdated", "yes, restart it to apply its specification" if info.outdated else "no"),
        ("kind", spec.kind),
        ("after", ", ".join(f"{name}={condition}" for name, condition in spec.after.items())),
        ("argv", " ".join(spec.argv)),
        ("env", " ".join(f"{name}={value}" for name, value in spec.env.items())),
        ("cwd", spec.cwd),
        ("user", spec.user),
        ("restart", spec.restart),
        ("stop", f"{spec.stop_signal}, SIGKILL after {spec.stop_timeout:g} s"),
    ]


def _ago(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
