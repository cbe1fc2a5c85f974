"""What Core-X's handlers work on, and what several of them say."""

from dataclasses import dataclass

from corex.http import problem
from corex.process.figures import Figures
from corex.process.health import Monitor
from corex.process.manager import Processes
from corex.process.model import Flaw
from corex.process.spawn import SpawnError
from corex.rest.access import Access
from corex.sessions.manager import Sessions


@dataclass(frozen=True)
class Container:
    """What handlers work on.

    Attributes:
        name: the container's name.
        access: who may ask.
        processes: its processes.
        sessions: its sessions.
        figures: of Core-X itself.
        started: when Core-X started, on the loop's clock.
        health: what looks at it, if it has a check.
    """

    name: str
    access: Access
    processes: Processes
    sessions: Sessions
    figures: Figures
    started: float
    health: Monitor | None = None


CANNOT_RUN = problem.ProblemType("cannot-run", 422, "The command could not be started")


def cannot_run(error: SpawnError) -> problem.ProblemError:
    """The problem of a command that could not be started."""
    remedy = "check argv, PATH in env, cwd and user against the container's files"
    return CANNOT_RUN(f"cannot run the command: {error}", remedy=remedy)


def refuse(flaw: Flaw | None) -> None:
    """Raise the problem of a flaw, if there is one."""
    if flaw is not None:
        raise problem.INVALID(f"cannot accept the request: {flaw.reason}", pointer=flaw.pointer)
