"""What Core-X's handlers work on, and what they refuse in the same words."""

from typing import Any

import msgspec

from corex.files.hands import Hands
from corex.files.resolve import Root
from corex.http import problem
from corex.http.problem import ProblemError
from corex.http.routes import Request
from corex.process.health import Monitor
from corex.process.life import Life
from corex.process.manager import Processes
from corex.process.model import Flaw
from corex.process.operations import Operations
from corex.process.plan import PlanError
from corex.process.spawn import SpawnError
from corex.rest.access import Access
from corex.rest.auditing import Audit
from corex.sessions.manager import Sessions
from corex.wire.health import HealthCheck


class Container(msgspec.Struct, frozen=True):
    """What handlers work on.

    Attributes:
        name: the container's name.
        access: who may ask.
        processes: its processes.
        sessions: its sessions.
        started: when Core-X started, on the loop's clock.
        root: its root folder.
        hands: what waits for its storage.
        operations: long work.
        audit: who did what.
        health: what looks at it, if it has a check.
    """

    name: str
    access: Access
    processes: Processes
    sessions: Sessions
    started: float
    root: Root
    hands: Hands
    operations: Operations
    audit: Audit
    health: Monitor[HealthCheck] | None = None


CANNOT_RUN = problem.ProblemType("cannot-run", 422, "The command could not be started")


def cannot_run(error: SpawnError) -> ProblemError:
    """The problem of a command that could not be started."""
    remedy = "check argv, PATH in env, cwd and user against the container's files"
    return CANNOT_RUN(f"cannot run the command: {error}", remedy=remedy)


def life_of(container: Container, name: str) -> Life:
    """The process of a name; 404 without one."""
    life = container.processes.get(name)
    if life is None:
        raise problem.NOT_FOUND(
            f"cannot find process {name}: it is not declared", remedy="see GET /v1/processes"
        )
    return life


def refuse(flaw: Flaw | None) -> None:
    """422 for a flaw, if there is one."""
    if flaw is not None:
        raise problem.INVALID(f"cannot accept the request: {flaw.reason}", pointer=flaw.pointer)


def no_plan(error: PlanError, below: str = "") -> ProblemError:
    """The 422 for what makes no plan; its pointer is into the body, which lies at `below` of the plan."""
    inside = error.pointer.startswith(below)
    return problem.INVALID(
        f"cannot accept the request: {error.reason}",
        remedy="see GET /v1/plan for what all layers say together",
        pointer=error.pointer[len(below) :] if inside else None,
    )


def check_preconditions(request: Request[Any, Any, Any], etag: str | None) -> None:
    """412 unless If-Match and If-None-Match (RFC 9110, section 13.1) allow a change of what has this ETag.

    Args:
        request: what may have the headers.
        etag: of the resource as it is, None if there is none.
    """
    wanted, unwanted = request.raw.headers.get("if-match"), request.raw.headers.get("if-none-match")
    if wanted is not None and not _matches(wanted, etag):
        raise problem.PRECONDITION_FAILED(
            "cannot change it: it is not what If-Match says", remedy="read it again, and decide anew"
        )
    if unwanted is not None and _matches(unwanted, etag):
        raise problem.PRECONDITION_FAILED(
            "cannot change it: it is there already, as If-None-Match says", remedy="leave the header out"
        )


def _matches(listed: str, etag: str | None) -> bool:
    if etag is None:
        return False
    return listed.strip() == "*" or etag in [one.strip() for one in listed.split(",")]
