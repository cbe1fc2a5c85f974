"""Figures for Prometheus and its kin, as OpenMetrics' text (the OpenMetrics specification, 1.0)."""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple, get_args

from corex.http.routes import NoBody, NoParameters, Request, Route, Stream
from corex.rest.access import METRICS
from corex.rest.container import Container
from corex.rest.streams import once
from corex.wire.api import ProcessInfo, State, Usage

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Family(NamedTuple):
    """A family of figures: its name with its unit, its type, and what it is."""

    name: str
    kind: str
    help: str


def routes() -> list[Route]:
    """The row of the table."""
    return [
        Route("GET", "/v1/metrics", METRICS, "Figures, as OpenMetrics", get_metrics, streams=(OPENMETRICS,)),
    ]


async def get_metrics(request: Request[Container, NoParameters, NoBody]) -> Stream:
    """Of Core-X, and of each process."""
    return Stream(OPENMETRICS, once("".join(_lines(request.context)).encode()))


def _lines(container: Container) -> Iterator[str]:
    processes = container.processes
    yield from _of_corex(container, processes.world.figures.of(os.getpid()))
    found = [processes.info(life) for life in processes.all()]
    yield from _shown(
        Family("corex_process_state", "stateset", "The state of a process"),
        (
            (f'{_process(info)},corex_process_state="{state}"', int(info.state == state))
            for info in found
            for state in get_args(State)
        ),
    )
    yield from _shown(
        Family("corex_process_restarts", "counter", "Starts that followed an end without anybody asking"),
        ((_process(info), info.restarts) for info in found),
    )
    for family, attribute in _OF_USAGE:
        figures = ((_process(info), getattr(info.usage, attribute)) for info in found if info.usage)
        yield from _shown(family, ((labels, value) for labels, value in figures if value is not None))
    yield "# EOF\n"


_OF_USAGE = (
    (Family("corex_process_cpu_seconds", "counter", "Processor time, user and system"), "cpu_seconds"),
    (Family("corex_process_memory_bytes", "gauge", "Memory"), "memory_bytes"),
    (Family("corex_process_tasks", "gauge", "Threads of its cgroup"), "tasks"),
    (Family("corex_process_read_bytes", "counter", "Bytes read from disks by its cgroup"), "read_bytes"),
    (
        Family("corex_process_written_bytes", "counter", "Bytes written to disks by its cgroup"),
        "written_bytes",
    ),
)


def _of_corex(container: Container, own: Usage | None) -> Iterator[str]:
    world = container.processes.world
    uptime = world.loop.time() - container.started
    figures: list[tuple[Family, float | None]] = [
        (Family("corex_uptime_seconds", "gauge", "Since Core-X began"), round(uptime, 3)),
        (
            Family("corex_orphans", "counter", "Processes reaped that were not Core-X's own"),
            world.reaper.orphans,
        ),
        (Family("corex_log_lines", "counter", "Lines that processes wrote"), world.logs.last),
        (Family("corex_sessions", "gauge", "Sessions"), len(container.sessions.all())),
        (
            Family("corex_cpu_seconds", "counter", "Core-X's own processor time"),
            own.cpu_seconds if own else None,
        ),
        (
            Family("corex_memory_bytes", "gauge", "Core-X's own resident memory"),
            own.memory_bytes if own else None,
        ),
    ]
    for family, value in figures:
        if value is not None:
            yield from _shown(family, [("", value)])


def _shown(family: Family, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    """A family's lines, none without samples."""
    suffix = "_total" if family.kind == "counter" else ""
    described = False
    for labels, value in samples:
        if not described:
            unit = family.name.rpartition("_")[2]
            yield f"# TYPE {family.name} {family.kind}\n"
            if unit in ("seconds", "bytes"):
                yield f"# UNIT {family.name} {unit}\n"
            yield f"# HELP {family.name} {family.help}.\n"
            described = True
        yield f"{family.name}{suffix}{{{labels}}} {value}\n" if labels else f"{family.name}{suffix} {value}\n"


def _process(info: ProcessInfo) -> str:
    """Names are DNS labels: nothing of them needs an escape."""
    return f'process="{info.name}"'
